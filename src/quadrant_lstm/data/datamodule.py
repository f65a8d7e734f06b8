"""Defines what a run needs of its data: batches of sequences with their labels, and some test sequences to look at.

    indices of an epoch -> samples -> sequences [batch, steps, channels, height, width] on the device, and labels
                                      or, of series, [batch, steps, features]

image_sequences.py cuts images into pieces; moving_digits.py makes clips, clips.py and series.py read files.
"""

import contextlib
import hashlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Num, UInt8
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from quadrant_lstm.data.images import Images
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError, and_contexts
from quadrant_lstm.signals import signals_deferred

# The batches of an epoch, from its number and a seed, divided among processes
#
# The batches depend on nothing else, so a resumed run sees the same images as an uninterrupted one. Each process takes
# every n-th index of a global batch. Together they see every image exactly once: none is repeated or dropped.


class EpochSampler(Sampler):
    """Yields batches of `batch_size` indices for process `rank` of `num_ranks`, shuffled every epoch if given a seed.

    All processes get the same number of batches if there are at least as many indices as processes.
    """

    def __init__(
        self, indices: Int64[Tensor, " images"], batch_size: int, seed: int | None, rank: int = 0, num_ranks: int = 1
    ):
        self.indices, self.batch_size, self.seed = indices, batch_size, seed
        self.rank, self.num_ranks = rank, num_ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch  # Lightning calls this before each epoch

    @property
    def drawn_epoch(self) -> int | None:
        """The epoch, if it is one of a training, in which anything is drawn."""
        return None if self.seed is None else self.epoch

    def __iter__(self) -> Iterator[Int64[Tensor, " batch"]]:
        indices = self.indices
        if self.seed is not None:
            generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
            indices = indices[torch.randperm(len(indices), generator=generator).to(indices.device)]
        for start, end in self.global_batches():
            if len(batch := indices[start + self.rank : end : self.num_ranks]):
                yield batch

    def __len__(self) -> int:
        return sum(end - start > self.rank for start, end in self.global_batches())

    def global_batches(self) -> list[tuple[int, int]]:
        """Returns the (start, end) of each batch of all processes together."""
        size = self.batch_size * self.num_ranks
        ends = [*range(size, len(self.indices), size), len(self.indices)]
        if len(ends) > 1 and ends[-1] - ends[-2] < self.num_ranks:
            del ends[-2]  # fewer images are left than processes
        return list(zip([0, *ends], ends, strict=False))


class BatchLoader:
    """Yields what `read` returns for the indices of each batch and the epoch, which is None outside a training. A
    DataLoader would cost a few per cent of the training step of a small network.
    """

    batch_sampler = None  # Lightning reads it

    def __init__(self, read: Callable[[Int64[Tensor, " batch"], int | None], Any], sampler: EpochSampler):
        self.read, self.sampler = read, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        return (self.read(indices, self.sampler.drawn_epoch) for indices in self.sampler)


def epoch_seed(seed: int, *stream: int) -> int:
    """Returns a seed for each epoch of a run, and for each process or clip in it."""
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0])


# Processes that read batches


# Processes that are spawned, elsewhere, import torch again. On macOS, a fork of a process with threads may crash.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


class WorkerLoader(DataLoader):
    """Yields what `read` returns for each key, or the UserError that it raises.

    It draws the seed for its workers from a generator of its own: the default one draws weights and dropout.

    Ctrl-C, which a terminal sends to all processes, ends this process, which then ends the workers. Signals wait
    until all workers have started; not later, when persistent workers that have ended may be waited for.
    """

    have_started = False

    def __init__(self, read: Callable[[Any], Any], keys: Any, num_workers: int, **options: Any):
        options |= {"multiprocessing_context": START_METHOD} if num_workers else {}
        options |= {"generator": torch.Generator(), "worker_init_fn": end_unnoticed, "collate_fn": uncollated}
        super().__init__(Readings(read), None, sampler=keys, num_workers=num_workers, **options)

    def __iter__(self) -> Any:
        if self.persistent_workers and self.have_started:
            return super().__iter__()
        self.have_started = True
        with signals_deferred():
            return super().__iter__()

    def check_worker_number_rationality(self) -> None:
        """Does not warn of more workers than cores: the user has chosen their number."""


class Readings(Dataset):
    def __init__(self, read: Callable[[Any], Any]):
        self.read = read

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.read(key)
        except UserError as error:  # a DataLoader would add a traceback to its text
            return error


def uncollated(value: Any) -> Any:
    return value


