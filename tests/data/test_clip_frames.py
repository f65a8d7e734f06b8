import gc
import os
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image

from quadrant_lstm.data import clip_frames
from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, examine, find_clip_files, frame_times, is_clip
from quadrant_lstm.data.videos import decoded, opened_video
from quadrant_lstm.errors import UserError
from tests.clips import WRITERS, noise_clip, write_animation, write_folder, write_gif, write_video

COLOUR = FrameFormat(3, None, "THWC", "stretch")
GREY = COLOUR._replace(channels=1)
FRAMES = noise_clip(11)


def examined(clip, frame_format=COLOUR) -> tuple[int, int, int]:
    """Returns the number of frames, their height and their width."""
    return examine(clip, frame_format)[1:4]


def read_frames(clip, frame_format=COLOUR, numbers=range(11)) -> np.ndarray:
    out = np.empty((len(numbers), *examined(clip, frame_format)[1:], frame_format.channels), np.uint8)
    clip_frames.read_frames(clip, frame_format, numbers, out)
    return out


def frames_that_are_accepted(clip, contents):
    """Writes each content to the file, and returns those that are read, with the numbers of frames."""
    accepted = []
    for what, content in contents:
        clip.write_bytes(content)
        for checks_files in (True, False):
            try:
                accepted.append((what, examine(clip, COLOUR, checks_files).num_frames))
            except BrokenClip:
                continue
    return accepted


@pytest.mark.parametrize("name", [*WRITERS, "clip.gif"])
def test_each_format_keeps_every_pixel_and_the_order(name, tmp_path):
    greys = np.zeros((11, 12, 16, 3), np.uint8) + np.arange(0, 220, 20, dtype=np.uint8)[:, None, None, None]
    frames = greys if name == "clip.gif" else FRAMES
    WRITERS.get(name, write_gif)(tmp_path / name, frames)
    assert examined(tmp_path / name) == (11, 12, 16)
    assert examine(tmp_path / name, COLOUR, checks_files=False).num_frames == 11
    for numbers in (range(11), range(3, 10, 3), [0, 0, 3, 8, 8, 10]):
        assert np.array_equal(read_frames(tmp_path / name, numbers=numbers), frames[numbers])


@pytest.mark.parametrize(("layout", "axes"), [("TCHW", (0, 3, 1, 2)), ("CTHW", (3, 0, 1, 2)), ("THW", (0, 1, 2))])
def test_the_axes_of_an_array_are_those_of_the_layout(layout, axes, tmp_path):
    frames = FRAMES[..., 0] if layout == "THW" else FRAMES
    np.save(tmp_path / "clip.npy", frames.transpose(axes))
    read = read_frames(tmp_path / "clip.npy", (GREY if layout == "THW" else COLOUR)._replace(layout=layout))
    assert np.array_equal(read, frames.reshape(read.shape))


@pytest.mark.parametrize("clip", ["clip", "clip/frame.png"])
def test_a_frame_is_turned_as_its_camera_noted(clip, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the top of the frame is at the left of the stored pixels
    (tmp_path / "clip").mkdir()
    Image.fromarray(np.rot90(FRAMES[0])).save(tmp_path / "clip/frame.png", exif=exif)
    assert np.array_equal(read_frames(tmp_path / clip, numbers=range(1))[0], FRAMES[0])


def test_a_photograph_with_a_preview_is_one_frame(tmp_path):
    photo, preview = Image.fromarray(FRAMES[0]), Image.new("RGB", (2, 2))
    (tmp_path / "clip").mkdir()
    photo.save(tmp_path / "plain.jpg")
    photo.save(tmp_path / "clip/1.jpg", "MPO", save_all=True, append_images=[preview])
    assert is_clip(tmp_path / "clip")
    one, other = (read_frames(tmp_path / name, numbers=[0]) for name in ("plain.jpg", "clip"))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("matrix", "corners"),  # a, b, c, d of x' = a x + c y, y' = b x + d y, where y points down: ISO 14496-12, 6.2.2
    [
        ((1, 0, 0, 1), [[30, 90], [150, 210]]),
        ((0, 1, -1, 0), [[150, 30], [210, 90]]),  # what was above is on the right
        ((-1, 0, 0, -1), [[210, 150], [90, 30]]),
        ((0, -1, 1, 0), [[90, 210], [30, 150]]),
        ((-1, 0, 0, 1), [[90, 30], [210, 150]]),  # mirrored
        ((1, 0, 0, -1), [[150, 210], [30, 90]]),
        ((0, 1, 1, 0), [[30, 150], [90, 210]]),
    ],
)
def test_a_video_is_turned_as_its_camera_noted(matrix, corners, tmp_path):
    grey = np.kron([[30, 90], [150, 210]], np.ones((32, 64))).astype(np.uint8)
    write_video(tmp_path / "clip.mp4", np.stack([np.stack([grey] * 3, axis=2)] * 3))
    before, track, after = (tmp_path / "clip.mp4").read_bytes().partition(b"tkhd")
    values = [struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
              for a, b, c, d in ((1, 0, 0, 1), matrix)]  # fmt: skip
    (tmp_path / "clip.mp4").write_bytes(before + track + after.replace(*values, 1))
    (frame,) = read_frames(tmp_path / "clip.mp4", numbers=[1])
    assert frame.shape == ((128, 64, 3) if matrix[0] == 0 else (64, 128, 3))
    height, width, _ = frame.shape
    assert frame[:: height - 1, :: width - 1, 0] == pytest.approx(np.array(corners), abs=6)


