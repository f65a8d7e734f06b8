import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from quadrant_lstm.data.image_files import find_image_files
from quadrant_lstm.data.image_reader import read_image
from quadrant_lstm.data.images import load_images
from quadrant_lstm.errors import UserError
from tests.photographs import photograph

SHAPE = (1, 28, 28)


def read(picture, file, invert=None, **options):
    """Saves a picture, given as an image or as pixels, and reads the file."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(file, **options)
    return read_image(file, SHAPE, invert).pixels


def correlation(pixels, others):
    return np.corrcoef(pixels.ravel().astype(float), others.ravel().astype(float))[0, 1]


@pytest.fixture
def digit():
    return load_images("mnist", None).test_images[0, 0]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "digit.png"


def test_digits_of_mnist_are_hardly_changed(file):
    for number, digit in enumerate(load_images("mnist", None).test_images[:25, 0]):
        assert correlation(read(digit, file), digit) > 0.97, number


def ink(digit, level, dot=None):
    """Returns ink of that level of grey on transparent pixels, and perhaps a dot."""
    pixels = np.dstack([np.full((28, 28, 3), level, np.uint8), digit])
    pixels[0, 0] = pixels[0, 0] if dot is None else dot
    return pixels


def floats(digit):
    pixels = digit.astype(np.float32) / 255
    pixels[0, :2] = (np.nan, np.inf)  # which are background
    return pixels


@pytest.mark.parametrize(
    ("change", "largest"),
    [
        (lambda digit: np.roll(digit, (-4, 3), (0, 1)), 5),  # beside the centre
        (lambda digit: 255 - digit, 5),  # black on white
        (lambda digit: ink(digit, 0), 5),  # transparent pixels are white paper
        (lambda digit: ink(digit, 255), 5),  # or black paper,
        (lambda digit: ink(digit, 235, dot=(0, 0, 0, 255)), 21),  # on which light grey ink has more contrast
        (lambda digit: digit.astype(np.uint16) * 257, 5),
        (lambda digit: digit.astype(np.int32) * 257, 5),
        (floats, 5),
    ],
)
def test_a_digit_is_read_in_many_forms(change, largest, digit, tmp_path):
    assert np.abs(read(change(digit), tmp_path / "digit.tif")[0].astype(int) - digit).max() <= largest


def test_a_photo_is_turned_as_its_camera_noted(file, digit):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the top of the page is at the left of the stored pixels
    assert np.array_equal(read(np.rot90(digit), file, exif=exif), read(digit, file))


def test_what_is_inverted_may_be_chosen_and_images_of_other_data_are_not_changed_at_their_size(file, digit):
    assert np.array_equal(read(255 - digit, file), read(255 - digit, file, True))
    assert correlation(read(255 - digit, file, False), digit) < 0.5
    moved = np.roll(digit, (-4, 3), (0, 1))
    for pixels in (moved, 255 - moved):
        Image.fromarray(pixels).save(file)
        assert np.array_equal(read_image(file, SHAPE, None, like_mnist=False).pixels[0], pixels)
    assert np.array_equal(read_image(file, SHAPE, True, like_mnist=False).pixels[0], moved)
    Image.fromarray(moved // 32).save(file)  # dark, but not blank
    assert np.array_equal(read_image(file, SHAPE, None, like_mnist=False).pixels[0], moved // 32)


@pytest.mark.parametrize("kind", ["bright", "squared", "pencil", "shadow", "crumpled", "blackboard"])
def test_the_ink_of_a_photograph_is_read_and_an_empty_sheet_is_blank(kind, tmp_path):
    file = tmp_path / "photograph.bmp"
    assert read(photograph(kind, None, seed=1).picture, file) is None
    picture, ink = photograph(kind, 4, seed=1)
    expected = np.roll(read((255 * ink).astype(np.uint8), file)[0], (1, 1), (0, 1))
    pixels = read(picture, file)[0]
    assert read_image(file, SHAPE, None).note == ""
    assert max(correlation(np.roll(pixels, by, (0, 1)), expected) for by in np.ndindex(3, 3)) > 0.85


def test_ink_at_the_edge_or_on_most_of_the_picture_is_noted(file, digit):
    box = Image.fromarray(digit).getbbox()
    assert np.abs(read(Image.fromarray(digit).crop(box), file)[0].astype(int) - digit).max() <= 5
    assert read_image(file, SHAPE, None).note == "ink touches the edge of the picture"
    stripes = np.where(np.arange(40) % 5 > 1, 255, np.zeros((40, 40))).astype(np.uint8)
    assert read(stripes, file, False) is not None
    assert read_image(file, SHAPE, False).note == "more than half of the picture is ink"


def page(size, level, box):
    picture = Image.new("L", size)
    picture.paste(level, box)
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        *(page(2 * (size,), 35, (size // 4, size // 4, size // 2, size // 2)) for size in (28, 100)),  # faint ink
        *(Image.new("L", size, level) for size in ((28, 28), (90, 50)) for level in (0, 128, 255)),
        page((3000, 3000), 255, (0, 0, 1, 1)),  # a speck
    ],
)
def test_a_picture_without_strong_ink_is_blank(picture, tmp_path):
    assert read(picture, tmp_path / "blank.jpg", quality=100) is None


@pytest.mark.parametrize("width", [5, 12, 50])
def test_a_thin_stroke_is_as_strong_as_a_thick_one(width, file):
    picture = Image.new("L", (800, 1000), 235)
    ImageDraw.Draw(picture).line([(200, 200), (600, 250), (350, 800)], fill=40, width=width)
    assert (read(picture, file) == 255).sum() >= 4


def several(path):
    Image.new("L", (8, 8)).save(path, save_all=True, append_images=[Image.new("L", (8, 8), 9)])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("no.png", Path, "cannot be read .* .No such file or directory.; correct the path or its permissions"),
        ("folder.png", Path.mkdir, "cannot be read as an image .it is not a regular file.; give a PNG or JPEG file."),
        ("pipe.png", os.mkfifo, "cannot be read as an image .it is not a regular file.; give a PNG or JPEG file."),
        ("text.png", lambda path: path.write_text("no"), "cannot be read as an image .* give a PNG or JPEG file"),
        ("two.gif", several, "cannot be read as an image .it holds 2 pictures; save one of them"),
        ("large.png", Image.new("1", (8000, 7000)).save, "is too large .8000 x 7000, .*; shrink it to"),
        ("huge.png", Image.new("1", (14_000, 13_000)).save, "is too large .*182000000 pixels.*; shrink it to"),
    ],
)
def test_what_is_no_image_is_refused_with_a_remedy(name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        read_image(tmp_path / name, SHAPE, None)


def test_files_are_found_by_name_folder_and_glob(tmp_path, capsys):
    for name in ("b/c/10.png", "b/c/9.png", "[a].JPG", ".git/d.png", "b/e.heic", "f.HEIC", "notes.txt", "README", ".g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/back").symlink_to(tmp_path)
    (tmp_path / "b/.elsewhere").mkdir()
    (tmp_path / "b/.elsewhere/1.png").touch()
    (tmp_path / "b/linked").symlink_to(".elsewhere")

    def found(images):
        return [str(file.relative_to(tmp_path)) for file in find_image_files(f"{tmp_path}{images}")]

    assert found("") == ["[a].JPG", "b/c/9.png", "b/c/10.png", "b/linked/1.png"]
    left_out = f"images: {tmp_path} holds files that are left out: 2 .heic, 1 .txt, 1 without a suffix.\n"
    assert capsys.readouterr().err == left_out
    assert found("/b/c/*.png") == ["b/c/9.png", "b/c/10.png"]
    assert found("/[a].JPG") == ["[a].JPG"]
    with pytest.raises(UserError, match=r"images: .*\.gif matches no image file; give a file, a folder, or a glob"):
        found("/*.gif")
    (tmp_path / "b/c/10.png").rename(tmp_path / "b/10.png")
    (tmp_path / "b/c/9.png").rename(tmp_path / "b/c/1.heic")
    with pytest.raises(UserError, match="c matches no image file, only 1 .heic; give a file, a folder, or a glob"):
        found("/b/c")


def test_a_dash_stands_for_the_lines_of_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b.png\n\n\xe9.png\r\nc.png")))
    assert list(find_image_files("-")) == [Path("a b.png"), Path(os.fsdecode(b"\xe9.png")), Path("c.png")]
