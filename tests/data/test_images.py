import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from quadrant_lstm.data.images import load_idx_folder, load_images
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
    images = load_images("mnist", None)
    for part, md5 in PUBLISHED_MD5.items():
        array = getattr(images, part)
        array = array[:, 0] if array.ndim == 4 else array.astype(np.uint8)
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
        assert hashlib.md5(header + array.tobytes()).hexdigest() == md5, part


def test_idx_files_are_read_plain_and_gzipped_alike(tmp_path):
    plain = load_idx_folder(write_idx_folder(tmp_path / "plain"))
    for file in write_idx_folder(tmp_path / "zipped").iterdir():
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    zipped = load_idx_folder(tmp_path / "zipped")
    assert plain.sha256() == zipped.sha256()
    assert plain.sha256() != load_idx_folder(write_idx_folder(tmp_path / "other", train=50)).sha256()
    assert plain.test_images.shape == (70, 1, 8, 8)
    assert plain.num_classes == 3
    assert plain.train_labels[:4].tolist() == [0, 1, 2, 0]
    assert plain.train_images[1].mean() > plain.train_images[0].mean()


def rewrite(shape, value=0):
    return lambda file: write_idx(file, np.full(shape, value))


def changed(change, suffix=""):
    """Returns what replaces a file by one with other content."""

    def damage(file):
        content = change(file.read_bytes())
        file.unlink()
        file.with_name(file.name + suffix).write_bytes(content)

    return damage


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, Path.unlink, "has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz; put it"),
        (
            IMAGES,
            changed(lambda data: data[:-1]),
            "holds fewer bytes than the 12,800 that 200 x 8 x 8 needs; it is truncated",
        ),
        (IMAGES, changed(lambda data: data + b"1"), "holds more bytes than the 12,800 that 200 x 8 x 8 needs"),
        (IMAGES, changed(lambda data: b"\0\0\x0d" + data[3:]), "starts with 0x00000d03, not 0x00000803 as IDX files"),
        (LABELS, changed(lambda data: b""), "starts with 0x, not 0x00000801 as IDX files of labels do"),
        (IMAGES, changed(lambda data: data[:5]), "is empty"),
        (IMAGES, changed(lambda data: data, ".gz"), r"gz: cannot be read \(Not a gzipped file"),
        (IMAGES, changed(lambda data: gzip.compress(data)[:-20], ".gz"), r"gz: cannot be read \(Compressed file ended"),
        (IMAGES, rewrite((0, 8, 8)), "is empty"),
        (LABELS, rewrite((199,)), "199 labels for 200 images of train-images-idx3-ubyte; give one for each"),
        ("t10k-images-idx3-ubyte", rewrite((70, 6, 8)), "its test images are 6 x 8, but training images 8 x 8"),
        (LABELS, rewrite((200,), 1), "every training label is 1; at least two classes are needed"),
        ("t10k-labels-idx1-ubyte", rewrite((70,), 9), "label 9 is out of range: the largest training label is 2"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_and_the_rule(idx_folder, name, damage, message):
    damage(idx_folder / name)
    with pytest.raises(UserError, match=message) as error:
        load_idx_folder(idx_folder)
    assert str(idx_folder) in str(error.value)