def end_unnoticed(_: int) -> None:
    """Lets this worker ignore Ctrl-C, and end at SIGTERM as if it had finished.

    A signal to all processes ends the main one, too. But when a worker is killed, torch raises an error in the main
    process, wherever that happens to be.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


@contextlib.contextmanager
def killed_workers_explained(message: str) -> Iterator[None]:
    """Raises UserError with this message if a worker was killed. Of torch's error, which it raises wherever the main
    process happens to be, also in a library that answers it with another error, only the text tells this (torch 2.13).
    """
    try:
        yield
    except Exception as error:
        if any("DataLoader worker" in str(each) for each in and_contexts(error)):
            raise UserError(message) from error
        raise


# The DataModule


MAX_BYTES = 100_000_000  # of frames, one byte per pixel, that are kept in memory after the training
# Frames that a network reads together: the maps of a ResNet take a hundred times as much memory
BYTES_AT_ONCE, SAMPLES_AT_ONCE = 5_000_000, 250


def num_at_once(shape: Sequence[int]) -> int:
    """Returns how many samples of this shape a network reads together after the training."""
    return max(1, min(SAMPLES_AT_ONCE, BYTES_AT_ONCE // math.prod(shape)))


class Batch(NamedTuple):
    """`lengths` are the numbers of real frames of clips that are padded at their ends; None if no clip is. In the test,
    a sample may have several windows, one after the other, each of which is a sequence. `features` are those of a
    frozen encoder, if they are kept; `frames` then only have the right shape.
    """

    frames: Num[Tensor, "windows steps ..."]
    labels: Int64[Tensor, " batch"]
    lengths: Int64[Tensor, " windows"] | None = None
    features: Float[Tensor, "windows steps ..."] | None = None

    def unpadded(self) -> list[Num[Tensor, "frames ..."]]:
        """Returns the real frames of each sequence."""
        ends = [self.frames.shape[1]] * len(self.frames) if self.lengths is None else self.lengths.tolist()
        return [clip[:end] for clip, end in zip(self.frames, ends, strict=True)]


def check_fold(key: str, fold: int, num_folds: int, total: int, kind: str) -> None:
    folds = f"data.num_folds={num_folds} makes folds 0 to {num_folds - 1}"
    if fold >= num_folds:
        raise UserError(f"data.{key}: {fold}, but {folds}; write one.")
    if num_folds > total:
        raise UserError(f"data.num_folds: {num_folds}, but there are {total} {kind}; write fewer.")


def draw_validation(
    total: int, num_validation: int, seed: int, fold: int | None, num_folds: int
) -> Int64[Tensor, " samples"]:
    """Returns which of the training samples, which the seed shuffles, are for validation: the first, or
    fold number `fold` of `num_folds`, which are as equal as possible. There may be none. Raises UserError if no sample
    would be left to train on, or if there is no such fold.
    """
    start, end = 0, num_validation
    if fold is not None:
        check_fold("fold", fold, num_folds, total, "training samples")
        start, end = fold * total // num_folds, (fold + 1) * total // num_folds
    elif num_validation >= total:
        raise UserError(f"data.validation_images: {num_validation} of {total} leave none to train on; write fewer.")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[start:end].sort().values


class SequenceDataModule(LightningDataModule):
    """Keeps the samples on the device, unless a subclass has a `loader` of its own. The subclass makes a Batch of them
    there, in `on_after_batch_transfer`. `validation_indices` are those training samples that are held out.
    """

    kind = "clip"  # the word for a sample in messages
    train: Any  # a data set, as `test`
    test: Any
    images: Images  # that the samples are made of, unless a subclass has a `sha256` of its own
    num_windows = 1  # of a test sample, in the test
    pads = False  # whether a sample has fewer frames than there are steps
    skipped: Sequence[str] = ()  # the errors of samples that were left out
    unused: Sequence[str] = ()  # keys whose values have no effect, because the data are divided
    origin = ""  # how the samples were divided into training, validation and test
    table: Sequence[Mapping[str, str]] = ()  # the path, split, class, group and checksum of each sample in a file
    summary = ""  # how many samples there are, in words
    warnings: Sequence[str] = ()  # what is worth knowing before the training
    is_cut = False  # whether the ends of training samples are for the test
    statistics: tuple[Tensor, Tensor] | None = None  # the mean and the deviation of each feature of training series
    blank: Tensor | int = 0  # a frame that shows nothing

    def __init__(
        self,
        spec: SequenceSpec,
        train: Any,
        test: Any,
        validation_indices: Int64[Tensor, " samples"],
        batch_size: int,
        seed: int,
    ):
        super().__init__()
        self.spec, self.train, self.test, self.batch_size, self.seed = spec, train, test, batch_size, seed
        self.validation_indices = validation_indices
        is_held_out = torch.zeros(len(train), dtype=torch.bool).index_fill(0, validation_indices, True)
        self.train_indices = (~is_held_out).nonzero().flatten()

    def state_dict(self) -> dict[str, str]:
        """Checkpoints store it."""
        return {"validation": hashlib.sha256(self.validation_indices.numpy().tobytes()).hexdigest()}

    def load_state_dict(self, state: dict[str, str]) -> None:
        """Raises UserError if images that a resumed run was trained on are now for validation; files have a table."""
        if not self.table and state != self.state_dict():
            rule = "other samples are for validation than when this run began"
            raise UserError(f"data: {rule}; restore its config.yaml and its data.")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of a training batch, unless it is the last."""
        return min(self.batch_size, len(self.train_indices)), self.spec.num_steps, *self.spec.frame_shape

    def class_counts(self) -> Num[Tensor, " classes"]:
        """Returns how many training samples each class has, up to a factor."""
        return self.train.tensors[1][self.train_indices].bincount(minlength=self.spec.num_classes)

    def num_that_fit(self, wanted: int) -> int:
        """Returns the wanted number of samples, or fewer if their frames are larger than MAX_BYTES."""
        return max(1, min(wanted, MAX_BYTES // math.prod(self.batch_shape[1:])))

    @property
    def is_training(self) -> bool:
        """Whether the batches are those of a training, which are augmented; not those of its validation."""
        return bool(self.trainer and self.trainer.training)

    @property
    def repeats_batches(self) -> bool:
        """Whether every epoch has the same training batches, with the same labels and orderings."""
        return bool(getattr(self.trainer, "overfit_batches", 0))

    def keep_features(self, encoder: nn.Module) -> None:
        """Adds the features of a frozen encoder to batches, where it reads the same frames in each epoch."""

    def train_dataloader(self) -> Any:
        if not self.repeats_batches:
            return self.loader(self.train, self.train_indices, self.seed)
        return self.loader(self.train, self.in_order(self.train_indices, "overfit_batches"))

    def val_dataloader(self) -> Any:
        indices = self.in_order(self.validation_indices, "limit_val_batches")
        return self.loader(self.train, indices) if len(indices) else []

    def test_dataloader(self) -> Any:
        return self.loader(self.test, self.in_order(torch.arange(len(self.test)), "limit_test_batches"))

    def in_order(self, indices: Int64[Tensor, " samples"], limit: str) -> Int64[Tensor, " samples"]:
        """Returns them as they are; or in one random order if the Trainer's `limit` lets it read only some batches:
        files are sorted by class.
        """
        batches = getattr(self.trainer, limit, 1.0)
        if isinstance(batches, float) and batches == 1.0:  # all; 1 is a single one
            return indices
        return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))]

    def loader(self, data: Any, indices: Int64[Tensor, " samples"], seed: int | None = None) -> Any:
        device = self.trainer.strategy.root_device if self.trainer else "cpu"
        tensors = [tensor.to(device) for tensor in data.tensors]

        def gather(numbers: Int64[Tensor, " batch"], epoch: int | None) -> tuple[Tensor, ...]:
            return tuple(tensor.index_select(0, numbers) for tensor in tensors)

        return BatchLoader(gather, self.sampler(indices.to(device), seed))

    def sampler(self, indices: Int64[Tensor, " samples"], seed: int | None) -> EpochSampler:
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return EpochSampler(indices, self.batch_size, seed, rank, num_ranks)

    def test_names(self, indices: Int64[Tensor, " samples"]) -> list[str]:
        return [f"test sample {number}" for number in indices.tolist()]

    def test_samples(self, indices: Int64[Tensor, " samples"], num_windows: int = 1) -> Batch:
        """Returns some test samples, on the CPU, with frames in uint8, and clips in so many windows."""
        raise NotImplementedError

    def test_pictures(self, indices: Int64[Tensor, " samples"]) -> UInt8[Tensor, "samples channels height width"]:
        """Returns a picture of each of some test samples: its first, middle and last frame, side by side."""
        frames, _, lengths, _ = self.test_samples(indices)
        last = torch.full((len(frames),), frames.shape[1] - 1) if lengths is None else lengths - 1
        numbers = torch.arange(len(frames))
        return torch.cat([frames[:, 0], frames[numbers, last // 2], frames[numbers, last]], dim=3)

    def sha256(self) -> str:
        """Returns the checksum of what is read from files."""
        return self.images.sha256()
