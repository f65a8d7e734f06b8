"""Builds networks whose probabilities differ from image to image, as if they had been trained, and their pages."""

from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

from quadrant_lstm.data.orderings import ORDERINGS, scaled, sequences
from quadrant_lstm.data.sources import load_images
from quadrant_lstm.model.deep import DeepCNNLSTM
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.run.drawing_page import drawing_page

# Strokes of the digits, by hand: (x, y) from the left and the top of the drawing pad, each from 0 to 1.
DRAWN_DIGITS = {
    0: [[(0.5, 0.15), (0.36, 0.22), (0.29, 0.4), (0.29, 0.6), (0.37, 0.78), (0.5, 0.85), (0.63, 0.78), (0.71, 0.6),
         (0.71, 0.4), (0.64, 0.22), (0.5, 0.15)]],
    1: [[(0.53, 0.15), (0.47, 0.85)]],
    2: [[(0.3, 0.33), (0.35, 0.22), (0.5, 0.17), (0.65, 0.22), (0.7, 0.35), (0.6, 0.52), (0.42, 0.7), (0.28, 0.82),
         (0.74, 0.82)]],
    3: [[(0.3, 0.25), (0.42, 0.16), (0.58, 0.17), (0.67, 0.28), (0.62, 0.42), (0.46, 0.48), (0.62, 0.52),
         (0.7, 0.66), (0.63, 0.79), (0.47, 0.84), (0.3, 0.77)]],
    4: [[(0.32, 0.15), (0.28, 0.5), (0.72, 0.5)], [(0.66, 0.15), (0.62, 0.87)]],
    5: [[(0.7, 0.17), (0.36, 0.17), (0.34, 0.47), (0.52, 0.42), (0.66, 0.5), (0.7, 0.65), (0.62, 0.78), (0.47, 0.84),
         (0.3, 0.78)]],
    6: [[(0.6, 0.14), (0.45, 0.28), (0.34, 0.5), (0.33, 0.7), (0.42, 0.83), (0.57, 0.84), (0.67, 0.73), (0.64, 0.58),
         (0.5, 0.53), (0.36, 0.63)]],
    7: [[(0.28, 0.2), (0.72, 0.2), (0.6, 0.45), (0.48, 0.85)]],
    8: [[(0.64, 0.25), (0.52, 0.16), (0.38, 0.22), (0.38, 0.36), (0.6, 0.55), (0.66, 0.7), (0.55, 0.84), (0.4, 0.82),
         (0.34, 0.68), (0.45, 0.52), (0.62, 0.38), (0.64, 0.25)]],
    9: [[(0.66, 0.3), (0.55, 0.17), (0.4, 0.2), (0.34, 0.35), (0.42, 0.48), (0.57, 0.46), (0.66, 0.3), (0.65, 0.55),
         (0.58, 0.86)]],
}  # fmt: skip


def deep_network(blocks=((4, 4), (6,), (8,)), lstm_units=7, orderings=ORDERINGS, recurrent=LSTM) -> DeepCNNLSTM:
    data = ((1, 14 * len(orderings), 14), 10, orderings)
    return DeepCNNLSTM(*data, blocks=blocks, recurrent=recurrent, dropout=0.2, lstm_units=lstm_units)


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
    cfg = OmegaConf.create({"data": {"dataset": "mnist", "root": None, "orderings": orderings}})
    file = folder / "network.html"
    file.write_text(drawing_page(network, (1, 14 * len(orderings), 14), 10, cfg, folder, weights))
    return file
