"""Downloads a data set in MNIST's format by torchvision to a folder with its four IDX files, unless the folder exists.

torchvision checks the MD5 of each file. Files are downloaded to a temporary folder next to the final one, which is
renamed when all are complete. A lock makes processes that start together wait for the first, and what a killed process
left behind is downloaded again.
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
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            staging = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(staging, ignore_errors=True)
            if not folder.is_dir():
                fetch(getattr(torchvision.datasets, dataset), staging, folder)
    except OSError as error:
        raise UserError(f"data.root: {folder} cannot be written ({error.strerror}); give another folder.") from error
    return folder


def fetch(dataset_class: type[torchvision.datasets.MNIST], staging: Path, folder: Path) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            files = Path(dataset_class(staging, download=True).raw_folder)
        os.replace(files, folder)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"data.dataset: {dataset_class.__name__} could not be downloaded from "
            f"{' or '.join(dataset_class.mirrors)} ({error}); "
            f"connect to the internet, or put {', '.join(IDX_FILES.values())} into {folder}."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
