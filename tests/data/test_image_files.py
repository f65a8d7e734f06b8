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
from tests.photographs import KINDS, photograph

SHAPE = (1, 28, 28)


def read(file, invert=None):
    return read_image(file, SHAPE, invert).pixels


@pytest.fixture
def digit():
    return load_images("mnist", None).test_images[0, 0]


def differs(file, digit, invert=None):
    """Returns the largest difference of a pixel between a digit of MNIST and what is read from a file."""
    return np.abs(read(file, invert)[0].astype(int) - digit).max()


def test_digits_of_mnist_are_hardly_changed(tmp_path):
    for number, digit in enumerate(load_images("mnist", None).test_images[:50, 0]):
        Image.fromarray(digit).save(tmp_path / "digit.png")
        prepared = read(tmp_path / "digit.png")[0].astype(float)
        assert np.corrcoef(prepared.ravel(), digit.ravel().astype(float))[0, 1] > 0.97, number


def test_a_digit_beside_the_centre_is_centred_at_the_training_size(tmp_path, digit):
    Image.fromarray(np.roll(digit, (-4, 3), (0, 1))).save(tmp_path / "digit.png")
    assert differs(tmp_path / "digit.png", digit) <= 5


def test_an_image_of_other_data_is_not_changed_at_their_size(tmp_path, digit):
    moved = np.roll(digit, (-4, 3), (0, 1))
    for name, pixels in {"dark": moved, "light": 255 - moved}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png", SHAPE, None, like_mnist=False).pixels[0], moved)


def test_black_on_white_is_inverted_by_default(tmp_path, digit):
    Image.fromarray(255 - digit).save(tmp_path / "paper.png")
    assert differs(tmp_path / "paper.png", digit) <= 5
    assert differs(tmp_path / "paper.png", digit, True) <= 5
    assert read(tmp_path / "paper.png", False) is None or differs(tmp_path / "paper.png", digit, False) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_the_ink_of_a_photograph_is_read(kind, tmp_path):
    for digit in (4, 8):
        picture, ink = photograph(kind, "quick", digit, seed=1)
        picture.save(tmp_path / "photograph.png")
        Image.fromarray((255 * ink).astype(np.uint8)).save(tmp_path / "ink.png")
        read_picture, expected = (read_image(tmp_path / f"{name}.png", SHAPE, None) for name in ("photograph", "ink"))
        assert read_picture.note == ""
        moved = (np.roll(read_picture.pixels[0], by, (0, 1)) for by in np.ndindex(3, 3))
        centred = np.roll(expected.pixels[0], (1, 1), (0, 1))
        assert max(np.corrcoef(pixels.ravel(), centred.ravel())[0, 1] for pixels in moved) > 0.85


@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_of_an_empty_sheet_is_blank(kind, tmp_path):
    photograph(kind, "quick", None, seed=1).picture.save(tmp_path / "photograph.png")
    assert read(tmp_path / "photograph.png") is None


def test_a_digit_that_fills_its_picture_is_read_with_a_note(tmp_path, digit):
    rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
    Image.fromarray(digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).save(tmp_path / "digit.png")
    assert differs(tmp_path / "digit.png", digit) <= 5
    assert read_image(tmp_path / "digit.png", SHAPE, None).note == "ink touches the edge of the picture"


def test_a_picture_full_of_ink_is_read_with_a_note(tmp_path):
    pixels = np.full((60, 60), 255, np.uint8)
    pixels[10:14, 20:40] = 0
    Image.fromarray(pixels).save(tmp_path / "full.png")
    assert read_image(tmp_path / "full.png", SHAPE, True).pixels is not None
    stripes = np.zeros((40, 40), np.uint8)
    stripes[:, np.arange(40) % 5 > 1] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert read_image(tmp_path / "stripes.png", SHAPE, False).note == "more than half of the picture is ink"


