import os
import re

import numpy as np
import pytest
from PIL import ExifTags, Image

from quadrant_lstm.data.clip_frames import BrokenClip, FrameFormat, count_frames, examine_frames, is_clip
from quadrant_lstm.data.clip_frames import read_frames as read_into
from quadrant_lstm.data.image_files import natural
from quadrant_lstm.errors import UserError
from tests.clips import WRITERS, noise_clip, write_animation, write_folder, write_gif, write_video

COLOUR = FrameFormat(3, None, "THWC")
FRAMES = noise_clip(11)


def read_frames(clip, frame_format, numbers) -> np.ndarray:
    _, size = examine_frames(clip, frame_format)
    out = np.empty((len(numbers), *size, frame_format.channels), np.uint8)
    read_into(clip, frame_format, numbers, out)
    return out.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_keeps_every_pixel_and_the_order(name, tmp_path):
    WRITERS[name](tmp_path / name, FRAMES)
    assert examine_frames(tmp_path / name, COLOUR) == (11, (12, 16))
    expected = FRAMES.transpose(0, 3, 1, 2)
    assert np.array_equal(read_frames(tmp_path / name, COLOUR, range(11)), expected)
    assert np.array_equal(read_frames(tmp_path / name, COLOUR, range(3, 10, 3)), expected[3:10:3])


def test_a_frame_is_turned_as_its_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the top of the frame is at the left of the stored pixels
    (tmp_path / "clip").mkdir()
    Image.fromarray(np.rot90(FRAMES[0])).save(tmp_path / "clip/frame.png", exif=exif)
    assert np.array_equal(read_frames(tmp_path / "clip", COLOUR, range(1))[0], FRAMES[0].transpose(2, 0, 1))


