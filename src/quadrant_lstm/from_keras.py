"""Makes a run folder from the network of the question that was trained in Keras 3.

python -m quadrant_lstm.from_keras FILE.keras run=NEW       in the project's root

The folder can be given to evaluate.py, predict.py and export.py, and to train.py as init=NEW.
"""

import argparse
import os
import shlex
from pathlib import Path

from omegaconf import OmegaConf

from quadrant_lstm.callbacks.checkpoints import write_checkpoint
from quadrant_lstm.cli.arguments import check_single_values
from quadrant_lstm.cli.command import compose_config, handle_errors
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import expanded, write_atomically, write_json
from quadrant_lstm.run.build import build_classifier, build_data
from quadrant_lstm.run.exported_program import inputs_of
from quadrant_lstm.run.provenance import provenance
from quadrant_lstm.run_folder import BEST, CONFIG, PROVENANCE
from quadrant_lstm.text import say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a model, .keras")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="run=NEW, the folder to make; keys of the data")
    options = parser.parse_args()
    runs = [key.removeprefix("run=") for key in options.keys if key.startswith("run=")]
    if len(runs) != 1 or not runs[0]:
        raise UserError("run: is missing or given twice; add run=NEW, the folder to make.")
    make_run(options.file, expanded(runs[0]), [key for key in options.keys if not key.startswith("run=")])


def make_run(file: Path, folder: Path, overrides: list[str]) -> None:
    """Raises UserError if the folder is not empty, or the file is not that of such a network."""
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"run: {folder} is not an empty folder; write a new one.")
    if not file.is_file() or file.suffix != ".keras":
        reason = "is not a .keras file" if file.exists() else "does not exist"
        raise UserError(f"{file}: {reason}; give one that model.save of Keras 3 wrote.")
    check_single_values(overrides, "write one of them, or a list in brackets")
    if typed := [override for override in overrides if override.lstrip("+").startswith("model")]:
        raise UserError(f"{typed[0]}: {file} has the sizes of its network; leave it out.")
    os.environ.setdefault("KERAS_BACKEND", "torch")  # before the first import of Keras, whose default is TensorFlow
    with needs_extra(str(file), "keras"):
        from quadrant_lstm.run.keras_model import copy_checked, load_model, sizes_of_keras
    model = load_model(file)
    try:
        sizes, frame_shape, num_classes = sizes_of_keras(model)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    words = [*(f"model.{key}={value}".replace(" ", "") for key, value in sizes._asdict().items()), *overrides]
    cfg = compose_config(words)
    data = build_data(cfg)
    num_steps = model.input_shape[1]
    if (tuple(frame_shape), num_steps, num_classes) != (*data.spec[:2], data.spec.num_classes):
        of_data = f"the data have {data.spec.num_steps} of {list(data.spec.frame_shape)} and {data.spec.num_classes}"
        rule = f"reads {num_steps} frames {list(frame_shape)} of {num_classes} classes, but {of_data}"
        raise UserError(f"{file}: {rule}; add data=, data.grid= or data.orderings= as in its training.")
    classifier = build_classifier(cfg, data.spec)
    copy_checked(file, model, classifier.network, inputs_of(cfg.data, data.spec))
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())
    write_json(folder / PROVENANCE, provenance(cfg, data))
    content = {"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}
    write_checkpoint(content, folder / BEST)
    say(f"python evaluate.py {shlex.quote(f'run={folder}')} tests this network, and it is trained further by")
    say(f"python train.py {shlex.join([f'init={folder}', *words])}")


if __name__ == "__main__":
    with handle_errors():
        main()
