"""Makes a run folder from the network of the question that was trained in Keras 3.

python -m quadrant_lstm.from_keras FILE run=NEW       in the project's root; FILE is .keras, or .weights.h5

A file of weights has no settings: type those that are not the question's, such as model.lstm_units=64. It must be that
of a model with the channels last. The folder can be given to evaluate.py, predict.py and export.py, and to train.py as
init=NEW.
"""

import argparse
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import nn

from quadrant_lstm.callbacks.checkpoints import write_checkpoint
from quadrant_lstm.cli.arguments import check_single_values
from quadrant_lstm.cli.command import check_project_root, compose_config, handle_errors
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.image_files import natural
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import expanded, write_atomically, write_json
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.run.build import build_classifier, build_data
from quadrant_lstm.run.program import Inputs, inputs_of
from quadrant_lstm.run.records import provenance
from quadrant_lstm.run_folder import BEST, CONFIG, PROVENANCE
from quadrant_lstm.text import say

QUESTION, LSTM = "quadrant_lstm.model.network.CNNLSTM", "quadrant_lstm.model.rnn.LSTM"
TOLERANCE = 1e-4  # maximum difference of an output between the models; both compute in fp32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a model, .keras, or its weights, .weights.h5")
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="run=NEW, the folder to make; keys of the network"
    )
    options = parser.parse_args()
    if options.file.name.startswith("run=") and not options.file.exists():
        raise UserError("FILE: is missing; write the .keras or .weights.h5 file before the keys.")
    runs = [word.partition("=")[2] for word in options.words if word.startswith("run=")]
    if len(runs) > 1:
        raise UserError(f"run: {' and '.join(runs)} are several folders; write one of them.")
    if runs in ([], [""]):
        raise UserError("run: is missing; add run=NEW, the folder to make.")
    make_run(options.file, expanded(runs[0]), [word for word in options.words if not word.startswith("run=")])


def make_run(file: Path, folder: Path, overrides: list[str]) -> None:
    """Raises UserError if the folder is not empty, or the file is not that of such a network."""
    check_project_root("from_keras")
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"run: {folder} is not an empty folder; write a new one.")
    if not file.is_file() or not file.name.endswith((".keras", ".weights.h5")):
        wrong = "is a folder" if file.is_dir() else "does not end in .keras or .weights.h5"
        reason = wrong if file.exists() else "does not exist"
        raise UserError(f"{file}: {reason}; give a .keras or .weights.h5 file that Keras 3 saved.")
    check_single_values(overrides, "write one of them, or a list in brackets")
    with needs_extra(str(file), "keras"):
        import quadrant_lstm.run.keras_model  # noqa: F401  # chooses Keras's backend and imports Keras
    model, cfg, data = (open_model if file.suffix == ".keras" else open_weights)(file, overrides)
    classifier = build_classifier(cfg, data.spec)
    copy_from_keras(file, model, classifier.network, inputs_of(cfg.data, data.spec))
    write_run(folder, cfg, data, classifier)
    if file.suffix == ".h5":
        say(f"{file}: holds no settings of the layers; they are taken to be the question's, with the channels last")
    say(f"{folder}: python evaluate.py run={folder} tests it, python train.py init={folder} trains it further")


def open_model(file: Path, overrides: list[str]) -> tuple[Any, DictConfig, SequenceDataModule]:
    """Returns the Keras model of a .keras file, and a config and data that have its sizes."""
    from quadrant_lstm.run.keras_model import sizes_of_keras

    if typed := [word for word in overrides if word.lstrip("+").startswith("model")]:
        raise UserError(f"{typed[0]}: {file} has the sizes of its network; leave it out.")
    model = load_model(file)
    try:
        sizes, frame_shape, num_classes = sizes_of_keras(model)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    cfg = compose_config([*(f"model.{key}={value}" for key, value in sizes._asdict().items()), *overrides])
    data = build_data(cfg)
    num_steps = model.input_shape[1]
    if (tuple(frame_shape), num_steps, num_classes) != (*data.spec[:2], data.spec.num_classes):
        raise UserError(
            f"{file}: reads {num_steps} frames {list(frame_shape)} of {num_classes} classes, but "
            f"the data have {data.spec.num_steps} of {list(data.spec.frame_shape)} and {data.spec.num_classes}; "
            "add data=, data.grid= or data.orderings= as in its training."
        )
    return model, cfg, data