def test_the_memory_of_a_video_frame_is_freed_before_the_next_garbage_collection(tmp_path):
    av = pytest.importorskip("av", reason="needs PyAV")
    write_video(tmp_path / "clip.mp4", FRAMES)
    gc.collect()
    gc.disable()
    try:
        read_frames(tmp_path / "clip.mp4")
        assert not any(type(object_) is av.VideoFrame for object_ in gc.get_objects())
    finally:
        gc.enable()


def test_a_frame_is_stretched_cropped_in_its_middle_or_padded_with_black(tmp_path):
    frame = np.repeat(np.arange(40, 200, 20, dtype=np.uint8)[None], 4, axis=0)  # 4 x 8
    np.save(tmp_path / "clip.npy", frame[None])
    read = {fit: read_frames(tmp_path / "clip.npy", FrameFormat(1, (4, 4), "THW", fit), [0])[0, :, :, 0]
            for fit in ("stretch", "crop", "pad")}  # fmt: skip
    assert np.array_equal(read["crop"], frame[:, 2:6])
    assert np.array_equal(read["pad"][[0, 3]], np.zeros((2, 4)))
    assert np.array_equal(read["pad"][1:3], read["stretch"][1:3])
    assert read["stretch"].min() > 40


@pytest.mark.parametrize(("name", "channels"), [("ink.png", 1), ("ink.png", 3), ("ink.mov", 3)])
def test_what_is_transparent_is_white(name, channels, tmp_path):
    ink = np.zeros((1, 8, 8, 4), np.uint8)
    ink[:, :, :4, 3] = 255  # black on the left, nothing on the right
    if name == "ink.mov":
        write_video(tmp_path / name, ink, codec="qtrle", pix_fmt="argb")
    else:
        write_animation(tmp_path / name, ink)
    (frame,) = read_frames(tmp_path / name, COLOUR._replace(channels=channels), range(1))
    assert (frame[:, :4].max(), frame[:, 4:].min()) == (0, 255)


def test_folders_in_a_clip_are_left_out_with_a_line(tmp_path, capsys):
    write_folder(tmp_path / "days/one", FRAMES[:2])
    assert list(find_clip_files(str(tmp_path / "days"))) == [tmp_path / "days/one"]
    assert not capsys.readouterr().err
    Image.fromarray(FRAMES[0]).save(tmp_path / "days/overview.png")
    assert list(find_clip_files(str(tmp_path / "days"))) == [tmp_path / "days"]
    assert "days holds pictures, so it is one clip, and the folders in it are left out; name" in capsys.readouterr().err


def test_frames_are_converted_and_resized_as_pillow_does(tmp_path):
    write_folder(tmp_path / "clip", FRAMES[:2])
    np.save(tmp_path / "clip.npy", FRAMES[:2])
    for name in ("clip", "clip.npy"):
        read = read_frames(tmp_path / name, FrameFormat(1, (6, 8), "THWC", "stretch"), range(2))
        for frame, found in zip(FRAMES, read[..., 0], strict=False):
            assert np.array_equal(found, Image.fromarray(frame).convert("L").resize((8, 6), Image.Resampling.BILINEAR))