def test_a_gif_is_read(tmp_path):
    greys = np.zeros((12, 8, 8, 3), np.uint8) + np.arange(0, 240, 20, dtype=np.uint8)[:, None, None, None]
    write_gif(tmp_path / "clip.gif", greys)
    read = read_frames(tmp_path / "clip.gif", COLOUR, range(12))
    assert np.array_equal(read, greys.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_a_video_is_read_by_its_frame_numbers(suffix, tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    greys = np.zeros((20, 32, 48, 3), np.uint8) + np.arange(0, 240, 12, dtype=np.uint8)[:, None, None, None]
    write_video(tmp_path / f"clip.{suffix}", greys)
    assert examine_frames(tmp_path / f"clip.{suffix}", COLOUR) == (20, (32, 48))
    read = read_frames(tmp_path / f"clip.{suffix}", COLOUR, range(4, 20, 5))
    assert read.mean((1, 2, 3)) == pytest.approx([48, 108, 168, 228], abs=4)  # videos are lossy
    grey = read_frames(tmp_path / f"clip.{suffix}", COLOUR._replace(channels=1), range(4, 5))
    assert grey.shape == (1, 1, 32, 48)


@pytest.mark.parametrize(("layout", "axes"), [("TCHW", (0, 3, 1, 2)), ("CTHW", (3, 0, 1, 2)), ("THWC", (0, 1, 2, 3))])
def test_the_axes_of_an_array_are_those_of_the_layout(layout, axes, tmp_path):
    np.save(tmp_path / "clip.npy", FRAMES.transpose(axes))
    read = read_frames(tmp_path / "clip.npy", COLOUR._replace(layout=layout), range(11))
    assert np.array_equal(read, FRAMES.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_is_white(channels, tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :4, 3] = 255  # black on the left, nothing on the right
    (tmp_path / "clip").mkdir()
    Image.fromarray(ink).save(tmp_path / "clip/0.png")
    (frame,) = read_frames(tmp_path / "clip", FrameFormat(channels, None, None), range(1))
    assert (frame[:, :, :4].max(), frame[:, :, 4:].min()) == (0, 255)


def test_an_animated_picture_among_single_frames_is_refused(tmp_path):
    write_folder(tmp_path / "clip", FRAMES)
    write_gif(tmp_path / "clip/z.gif", FRAMES)
    assert is_clip(tmp_path / "clip")
    with pytest.raises(BrokenClip, match="z.gif: it is animated, but the other files of the folder are single frames"):
        examine_frames(tmp_path / "clip", COLOUR)


def test_a_broken_animation_hides_no_others(tmp_path):
    write_gif(tmp_path / "1.gif", FRAMES)
    (tmp_path / "0.gif").write_bytes(b"GIF89a")
    assert not is_clip(tmp_path)


def test_an_array_without_channels_is_grey(tmp_path):
    np.save(tmp_path / "clip.npy", FRAMES[..., 0])
    read = read_frames(tmp_path / "clip.npy", FrameFormat(1, None, "THW"), range(11))
    assert np.array_equal(read, FRAMES[:, None, :, :, 0])


def test_frames_are_converted_and_resized_as_pillow_does(tmp_path):
    write_folder(tmp_path / "clip", FRAMES[:2])
    np.save(tmp_path / "clip.npy", FRAMES[:2])
    expected = [
        np.asarray(Image.fromarray(frame).convert("L").resize((8, 6), Image.Resampling.BILINEAR))
        for frame in FRAMES[:2]
    ]
    for name in ("clip", "clip.npy"):
        read = read_frames(tmp_path / name, FrameFormat(1, (6, 8), "THWC"), range(2))
        assert np.array_equal(read, np.stack(expected)[:, None])


def test_names_are_sorted_in_natural_order():
    names = ["frame10.png", "frame2.png", "frame1.png", "a1b10.png", "a1b9.png"]
    assert sorted(names, key=natural) == ["a1b9.png", "a1b10.png", "frame1.png", "frame2.png", "frame10.png"]


SQUARES = np.kron(noise_clip(30, 6, 8), np.ones((1, 8, 8, 1), np.uint8))  # 48 x 64 pixels
GOOD_VIDEOS = {
    "b_frames.mp4": {"max_b_frames": 3},
    "b_frames.avi": {"codec": "mpeg4", "max_b_frames": 2},
    "mpeg4.mov": {"codec": "mpeg4"},
    "jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "grey.mkv": {"pix_fmt": "gray"},
    "all_colours.mp4": {"pix_fmt": "yuv444p"},
    "lossless.avi": {"codec": "huffyuv", "pix_fmt": "yuv422p"},
    "vp8.webm": {"codec": "libvpx"},
    "checksums.mkv": {"codec": "libvpx"},
    "recorded.webm": {"container": {"live": "1"}},  # without a duration
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}, "gop_size": 10},
    "clusters.webm": {"container": {"cluster_time_limit": "200"}},
    "variable.mkv": {"times": [number**2 for number in range(30)]},
    "variable.mp4": {"times": [number**2 for number in range(30)], "max_b_frames": 3},
    "late.mkv": {"times": range(400, 520, 4)},
    "late.mp4": {"times": range(400, 520, 4)},
}


@pytest.mark.parametrize("name", GOOD_VIDEOS)
def test_videos_of_many_encoders_are_read(name, tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    for num_frames in (1, 2, 30):
        write_video(
            tmp_path / name,
            SQUARES[:num_frames, :, : 63 if "yuv444p" in str(GOOD_VIDEOS[name]) else 64],
            **GOOD_VIDEOS[name],
        )
        assert examine_frames(tmp_path / name, COLOUR)[0] == num_frames


def damaged(video):
    import av

    data = video.read_bytes()
    with av.open(str(video)) as container:
        packets = sorted(container.demux(video=0), key=lambda packet: packet.size)[-3:]
    for percent in (10, 30, 50, 70, 90, 99):
        yield f"cut off at {percent} %", data[: len(data) * percent // 100]
    for packet in packets:
        start = packet.pos + packet.size // 3
        assert packet.size > 600
        yield f"zeros at {start}", data[:start] + bytes(200) + data[start + 200 :]


@pytest.mark.parametrize(
    "name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.webm", "clip.avi", "vp8.webm", "mpeg4.avi", "fragments.mp4"]
)
def test_videos_that_are_cut_off_or_damaged_are_refused(name, tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    squares = np.kron(noise_clip(30, 12, 16), np.ones((1, 8, 8, 1), np.uint8))
    write_video(tmp_path / name, squares, **GOOD_VIDEOS.get(name, {"codec": "mpeg4"} if "mpeg4" in name else {}))
    assert examine_frames(tmp_path / name, COLOUR)[0] == 30
    accepted = []
    for what, content in list(damaged(tmp_path / name)):
        (tmp_path / name).write_bytes(content)
        for read in (lambda clip: examine_frames(clip, COLOUR), lambda clip: count_frames(clip, None)):
            try:
                accepted.append((what, read(tmp_path / name)))
            except BrokenClip:
                continue
    assert not accepted


def test_a_frame_of_a_track_that_there_is_not_is_refused(tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    write_video(tmp_path / "clip.webm", SQUARES)
    data = bytearray((tmp_path / "clip.webm").read_bytes())
    cluster = data.index(b"\x1f\x43\xb6\x75")
    block = re.compile(rb"\xa3(?:[\x80-\xff]|[\x40-\x7f].)\x81", re.DOTALL).search(data, cluster)
    data[block.end() - 1] = 0x83
    (tmp_path / "clip.webm").write_bytes(data)
    with pytest.raises(BrokenClip, match=rf"it is damaged near byte {block.start():,}"):
        examine_frames(tmp_path / "clip.webm", COLOUR)


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp", "clip.png", "single.png"])
def test_pictures_that_are_cut_off_anywhere_are_refused(name, tmp_path):
    write_animation(tmp_path / name, FRAMES[: 1 if name == "single.png" else 3])
    data, accepted = (tmp_path / name).read_bytes(), []
    needed = (
        len(data) - 4 if name.endswith("png") else len(data)
    )  # without the checksum of the last chunk, which is empty
    for length in {*range(0, needed, 13), *range(needed - 60, needed)}:
        (tmp_path / name).write_bytes(data[:length])
        try:
            accepted.append((length, examine_frames(tmp_path / name, COLOUR)))
        except BrokenClip:
            continue
    assert not accepted


def test_a_webp_file_that_has_lost_a_frame_is_refused(tmp_path):
    write_animation(tmp_path / "clip.webp", FRAMES[:3])
    data = bytearray((tmp_path / "clip.webp").read_bytes())
    second = data.index(b"ANMF", data.index(b"ANMF") + 1)
    data[second : second + 4] = bytes(4)  # Pillow then reads two frames
    (tmp_path / "clip.webp").write_bytes(data)
    with pytest.raises(BrokenClip, match=r"clip.webp: cannot be read as a clip \(it is cut off or damaged\)"):
        examine_frames(tmp_path / "clip.webp", COLOUR)


def test_a_gif_that_ends_between_two_frames_is_refused(tmp_path):
    write_gif(tmp_path / "clip.gif", FRAMES)
    data = (tmp_path / "clip.gif").read_bytes()
    second = data.index(b"!\xf9", data.index(b"!\xf9") + 1)
    (tmp_path / "clip.gif").write_bytes(data[:second])
    with pytest.raises(BrokenClip, match=r"clip.gif: cannot be read as a clip \(it is cut off\)"):
        examine_frames(tmp_path / "clip.gif", COLOUR)
    (tmp_path / "clip.gif").write_bytes(data + b"more")
    assert examine_frames(tmp_path / "clip.gif", COLOUR)[0] == 11


def broken_clips():
    yield "none.npy", lambda path: np.save(path, FRAMES[:0]), "it holds no frames"
    yield "float.npy", lambda path: np.save(path, FRAMES / 255), "its type is float64, not uint8"
    yield (
        "axes.npy",
        lambda path: np.save(path, FRAMES[0]),
        r"its shape is \[12, 16, 3\], but data.layout=THWC has 4 axes",
    )
    yield "four.npy", lambda path: np.save(path, FRAMES[:, :, :, [0, 0, 0, 0]]), "it has 4 channels by data.layout=THWC"
    yield "two.npz", lambda path: np.savez(path, FRAMES, FRAMES), "it holds 2 arrays, not one"
    yield "pickle.npz", lambda path: np.savez(path, np.array([{}])), "Object arrays cannot be loaded"
    yield "cut.gif", lambda path: path.write_bytes(b"GIF89a"), "cannot identify image file"
    yield "cut.npy", lambda path: path.write_bytes(b""), "No data left in file"
    for suffix in ("png", "gif"):  # of more pixels than Pillow reads without a warning
        large = Image.new("1", (10_000, 10_000)).save
        yield f"large.{suffix}", large, "10000 x 10000, more than 50,000,000 pixels"


@pytest.mark.parametrize(
    ("name", "write", "reason"), list(broken_clips()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_broken_clip_is_named_with_the_reason(name, write, reason, tmp_path, recwarn):
    write(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: cannot be read as a clip \({reason}.*\)$"):
        examine_frames(tmp_path / name, COLOUR)
    assert not recwarn


@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.gif", "pipe.npy", "pipe.npz", "zeros.npy", "clip/1.png"])
def test_what_is_not_a_regular_file_is_refused_at_once(name, tmp_path):
    (tmp_path / "clip").mkdir()
    if name == "zeros.npy":
        (tmp_path / name).symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / name)
    clip = tmp_path / name.split("/")[0]
    assert is_clip(clip)
    for read in (
        lambda: examine_frames(clip, COLOUR),
        lambda: read_into(clip, COLOUR, range(1), np.empty((1, 1, 1, 3))),
    ):
        with pytest.raises(BrokenClip, match=r"\((1.png: )?it is not a regular file\)$"):
            read()


def test_a_broken_frame_of_a_folder_is_named(tmp_path):
    write_folder(tmp_path / "clip", FRAMES)
    picture = tmp_path / "clip/frame7.png"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(UserError, match=r"clip: cannot be read as a clip \(frame7.png: Truncated File Read"):
        examine_frames(tmp_path / "clip", COLOUR)


def test_frames_of_two_sizes_are_refused_unless_they_are_resized(tmp_path):
    write_folder(tmp_path / "clip", FRAMES[:2])
    Image.fromarray(FRAMES[0, :6]).save(tmp_path / "clip/frame3.png")
    with pytest.raises(UserError, match="its frames are of 12 x 16 and 6 x 16"):
        examine_frames(tmp_path / "clip", COLOUR)
    assert examine_frames(tmp_path / "clip", COLOUR._replace(size=(4, 5))) == (3, (4, 5))


def test_a_file_that_is_no_video_is_refused(tmp_path):
    pytest.importorskip("av", reason="needs PyAV")
    (tmp_path / "clip.mp4").write_bytes(b"nothing")
    with pytest.raises(
        UserError, match=r"clip.mp4: cannot be read as a clip \(Invalid data found when processing input\)$"
    ):
        examine_frames(tmp_path / "clip.mp4", COLOUR)
