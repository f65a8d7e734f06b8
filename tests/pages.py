"""Builds networks whose probabilities differ from image to image, as if they had been trained, and their pages."""

from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import ORDERINGS, QUADRANTS, SequenceSpec, numbered_names, scaled, sequences
from quadrant_lstm.model.deep import DeepCNNLSTM
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.run.drawing_page import drawing_page


def deep_network(
    blocks=((4, 4), (6,), (8,)), lstm_units=7, orderings=ORDERINGS, recurrent=LSTM, join_pieces=True
) -> DeepCNNLSTM:
    data = ((1, 14 * len(orderings), 14), 10, orderings, QUADRANTS)
    return DeepCNNLSTM(*data, blocks, recurrent, 0.2, lstm_units, join_pieces)


@torch.no_grad()
def shaken(network: nn.Module) -> nn.Module:
    """Draws biases and the statistics of batch norm at random, and lets the logits vary between digits."""
    generator = torch.Generator().manual_seed(0)
    for name, values in [*network.named_parameters(), *network.named_buffers()]:
        if "bias" in name or "running_mean" in name:
            values.normal_(0, 0.1, generator=generator)
        elif "running_var" in name or ("norm" in name and "weight" in name):
            values.uniform_(0.5, 2, generator=generator)
        elif "weight" in name:
            values *= 2
    digits = torch.from_numpy(load_images("mnist", None).test_images[:200])
    logits = network.eval()(scaled(sequences(digits)))
    network.head.weight *= 2 / logits.std(0)[:, None]
    network.head.bias.copy_(2 * (network.head.bias - logits.mean(0)) / logits.std(0))
    return network


def write_page(folder: Path, network: nn.Module, orderings=ORDERINGS, weights="float32") -> Path:
    cfg = OmegaConf.create({"data": {"dataset": "mnist", "root": None, "grid": QUADRANTS, "orderings": orderings}})
    file = folder / "network.html"
    spec = SequenceSpec((1, 14 * len(orderings), 14), 4, numbered_names(10))
    file.write_text(drawing_page(network, spec, cfg, folder, weights))
    return file
