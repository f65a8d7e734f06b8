"""Exports the public names: a convolutional network at every time step, joined to an LSTM.

    image -> quadrants -> four orderings -> sequence -> conv encoder at every step -> LSTM -> classifier -> digit

Each name is imported on first use, so that a command that only reads a config does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quadrant_lstm.data.orderings import ORDERINGS as ORDERINGS
    from quadrant_lstm.data.orderings import sequences as sequences
    from quadrant_lstm.data.orderings import split_quadrants as split_quadrants
    from quadrant_lstm.model.conv_lstm import ConvLSTM as ConvLSTM
    from quadrant_lstm.model.describe import describe as describe
    from quadrant_lstm.model.network import CNNLSTM as CNNLSTM
    from quadrant_lstm.model.time_distributed import TimeDistributed as TimeDistributed
    from quadrant_lstm.run.load import load_run as load_run
    from quadrant_lstm.run.predict import load_predictor as load_predictor

_MODULES = {
    "split_quadrants": "data.orderings",
    "sequences": "data.orderings",
    "ORDERINGS": "data.orderings",
    "TimeDistributed": "model.time_distributed",
    "ConvLSTM": "model.conv_lstm",
    "CNNLSTM": "model.network",
    "describe": "model.describe",
    "load_run": "run.load",
    "load_predictor": "run.predict",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
