"""Builds small networks, their data and a trainer for tests."""

from functools import partial

import hypothesis.strategies as st
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.amp import GradScaler
from torch.optim.lr_scheduler import ConstantLR
from torch.utils.data import DataLoader

from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.orderings import ORDERINGS, SequenceSpec, numbered_names
from quadrant_lstm.model.conv_lstm import ConvLSTM
from quadrant_lstm.model.memoryless import Concatenated, PerStep, RunningMean
from quadrant_lstm.model.network import CNNLSTM, Join
from quadrant_lstm.model.rnn import GRU, LSTM
from quadrant_lstm.model.transformer import Transformer

QUESTION = SequenceSpec((1, 56, 14), 4, numbered_names(10))
SPEC = SequenceSpec((1, 2, 2), 4, numbered_names(3))  # of Flat
CONSTANT = partial(ConstantLR, factor=1.0, total_iters=0)
RECURRENT = {
    "lstm": LSTM, "gru": GRU, "bilstm": partial(LSTM, bidirectional=True), "stacked": partial(LSTM, num_layers=2),
    "conv_lstm": partial(ConvLSTM, kernel_size=3), "transformer": Transformer,
    "mean": RunningMean, "last": PerStep, "concat": Concatenated,
}  # fmt: skip


def orderings_on(grid: tuple[int, int], min_size: int = 1) -> st.SearchStrategy:
    """Draws orderings of the pieces of a grid."""
    return st.lists(st.permutations(range(1, grid[0] * grid[1] + 1)), min_size=min_size, max_size=6)


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4 * 4, 3)

    def forward(self, frames):
        return self.linear(frames.flatten(1))


class Pooled(nn.Sequential):
    """An encoder that returns maps."""

    def __init__(self, in_channels):
        super().__init__(nn.Conv2d(in_channels, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


def join(recurrent="gru", encoder=Pooled, frame_shape=(1, 6, 6), units=3) -> Join:
    """Returns a network of three classes for sequences of up to five steps. Its weights are always the same."""
    torch.manual_seed(0)
    sizes = {"dropout": 0.0, "lstm_units": units, "dense_units": 4, "differences": False, "shared_tiles": True}
    return Join(frame_shape, 3, 5, None, encoder, RECURRENT[recurrent], **sizes).eval()


def batches(frames, labels, size) -> DataLoader:
    pairs = list(zip(frames.split(size), labels.split(size), strict=True))
    return DataLoader(pairs, batch_size=None, collate_fn=lambda pair: Batch(*pair))


def trainer(logger=False, **options) -> Trainer:
    options |= {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", logger=logger, **options)


def fp16() -> MixedPrecision:
    """Returns a plugin of the Trainer: for trainer.precision=16-mixed, Lightning uses bf16 on a CPU."""
    return MixedPrecision("16-mixed", "cpu", GradScaler("cpu"))


def question_network(**changes) -> CNNLSTM:
    data = {"frame_shape": (1, 56, 14), "num_classes": 10, "num_steps": 4, "orderings": ORDERINGS}
    encoder = {"filters": [32, 32], "kernel_size": 3, "pool_size": 2, "dropout": 0.25, "shared_tiles": False}
    return CNNLSTM(**(data | encoder | {"recurrent": LSTM, "lstm_units": 5, "dense_units": 50} | changes))


def small_network() -> CNNLSTM:
    return question_network(
        frame_shape=(1, 32, 8), num_classes=3, filters=[2, 3], dense_units=4, shared_tiles=True
    ).eval()


def clip_network(frame_shape, num_classes=3, num_steps=4, encoder=Pooled, recurrent="lstm", differences=False) -> Join:
    """Returns a network whose frames need not be made of pieces of images."""
    data = (frame_shape, num_classes, num_steps, None)
    sizes = {"dropout": 0.0, "lstm_units": 3, "dense_units": 4, "differences": differences, "shared_tiles": False}
    return Join(*data, encoder, RECURRENT[recurrent], **sizes).eval()
