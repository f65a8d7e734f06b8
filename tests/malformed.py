"""What a run folder from somebody else may hold that is damaged, or could harm its reader."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Touch:
    """Makes a file if its pickle is executed."""

    def __reduce__(self):
        return (open, ("executed", "w"))


class Case(NamedTuple):
    change: Callable[[Path], object]  # of the config of a run of the tiny data set
    message: str  # a part of the line that refuses it


def replace(old: str, new: str) -> Callable[[Path], object]:
    def change(config: Path) -> None:
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    return change


def alias_bomb() -> str:
    """Returns nine levels of nine aliases, which stand for 387 million values."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(["l0: &l0 [1]", *levels, "model: *l9"])


def plant_interpolation_bomb(config: Path) -> None:
    """Adds nine levels of nine interpolations, which stand for 387 million values."""
    levels = ["bomb:", "  l0: [1]"]
    for n in range(1, 10):
        level = f'"${{bomb.l{n - 1}}}"'
        levels.append(f"  l{n}: [{', '.join([level] * 9)}]")
    assert "label_smoothing: 0.0" in config.read_text()
    text = config.read_text().replace("label_smoothing: 0.0", "label_smoothing: ${bomb.l9}")
    config.write_text("\n".join([text, *levels]))


NETWORK = "_target_: quadrant_lstm.model.network.CNNLSTM"
MALFORMED: dict[str, Case] = {
    "missing": Case(lambda config: config.unlink(), "is not a run folder: it has no .hydra/config.yaml"),
    "empty": Case(lambda config: config.write_text(""), "config.yaml: is not the config of a run"),
    "no YAML": Case(lambda config: config.write_text("model: [5"), "config.yaml: cannot be read (while parsing"),
    "a list": Case(lambda config: config.write_text("- 1"), "config.yaml: is not the config of a run"),
    "bytes": Case(lambda config: config.write_bytes(bytes(range(256))), "cannot be read ('utf-8' codec"),
    "another's": Case(lambda config: config.write_text("model: {layers: 3}"), "data: is missing"),
    "os.system": Case(replace(NETWORK, "_target_: os.system"), "model._target_: os.system is other code"),
    "a class that a module of this project imports": Case(
        replace(NETWORK, "_target_: quadrant_lstm.data.images.Path"),
        "images.Path is not allowed; name",
    ),
    "a class that a module of networks imports": Case(
        replace(NETWORK, "_target_: quadrant_lstm.model.network.UserError"),
        "there is no class quadrant_lstm",
    ),
    "torch.hub.load behind torch.optim": Case(
        replace("_target_: torch.optim.Adam", "_target_: torch.optim.swa_utils.torch.hub.load"),
        "optimizer._target_: torch.optim.swa_utils.torch.hub.load is other code",
    ),
    "a class in a list": Case(
        replace("  eps: 1.0e-08", "  eps: 1.0e-08\n  x: [[{_target_: pathlib.Path.touch}]]"),
        "optimizer.x.0.0._target_: pathlib.Path.touch is other code",
    ),
    "a function of this project": Case(
        replace(NETWORK, "_target_: quadrant_lstm.files.write_atomically"), "write_atomically is not allowed; name a"
    ),
    "hydra's": Case(
        lambda config: config.write_text(
            config.read_text() + "hydra: {callbacks: {a: {_target_: os.system, command: touch executed}}}"
        ),
        "hydra: there is no such key",
    ),
    "a python object": Case(
        lambda config: config.write_text("model: !!python/object/apply:os.system ['touch executed']"),
        "could not determine a constructor",
    ),
    "another network": Case(replace("lstm_units: 5", "lstm_units: 6"), "best.ckpt: does not fit"),
    "a value out of range": Case(replace("dropout: 0.25", "dropout: 2"), "model.dropout: 2 is not"),
    "an unknown key": Case(replace("dropout: 0.25", "dropuot: 0.25"), "did you mean model.dropout?"),
    "an alias bomb": Case(lambda config: config.write_text(alias_bomb()), "it uses YAML aliases"),
    "deeply nested": Case(lambda config: config.write_text("model: " + "[" * 5000), "cannot be read ("),
    "an interpolation to the environment": Case(
        replace("seed: 1", "seed: ${oc.env:HOME}"), "seed: ${oc.env:HOME} does not only name keys"
    ),
    "an interpolation to one with an effect": Case(
        lambda config: config.write_text(f"a: ${{z}}\n{config.read_text()}z: ${{new_folder:executed}}"),
        "z: ${new_folder:executed} does not only name keys",
    ),
    "an interpolation to itself": Case(replace("seed: 1", "seed: ${seed}"), "Recursive interpolation"),
    "an interpolation bomb": Case(plant_interpolation_bomb, "leads to another interpolation"),
    "an interpolation to nothing": Case(replace("dropout: 0.25", "dropout: ${nothing}"), "'nothing' not found"),
}