def open_weights(file: Path, overrides: list[str]) -> tuple[Any, DictConfig, SequenceDataModule]:
    """Returns a Keras model with the sizes of the config and the weights of a .weights.h5 file, the config and data."""
    from quadrant_lstm.run.keras_model import KerasSizes, build_keras_model, sizes_of_weights

    cfg = compose_config(overrides)
    if not (cfg.model._target_ == QUESTION and OmegaConf.select(cfg, "model.recurrent._target_") == LSTM):
        raise UserError(f"{file}: only the network of the question can be read; leave out model= and model/recurrent=.")
    weights = read_weights(file)
    try:
        in_order, sizes = sizes_of_weights(weights)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    wrong = {key: size for key, size in sizes.items() if cfg.model[key] != size}
    if wrong:
        words = " ".join(f"model.{key}={size}".replace(" ", "") for key, size in wrong.items())
        raise UserError(f"{file}: does not fit the network; give its sizes: {words}.")
    data = build_data(cfg)
    model = build_keras_model(KerasSizes(**{key: cfg.model[key] for key in KerasSizes._fields}), data.spec)
    for found, needed in zip(in_order, model.get_weights(), strict=True):
        if found.shape != needed.shape:  # of the convolution's channels, the features of a step, or the classes
            raise UserError(
                f"{file}: has a weight {list(found.shape)} where the network has {list(needed.shape)}; add data=, "
                "data.grid=, data.orderings= or model.pool_size= as in its training."
            )
    model.set_weights(in_order)
    return model, cfg, data


def copy_from_keras(file: Path, model: Any, network: nn.Module, inputs: Inputs) -> None:
    """Copies the weights of a Keras model. Raises UserError if the network does not compute what the model does."""
    from quadrant_lstm.run.keras_model import largest_difference, state_of_keras

    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise UserError(f"{file}: has weights that are NaN or infinite; save the model of an earlier epoch.")
    try:
        network.load_state_dict(state_of_keras(model))
        difference = largest_difference(model, network.eval(), inputs)
    except RuntimeError:  # weights of other shapes
        difference = float("inf")
    if not difference <= TOLERANCE:  # also NaN
        raise UserError(
            f"{file}: does not compute what the network of the question with the same layers does; connect its layers "
            "one after another, each once."
        )


def load_model(file: Path) -> Any:
    """Keras refuses code in the file: safe_mode is its default."""
    import keras

    from quadrant_lstm.run.keras_model import inner_layers

    if not is_zipfile(file):
        raise UserError(f"{file}: is damaged, or not a .keras file of Keras 3; save it with model.save again.")
    try:
        model = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises errors of many types
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{file}: cannot be read as a Keras model ({reason}); save a model of Keras's own layers with model.save."
        ) from error
    for layer in (*model.layers, *inner_layers(model)):
        layer.dtype_policy = "float32"  # not in half precision, which would differ from the network
    return model


def read_weights(file: Path) -> list[list[np.ndarray]]:
    """Returns the weights of each layer that has any; of equal layers, those of the earlier come first."""
    import h5py

    found: dict[str, list[np.ndarray]] = {}

    def add(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:  # which are in other files
            found.setdefault(path.rpartition("/")[0], []).append(item[()])

    try:
        with h5py.File(file) as opened:
            opened["layers"].visititems(add)
    except (OSError, KeyError, AttributeError) as error:  # the last one if it is no group
        raise UserError(
            f"{file}: cannot be read as weights of Keras 3 ({error}); save them with model.save_weights again."
        ) from error
    return [found[path] for path in sorted(found, key=natural)]  # conv2d_10 comes after conv2d_9


def write_run(folder: Path, cfg: DictConfig, data: Any, classifier: Classifier) -> None:
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())
    write_json(folder / PROVENANCE, provenance(cfg, data))
    content = {"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}
    write_checkpoint(content, folder / BEST)


if __name__ == "__main__":
    with handle_errors():
        main()