def test_a_large_photo_is_prepared_like_mnist(tmp_path, digit):
    page = np.full((300, 200), 255, np.uint8)
    page[20:160, 40:180] = 255 - np.kron(digit, np.ones((5, 5), np.uint8))
    Image.fromarray(page).convert("RGB").save(tmp_path / "photo.jpg", quality=95)
    prepared = read(tmp_path / "photo.jpg")[0].astype(float)
    assert np.corrcoef(prepared.ravel(), digit.ravel().astype(float))[0, 1] > 0.98


def test_a_photo_is_turned_as_its_camera_noted(tmp_path, digit):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the top of the page is at the left of the stored pixels
    Image.fromarray(np.rot90(digit)).save(tmp_path / "turned.png", exif=exif)
    assert differs(tmp_path / "turned.png", digit) <= 5


def test_transparent_pixels_are_white_paper(tmp_path, digit):
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[..., 3] = digit
    Image.fromarray(ink).save(tmp_path / "ink.png")
    assert differs(tmp_path / "ink.png", digit) <= 5


def test_white_ink_on_transparent_pixels_is_not_blank(tmp_path, digit):
    ink = np.full((28, 28, 4), 255, np.uint8)
    ink[..., 3] = digit
    Image.fromarray(ink).save(tmp_path / "ink.png")
    assert differs(tmp_path / "ink.png", digit) <= 5


def test_transparent_ink_is_put_on_the_paper_with_more_contrast(tmp_path, digit):
    ink = np.full((28, 28, 4), 235, np.uint8)  # light grey
    ink[..., 3] = digit
    ink[0, 0] = (0, 0, 0, 255)  # a black dot
    Image.fromarray(ink).save(tmp_path / "ink.png")
    assert differs(tmp_path / "ink.png", digit) <= 21


def test_pixels_that_are_no_numbers_are_background(tmp_path, digit):
    pixels = digit.astype(np.float32) / 255
    pixels[0, :2] = (np.nan, np.inf)
    Image.fromarray(pixels).save(tmp_path / "digit.tif")
    assert differs(tmp_path / "digit.tif", digit) <= 5


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_pixels_of_16_and_32_bits_are_scaled_to_their_range(dtype, tmp_path, digit):
    white = 1 if dtype is np.float32 else 65535
    Image.fromarray((digit.astype(np.float64) / 255 * white).astype(dtype)).save(tmp_path / "digit.tif")
    assert differs(tmp_path / "digit.tif", digit) <= 5


def test_a_file_of_several_pictures_is_refused(tmp_path, digit):
    pages = [Image.fromarray(digit), Image.fromarray(255 - digit)]
    pages[0].save(tmp_path / "two.gif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="two.gif: cannot be read as an image .it holds 2 pictures; save one of them"):
        read_image(tmp_path / "two.gif", SHAPE, None)


def test_what_is_not_a_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="pipe.png: cannot be read as an image .it is not a regular file.; give a PNG"):
        read_image(tmp_path / "pipe.png", SHAPE, None)


