"""The name of a torchvision data set in MNIST's format -> a folder with its four IDX files, fetched once.

torchvision checks each file against its MD5. The files are fetched into a folder beside their place and moved there
when all are whole; processes that start together wait for the first of them, and what a killed one left is fetched
anew.
"""

import contextlib
import io
import os
import shutil
from pathlib import Path

import torchvision.datasets
from filelock import FileLock

from quadrant_lstm.data.idx import IDX_FILES
from quadrant_lstm.errors import UserError


def download(dataset: str, folder: Path) -> Path:
    kind = getattr(torchvision.datasets, dataset, None)
    if not (isinstance(kind, type) and issubclass(kind, torchvision.datasets.MNIST)):
        raise UserError(
            f"data.dataset: {dataset!r} is not in torchvision's MNIST format; "
            "write mnist, idx, or one like FashionMNIST or KMNIST."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            staging = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(staging, ignore_errors=True)
            if not folder.is_dir():
                fetch(kind, staging, folder)
    except OSError as error:
        raise UserError(f"data.root: {folder} cannot be written ({error.strerror}); give another folder.") from error
    return folder


def fetch(kind: type[torchvision.datasets.MNIST], staging: Path, folder: Path) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            files = Path(kind(staging, download=True).raw_folder)
        os.replace(files, folder)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"data.dataset: {kind.__name__} could not be downloaded from {' or '.join(kind.mirrors)} ({error}); "
            f"connect to the internet, or put {', '.join(IDX_FILES.values())} into {folder}."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
