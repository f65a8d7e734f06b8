import gzip
import hashlib
import struct

import numpy as np
import pytest

from quadrant_lstm.data.images import load_bundled, load_idx_folder, load_images
from quadrant_lstm.errors import UserError
from tests.folders import write_idx, write_idx_folder

# of the uncompressed IDX files that the authors published
PUBLISHED_MD5 = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}


def test_the_bundled_mnist_equals_the_published_files():
    images = load_bundled()
    for part, md5 in PUBLISHED_MD5.items():
        array = getattr(images, part)
        array = array[:, 0] if array.ndim == 4 else array.astype(np.uint8)
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
        assert hashlib.md5(header + array.tobytes()).hexdigest() == md5, part


def test_a_changed_byte_in_the_bundle_is_refused(tmp_path):
    file = tmp_path / "mnist.npz"
    file.write_bytes(b"PK damaged")
    with pytest.raises(UserError, match=r"mnist.npz: its SHA-256 is .* install the package again"):
        load_bundled(file)


def test_idx_files_are_read_plain_and_gzipped_alike(tmp_path):
    plain = load_idx_folder(write_idx_folder(tmp_path / "plain"))
    for file in write_idx_folder(tmp_path / "zipped").iterdir():
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    zipped = load_idx_folder(tmp_path / "zipped")
    assert plain.sha256() == zipped.sha256()
    assert plain.image_shape == (1, 8, 8)
    assert plain.num_classes == 3
    assert plain.train_labels[:4].tolist() == [0, 1, 2, 0]
    assert plain.train_images[1].mean() > plain.train_images[0].mean()


def test_different_data_sets_have_different_checksums(tmp_path):
    small, large = (load_idx_folder(write_idx_folder(tmp_path / str(n), train=n)) for n in (40, 50))
    assert small.sha256() != large.sha256()


def test_images_that_the_grid_does_not_divide_are_refused(tmp_path):
    images = load_idx_folder(write_idx_folder(tmp_path))
    images.check_grid((4, 2))
    with pytest.raises(
        UserError, match=r"data.grid: \[3, 2\] does not split images of 8 x 8 into equal pieces; write an"
    ):
        images.check_grid((3, 2))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def damage_magic_number(file):
    file.write_bytes(b"\x00\x00\x0d" + file.read_bytes()[3:])


def lengthen(file):
    file.write_bytes(file.read_bytes() + b"\x00")


def rename_to_gz(file):
    file.rename(file.with_name(f"{file.name}.gz"))


def truncate_gzip(file):
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes())[:-20])
    file.unlink()


def rewrite(shape, value=0):
    return lambda file: write_idx(file, np.full(shape, value))


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, lambda file: file.unlink(), "has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz; put it"),
        (IMAGES, truncate, r"holds 12,799 bytes where 200 x 8 x 8 needs 12,800; it is truncated or damaged"),
        (IMAGES, lengthen, "holds more than 12,800 bytes where 200 x 8 x 8 needs 12,800"),
        (IMAGES, damage_magic_number, "starts with 0x00000d03, not 0x00000803 as IDX files of bytes with 3 axes do"),
        (LABELS, damage_magic_number, "starts with 0x00000d01, not 0x00000801 as IDX files of bytes with 1 axis do"),
        (IMAGES, lambda file: file.write_bytes(b""), "starts with 0x, not 0x00000803"),
        (IMAGES, lambda file: file.write_bytes(b"\x00\x00\x08\x03\x00"), "cannot be read .it ends within its header"),
        (IMAGES, rename_to_gz, r"gz: cannot be read \(Not a gzipped file"),
        (IMAGES, truncate_gzip, r"gz: cannot be read \(Compressed file ended"),
        (IMAGES, rewrite((0, 8, 8)), "is empty"),
        (LABELS, rewrite((199,)), "199 labels for the 200 images of train-images-idx3-ubyte; there must be one per"),
        ("t10k-images-idx3-ubyte", rewrite((70, 6, 8)), "images of 6 x 8, but training images have 8 x 8"),
        (LABELS, rewrite((200,), 1), "every label is 1; at least two classes are needed"),
        ("t10k-labels-idx1-ubyte", rewrite((70,), 9), "label 9 is out of range: the largest training label is 2"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_and_the_rule(idx_folder, name, damage, message):
    damage(idx_folder / name)
    with pytest.raises(UserError, match=message) as error:
        load_idx_folder(idx_folder)
    assert str(idx_folder) in str(error.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="data.root: .*nowhere is not a folder; give one that holds train-images"):
        load_images("idx", str(tmp_path / "nowhere"))


def test_a_data_set_that_needs_a_folder_asks_for_it():
    with pytest.raises(UserError, match="data.root: null, but data.dataset=idx is read from a folder; add data.root="):
        load_images("idx", None)
