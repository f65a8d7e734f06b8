"""Downloads a small data set under FashionMNIST's names, with torchvision, from a server on this machine."""

import functools
import gzip
import hashlib
import http.server
import multiprocessing
import random
import threading
import time

import pytest
import torchvision.datasets
from tqdm import tqdm

from quadrant_lstm.data.images import download, load_images
from quadrant_lstm.errors import UserError
from tests.folders import write_idx_folder

NUM_KILLS = 20


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    served, resources = write_idx_folder(tmp_path / "served", train=30_000), []
    for file in sorted(served.iterdir()):
        packed = gzip.compress(file.read_bytes(), compresslevel=1)
        file.with_name(f"{file.name}.gz").write_bytes(packed)
        resources.append((f"{file.name}.gz", hashlib.md5(packed).hexdigest()))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(http.server.HTTPServer, "handle_error", lambda *_: None)  # of a process that was killed
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
        yield served
        server.shutdown()


def start_download(folder) -> multiprocessing.Process:
    """Downloads in a forked process, which inherits the mirror."""

    def run() -> None:
        tqdm.set_lock(threading.RLock())  # forked processes share tqdm's lock: a killed one would block the others
        download("FashionMNIST", folder)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


@pytest.mark.usefixtures("mirror")
def test_eight_processes_that_start_together_download_once(tmp_path, record_figure):
    folder = tmp_path / "cache/fashion_mnist"
    processes = [start_download(folder) for _ in range(8)]
    for process in processes:
        process.join(30)
    succeeded = sum(process.exitcode == 0 for process in processes)
    record_figure(f"{succeeded} of 8 processes that start together on an empty data folder succeed")
    assert succeeded == 8
    assert load_images("FashionMNIST", str(folder)).test_images.shape == (70, 1, 8, 8)
    assert {file.name for file in folder.parent.iterdir()} == {"fashion_mnist", ".fashion_mnist.lock"}


@pytest.mark.usefixtures("mirror")
def test_a_killed_download_is_repeated(tmp_path, record_figure):
    durations = []
    for number in range(3):  # the first one is slower
        start = time.monotonic()
        start_download(tmp_path / f"whole_{number}").join()
        durations.append(time.monotonic() - start)
    random_delays, interrupted = random.Random(0), 0
    for number in range(NUM_KILLS):
        folder = tmp_path / str(number) / "fashion_mnist"
        process = start_download(folder)
        time.sleep(random_delays.uniform(0.1, 0.7) * min(durations))
        process.kill()
        process.join()
        interrupted += not folder.exists()
        load_images("FashionMNIST", str(folder))
    record_figure(f"{NUM_KILLS} downloads succeed after a kill, which interrupted {interrupted} of them")
    assert interrupted > NUM_KILLS / 4


def test_a_file_with_a_wrong_checksum_is_not_kept(mirror, tmp_path):
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match="FashionMNIST could not be downloaded from http://127.0.0.1"):
        download("FashionMNIST", tmp_path / "fashion_mnist")
    assert not (tmp_path / "fashion_mnist").exists()


@pytest.mark.usefixtures("mirror")
def test_a_folder_of_another_data_set_is_refused(tmp_path):
    download("FashionMNIST", tmp_path / "data")
    download("FashionMNIST", tmp_path / "data")
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is not that of KMNIST; give another folder"):
        download("KMNIST", tmp_path / "data")


def test_an_error_names_the_server_the_folder_and_the_remedies(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    for folder, reason in ((tmp_path / "kmnist", "refused"), (tmp_path / ".kmnist.lock/kmnist", "File exists")):
        remedy = "connect to the internet, give another folder, or put train-images-idx3-ubyte"
        with pytest.raises(UserError, match=rf"http://127.0.0.1:9/ into {folder} \(.*{reason}.*\); {remedy}"):
            download("KMNIST", folder)
