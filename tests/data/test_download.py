"""torchvision's own download, from a server on this machine that holds a small data set under FashionMNIST's names."""

import functools
import gzip
import hashlib
import http.server
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torchvision.datasets

from quadrant_lstm.data.download import download
from quadrant_lstm.data.images import IDX_FILES, load_images
from quadrant_lstm.errors import UserError
from tests.conftest import write_idx_folder


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    served = write_idx_folder(tmp_path / "served")
    resources = []
    for file in sorted(served.iterdir()):
        packed = gzip.compress(file.read_bytes())
        file.with_name(f"{file.name}.gz").write_bytes(packed)
        resources.append((f"{file.name}.gz", hashlib.md5(packed).hexdigest()))
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fashion = torchvision.datasets.FashionMNIST
    monkeypatch.setattr(fashion, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(fashion, "resources", resources)
    yield served, requests
    server.shutdown()
    server.server_close()


def test_a_data_set_is_fetched_once_by_many_at_a_time(mirror, tmp_path):
    folder = tmp_path / "cache" / "fashion_mnist"
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: download("FashionMNIST", folder), range(4)))
    assert folders == [folder] * 4
    requests = Counter(mirror[1])
    assert set(requests) == {f"/{name}.gz" for name in IDX_FILES.values()}
    assert max(requests.values()) <= 2  # torchvision looks for redirects first
    assert set(IDX_FILES.values()) <= {file.name for file in folder.iterdir()}
    assert load_images("FashionMNIST", str(folder)).image_shape == (1, 8, 8)


def test_a_file_with_a_wrong_checksum_is_not_kept(mirror, tmp_path):
    (mirror[0] / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match="FashionMNIST could not be downloaded from http://127.0.0.1"):
        download("FashionMNIST", tmp_path / "cache" / "fashion_mnist")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [".fashion_mnist.lock"]


def test_without_a_network_it_says_what_was_tried_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match=r"KMNIST could not be downloaded from http://127.0.0.1:9/ .* connect to the"):
        download("KMNIST", tmp_path / "kmnist")


def test_a_set_of_another_format_is_refused(tmp_path):
    with pytest.raises(UserError, match="data.dataset: 'CIFAR10' is not in torchvision's MNIST format"):
        download("CIFAR10", tmp_path / "cifar")


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="data.root: .* cannot be written"):
        download("KMNIST", tmp_path / "file" / "kmnist")
