"""What the config of a run from somebody else may hold that is damaged, or could harm its reader."""

from collections.abc import Callable
from pathlib import Path

Change = Callable[[Path], object]  # of the config of a run of the tiny data set


class Touch:
    """Makes a file if its pickle is executed."""

    def __reduce__(self):
        return (open, ("executed", "w"))


def written(content: str) -> Change:
    return lambda config: config.write_text(content)


def replaced(old: str, new: str) -> Change:
    def change(config: Path) -> None:
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    return change


def network(target: str) -> Change:
    return replaced("_target_: quadrant_lstm.model.network.CNNLSTM", f"_target_: {target}")


# Nine levels of nine aliases, or of nine interpolations, stand for 387 million values
ALIASES = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
INTERPOLATIONS = [f"  l{n}: {[f'${{bomb.l{n - 1}}}'] * 9}" for n in range(1, 10)]

MALFORMED: dict[str, tuple[Change, str]] = {  # with a part of the line that refuses it
    "empty": (written(""), "config.yaml: is not the config of a run"),
    "no YAML": (written("model: [5"), "config.yaml: cannot be read (while parsing"),
    "a list": (written("- 1"), "config.yaml: is not the config of a run"),
    "another's": (written("model: {layers: 3}"), "data: is missing"),
    "os.system": (network("os.system"), "model._target_: os.system is other code"),
    "a class that a module of this project imports": (
        network("quadrant_lstm.data.images.Path"), "images.Path is not allowed; name"
    ),
    "a class that a module of networks imports": (
        network("quadrant_lstm.model.network.UserError"), "there is no class quadrant_lstm"
    ),
    "torch.hub.load behind torch.optim": (
        replaced("_target_: torch.optim.Adam", "_target_: torch.optim.swa_utils.torch.hub.load"),
        "optimizer._target_: torch.optim.swa_utils.torch.hub.load is other code",
    ),
    "a class in a list": (
        replaced("  eps: 1.0e-08", "  eps: 1.0e-08\n  x: [[{_target_: pathlib.Path.touch}]]"),
        "optimizer.x.0.0._target_: pathlib.Path.touch is other code",
    ),
    "hydra's": (
        replaced("seed: 1", "hydra: {callbacks: {a: {_target_: os.system, command: touch executed}}}\nseed: 1"),
        "hydra: there is no such key",
    ),
    "a python object": (
        written("model: !!python/object/apply:os.system ['touch executed']"), "could not determine a constructor"
    ),
    "another network": (replaced("lstm_units: 5", "lstm_units: 6"), "best.ckpt: does not fit run/.hydra/config.yaml"),
    "a value out of range": (replaced("dropout: 0.25", "dropout: 2"), "model.dropout: 2 is not"),
    "an unknown key": (replaced("dropout: 0.25", "dropuot: 0.25"), "did you mean model.dropout?"),
    "an alias bomb": (written("\n".join(["l0: &l0 [1]", *ALIASES, "model: *l9"])), "it uses YAML aliases"),
    "an interpolation to the environment": (
        replaced("seed: 1", "seed: ${oc.env:HOME}"), "seed: ${oc.env:HOME} does not only name keys"
    ),
    "an interpolation to one with an effect": (
        replaced("label_smoothing: 0.0", "label_smoothing: ${z}\nz: ${new_folder:executed}"),
        "z: ${new_folder:executed} does not only name keys",
    ),
    "an interpolation to itself": (replaced("seed: 1", "seed: ${seed}"), "Recursive interpolation"),
    "an interpolation bomb": (
        replaced("label_smoothing: 0.0", "\n".join(["label_smoothing: ${bomb.l9}\nbomb:\n  l0: [1]", *INTERPOLATIONS])),
        "leads to another interpolation",
    ),
    "an interpolation to nothing": (replaced("dropout: 0.25", "dropout: ${nothing}"), "'nothing' not found"),
}  # fmt: skip