SQUARES = np.kron(noise_clip(12, 12, 16), np.ones((1, 8, 8, 1), np.uint8))  # 96 x 128 pixels
VIDEOS = {
    "clip.mp4": {}, "clip.mov": {}, "clip.mkv": {}, "clip.webm": {}, "clip.avi": {},
    "mpeg4.avi": {"codec": "mpeg4", "max_b_frames": 2},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}, "gop_size": 4},
    "late.mp4": {"times": range(400, 448, 4), "max_b_frames": 3},
    "variable.mkv": {"times": [number**2 for number in range(12)]},
    "recorded.webm": {"codec": "libvpx", "container": {"live": "1"}},  # without a duration
    "lossless.avi": {"codec": "huffyuv", "pix_fmt": "yuv422p"},
}  # fmt: skip


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_read_if_they_are_whole(name, tmp_path):
    av = pytest.importorskip("av", reason="needs PyAV")
    video = tmp_path / name
    for num_frames in (1, 12):
        write_video(video, SQUARES[:num_frames], **VIDEOS[name])
        assert examined(video) == (num_frames, 96, 128)
    data = video.read_bytes()
    with av.open(str(video)) as container:
        packet = max(container.demux(video=0), key=lambda packet: packet.size)
    start = packet.pos + packet.size // 3
    damaged = [(f"cut off at {share} %", data[: len(data) * share // 100]) for share in (10, 50, 90, 99)]
    damaged += [("zeros at the end", data[: len(data) // 2].ljust(len(data), b"\0"))]
    if "lossless" not in name:  # whose pixels have no coding that could be damaged
        damaged += [("zeros in a frame", data[:start] + bytes(200) + data[start + 200 :])]
    if name.endswith("mkv"):
        damaged += [("another bit", data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :])]  # it has checksums
    assert not frames_that_are_accepted(video, damaged)


OPEN_GROUPS = {"options": {"x264-params": "keyint=20:min-keyint=20:open-gop=1:bframes=3"}}
SOUGHT = {
    "open.mp4": OPEN_GROUPS, "open.mkv": OPEN_GROUPS,
    "vp9.webm": {"gop_size": 20, "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "mpeg2.mkv": {"codec": "mpeg2video", "gop_size": 15, "max_b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4", "gop_size": 20},
    "late.mp4": {"gop_size": 20, "max_b_frames": 3, "times": [400 + number**2 for number in range(60)]},
    "mjpeg.mp4": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "refreshed.mp4": {"options": {"x264-params": "keyint=20:intra-refresh=1:scenecut=0"}},  # has one whole picture
    "unordered.avi": {"gop_size": 20, "max_b_frames": 3},  # which does not tell when B-frames are shown
}  # fmt: skip


@pytest.mark.parametrize("name", SOUGHT)
def test_a_video_has_the_same_frames_when_decoding_begins_at_key_frames(name, tmp_path):
    write_video(tmp_path / name, np.kron(noise_clip(60, 6, 8), np.ones((1, 8, 8, 1), np.uint8)), **SOUGHT[name])
    note = examine(tmp_path / name, COLOUR)
    assert len(note.key_frames) >= 2 or (name in ("refreshed.mp4", "unordered.avi") and not note.key_frames)
    whole = read_frames(tmp_path / name, numbers=range(60))

    def assert_equal(numbers, key_frames):
        out = np.zeros((len(numbers), 48, 64, 3), np.uint8)
        clip_frames.read_frames(tmp_path / name, COLOUR, numbers, out, key_frames)
        assert np.array_equal(out, whole[numbers])

    numbers = [[number] for number in range(60)] + [range(0, 60, 7), range(10, 50), [19, 20, 20, 59], [45, 45]]
    for chosen in numbers:
        assert_equal(chosen, note.key_frames)
    wrong = [[number, time + 1] for number, time in note.key_frames]  # which leads to another frame, and is noticed
    for key_frames in (wrong, note.key_frames[:1] + wrong[1:], [[30, 10**9]]):
        assert_equal([5, 35, 59], key_frames)


def test_frames_before_a_key_frame_are_not_decoded(tmp_path):
    av = pytest.importorskip("av", reason="needs PyAV")
    write_video(tmp_path / "clip.mp4", SQUARES.repeat(5, axis=0), gop_size=20)
    note = examine(tmp_path / "clip.mp4", COLOUR)
    with opened_video(tmp_path / "clip.mp4") as video:
        assert next(decoded(*video, 32 * 512)).pts == 32 * 512  # the seek leads to an earlier frame
    whole, out = read_frames(tmp_path / "clip.mp4", numbers=[41, 45]), np.zeros((2, 96, 128, 3), np.uint8)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.size)
    with (tmp_path / "clip.mp4").open("r+b") as file:
        file.seek(packet.pos)
        file.write(bytes(packet.size))
    clip_frames.read_frames(tmp_path / "clip.mp4", COLOUR, [41, 45], out, note.key_frames)
    assert np.array_equal(out, whole)
    with pytest.raises(BrokenClip, match="it is cut off or damaged at 0.0 seconds"):
        clip_frames.read_frames(tmp_path / "clip.mp4", COLOUR, [41, 45], out)


def test_the_times_of_frames_are_noted_where_they_are_not_equally_spaced(tmp_path):
    squares = [number**2 / 100 for number in range(12)]
    write_video(tmp_path / "equal.mp4", SQUARES)
    write_video(tmp_path / "variable.mkv", SQUARES, times=[number**2 for number in range(12)])
    write_video(tmp_path / "unordered.avi", SQUARES, max_b_frames=3)
    first, *others = map(Image.fromarray, FRAMES[:3])
    for name in ("clip.gif", "clip.webp", "clip.png"):
        first.save(tmp_path / name, save_all=True, append_images=others, duration=[40, 0, 200])
    still = {"still.png": first.save, "clip.npy": lambda path: np.save(path, FRAMES)}
    for name, write in still.items():
        write(tmp_path / name)
    notes = {path.name: examine(path, COLOUR) for path in tmp_path.iterdir()}
    for name, seconds in (("equal.mp4", 0.48), ("unordered.avi", 0.48)):
        assert notes[name].times is None
        assert frame_times(notes[name]) == pytest.approx(np.arange(12) * 0.04)
        assert notes[name].seconds == pytest.approx(seconds)
    assert frame_times(notes["variable.mkv"]) == pytest.approx(squares)
    for name in ("clip.gif", "clip.webp", "clip.png"):
        assert frame_times(notes[name]) == pytest.approx([0, 0.04, 0.14])  # browsers show 0 for a tenth of a second
        assert notes[name].seconds == pytest.approx(0.34)
    assert {notes[name].seconds for name in still} == {None}


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("a.mp4", range(0, 200, 4)),
        ("b.mp4", range(0, 200, 2)),
        ("c.mkv", [0, 3, 11, 12, 20, 21, 22, 40, *range(50, 200, 5)]),
    ],
)
def test_a_rate_means_the_same_for_files_of_any_rate(name, times, tmp_path):
    """Each frame has the brightness of the hundredth of a second at which it appears."""
    frames = np.stack([np.full((32, 32, 3), hundredth, np.uint8) for hundredth in times])
    write_video(tmp_path / name, frames, times=[*times])
    note = examine(tmp_path / name, GREY)
    for fps in (5.0, 10.0, 50.0):
        numbers = clip_frames.frames_available(note, 1, fps)
        assert abs(len(numbers) - 2 * fps) <= 1
        moments = np.arange(len(numbers)) / fps
        expected = [max(time for time in times if time / 100 <= moment + 1e-6) for moment in moments]
        read = np.empty((len(numbers), 32, 32, 1), np.uint8)
        clip_frames.read_frames(tmp_path / name, GREY, numbers.tolist(), read, note.key_frames)
        assert np.abs(read[:, 16, 16, 0].astype(int) - expected).max() <= 3  # after compression


@pytest.mark.parametrize("digits", [3, 4])
def test_rounded_times_of_a_file_change_no_frame(digits):
    places = [place for place in range(30) if place != 10]  # in thirtieths of a second; one frame was dropped
    note = clip_frames.Note(None, len(places), 1, 1, "", 1.0, [round(place / 30, digits) for place in places], [])
    for fps in (15, 30):
        moments = range(0, 30, 30 // fps)
        expected = [max(number for number, place in enumerate(places) if place <= moment) for moment in moments]
        assert clip_frames.frames_available(note, 1, fps).tolist() == expected


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp", "clip.png", "single.png"])
def test_pictures_that_are_cut_off_anywhere_or_lack_bytes_are_refused(name, tmp_path):
    write_animation(tmp_path / name, FRAMES[: 1 if name == "single.png" else 3])
    data = (tmp_path / name).read_bytes()
    needed = len(data) - 4 * name.endswith("png")  # without the checksum of the last chunk, which is empty
    ends = {*range(0, needed, 97), *range(needed - 20, needed)}
    ends |= {place - 1 for place in range(needed) if data[place : place + 2] == b"!\xf9" and name == "clip.gif"}
    damaged = [(end, data[:end]) for end in ends]
    damaged += [(f"without {start}", data[:start] + data[start + 30 :]) for start in range(0, needed - 40, 97)]
    assert not frames_that_are_accepted(tmp_path / name, damaged)


def without_second_frame(path):
    write_animation(path, FRAMES[:3])
    first, second, others = path.read_bytes().split(b"ANMF", 2)
    path.write_bytes(first + b"ANMF" + second + bytes(4) + others)  # Pillow reads two frames


def of_two_sizes(path):
    write_folder(path, FRAMES[:2])
    Image.fromarray(FRAMES[0, :6]).save(path / "frame3.png")


def with_broken_frame(path):
    write_folder(path, FRAMES)
    (path / "frame7.png").write_bytes((path / "frame7.png").read_bytes()[:200])


def with_animation(path):
    write_folder(path, FRAMES)
    write_gif(path / "z.gif", FRAMES)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("none.npy", lambda path: np.save(path, FRAMES[:0]), "it holds no frames"),
        ("float.npy", lambda path: np.save(path, FRAMES / 255), "its type is float64, not uint8"),
        ("axes.npy", lambda path: np.save(path, FRAMES[0]), r"its shape is \[12, 16, 3\], but data.layout=THWC has 4"),
        ("four.npy", lambda path: np.save(path, FRAMES[..., [0, 0, 0, 0]]), "it has 4 channels by data.layout=THWC"),
        ("two.npz", lambda path: np.savez(path, FRAMES, FRAMES), "it holds 2 arrays, not one"),
        ("pickle.npz", lambda path: np.savez(path, np.array([{}])), "Object arrays cannot be loaded"),
        ("cut.gif", lambda path: path.write_bytes(b"GIF89a"), "cannot identify image file"),
        ("large.gif", lambda path: Image.new("1", (7_100, 7_100)).save(path), "7100 x 7100, more than 50,000,000"),
        ("lost.webp", without_second_frame, "it is damaged near byte"),
        ("sizes", of_two_sizes, r"its frames are of 12 x 16 and 6 x 16; data.size=\[HEIGHT,WIDTH\] would resize them"),
        ("broken", with_broken_frame, "frame7.png: Truncated File Read"),
        ("animated", with_animation, "z.gif: it is animated, but the other files of the folder are single frames"),
        ("text.mp4", lambda path: path.write_bytes(b"nothing"), "Invalid data found when processing input"),
        ("pipe.mp4", os.mkfifo, "it is not a regular file"),
    ],
)
def test_a_broken_clip_is_named_with_the_reason(name, write, reason, tmp_path, recwarn):
    if name.endswith("mp4"):
        pytest.importorskip("av", reason="needs PyAV")
    write(tmp_path / name)
    assert is_clip(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: cannot be read as a clip \({reason}.*\)$"):
        examine(tmp_path / name, COLOUR)
    assert not recwarn


def test_an_npz_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros_like(FRAMES))
    monkeypatch.setattr("quadrant_lstm.data.image_files.MAX_PIXELS", 1)
    with pytest.raises(BrokenClip, match="it holds more than 100 bytes"):
        examine(tmp_path / "bomb.npz", COLOUR)