@pytest.mark.parametrize("size", [28, 100])
def test_ink_that_is_too_faint_is_blank_at_any_size(size, tmp_path):
    for name, level in {"faint": 35, "dark": 200}.items():
        page = Image.new("L", (size, size))
        page.paste(level, (size // 4, size // 4, size // 2, size // 2))
        page.save(tmp_path / f"{name}.png")
    assert read(tmp_path / "faint.png") is None
    assert read(tmp_path / "dark.png") is not None


@pytest.mark.parametrize("size", [(28, 28), (90, 50)])
@pytest.mark.parametrize("colour", ["white", "black", "gray"])
def test_a_page_on_which_nothing_is_drawn_is_blank(size, colour, tmp_path):
    Image.new("L", size, colour).save(tmp_path / "blank.jpg")
    assert read(tmp_path / "blank.jpg") is None


def test_a_thin_line_keeps_at_least_one_pixel(tmp_path):
    for name, box in {"upright": (200, 20, 203, 380), "level": (20, 200, 380, 203)}.items():
        page = Image.new("L", (400, 400))
        page.paste(255, box)
        page.save(tmp_path / f"{name}.png")
    upright, level = (read(tmp_path / f"{name}.png")[0] for name in ("upright", "level"))
    assert (upright > 200).sum(axis=0).tolist() == [20 * (column == 14) for column in range(28)]
    assert np.array_equal(level, upright.T)


def test_a_large_page_with_a_few_specks_is_blank(tmp_path):
    page = Image.new("L", (3000, 3000))
    for corner in ((0, 0), (2999, 2999)):
        page.putpixel(corner, 255)
    page.save(tmp_path / "specks.png")
    assert read(tmp_path / "specks.png") is None


def test_files_are_found_by_name_folder_and_glob(tmp_path):
    for name in ("b10.png", "b9.png", "a.JPG", "._a.JPG"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert [file.name for file in find_image_files(str(tmp_path))] == ["a.JPG", "b9.png", "b10.png"]
    assert [file.name for file in find_image_files(f"{tmp_path}/*9.png")] == ["b9.png"]
    assert [file.name for file in find_image_files(f"{tmp_path}/b9.png")] == ["b9.png"]
    Image.new("L", (4, 4)).save(tmp_path / "[b].png")
    assert [file.name for file in find_image_files(f"{tmp_path}/[b].png")] == ["[b].png"]
    with pytest.raises(UserError, match=r"images: .*\.gif matches no image file; give a file, a folder, or a glob"):
        find_image_files(f"{tmp_path}/*.gif")


def test_files_in_folders_are_read_and_others_are_named(tmp_path, capsys):
    for name in ("b/c/10.png", "b/c/9.png", "a.JPG", ".git/d.png", "b/e.heic", "f.HEIC", "notes.txt", "README", ".g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/back").symlink_to(tmp_path)
    found = [str(file.relative_to(tmp_path)) for file in find_image_files(str(tmp_path))]
    assert found == ["a.JPG", "b/c/9.png", "b/c/10.png"]
    left_out = f"images: {tmp_path} holds files that are left out: 2 .heic, 1 .txt, 1 without a suffix.\n"
    assert capsys.readouterr().err == left_out
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.heic").touch()
    with pytest.raises(UserError, match="photos matches no image file, only 1 .heic; give a file, a folder, or a glob"):
        find_image_files(f"{tmp_path}/photos")


def test_a_dash_stands_for_the_lines_of_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b.png\n\n\xe9.png\r\nc.png")))
    assert list(find_image_files("-")) == [Path("a b.png"), Path(os.fsdecode(b"\xe9.png")), Path("c.png")]


def test_the_remedy_fits_the_reason(tmp_path):
    (tmp_path / "folder.png").mkdir()
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    for name, message in {
        "no.png": "no.png: cannot be read as an image .No such file or directory.; correct the path.",
        "folder.png": "folder.png: cannot be read as an image .it is not a regular file.; give a PNG or JPEG file.",
        "large.png": "large.png: is too large .9000 x 9000, .*; shrink it to at most 50,000,000 pixels.",
        "huge.png": "huge.png: is too large .*400000000 pixels.*; shrink it to at most 50,000,000 pixels.",
    }.items():
        with pytest.raises(UserError, match=message):
            read_image(tmp_path / name, SHAPE, None)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(UserError, match=r"notes\.png: cannot be read as an image .* give a PNG or JPEG file"):
        read_image(tmp_path / "notes.png", SHAPE, None)


@pytest.mark.parametrize("width", [5, 12, 50])
def test_a_thin_stroke_is_as_strong_as_a_thick_one(width, tmp_path):
    picture = Image.new("L", (800, 1000), 235)
    ImageDraw.Draw(picture).line([(200, 200), (600, 250), (350, 800)], fill=40, width=width)
    picture.save(tmp_path / "seven.png")
    prepared = read_image(tmp_path / "seven.png", SHAPE, None).pixels
    assert (prepared == 255).sum() >= 4
