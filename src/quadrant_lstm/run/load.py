"""Loads the network or the weights of a run, and computes its test metrics."""

import functools
import hashlib
import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import get_class
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from quadrant_lstm import run_folder
from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.callbacks.training import Progress
from quadrant_lstm.config.check import Trust, read_config
from quadrant_lstm.config.trust import other_code
from quadrant_lstm.config.values import FREE_DATA_KEYS
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.orderings import SequenceSpec, check_cut, check_range, orderings_of, scaled
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import csv_cell, expanded, read_csv, read_json
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.encoder import Standardize
from quadrant_lstm.model.teachers import Teachers
from quadrant_lstm.processes.launch import configure_cpu
from quadrant_lstm.run.build import build_classifier, build_data, instantiate_node, quiet_lightning, resolve_precision
from quadrant_lstm.run_folder import BEST, CONFIG, LAST, PROVENANCE, TABLES, as_typed, find_run, find_weights
from quadrant_lstm.text import counted

# The data as they are now, beside those that the network was trained on


log = logging.getLogger(__name__)


def keep_num_frames(cfg: DictConfig, trained: SequenceSpec) -> DictConfig:
    """Returns the config with data.num_frames=null, the length of the longest sample, replaced by what it was when the
    network was trained.
    """
    kept = cfg.copy()
    if kept.data.get("num_frames", 0) is None:
        kept.data.num_frames = trained.num_steps
    return kept


def data_of_run(folder: Path, cfg: DictConfig, trained: SequenceSpec, places: Mapping[str, Any]) -> SequenceDataModule:
    """Returns the data of a run, or their copy at other `places`: the values of data.root and data.labels, or None."""
    cfg = cfg.copy()
    cfg.data.update({key: place for key, place in places.items() if place})
    data = build_data(cfg)
    check_same_data(data, trained, folder)
    return data


def check_same_data(data: SequenceDataModule, trained: SequenceSpec, folder: Path) -> None:
    """Raises UserError for other classes or frames than the network's, and for a sample that was trained on but is no
    longer for training. Logs a line for other files.
    """
    now, remedy = data.spec, "restore the data, or start a new run."
    both = {"classes": (now.class_names, trained.class_names), "columns": (now.feature_names, trained.feature_names)}
    for what, (names, before) in both.items():
        if names and before and names != before:
            listed = f"{', '.join(names)}, but {as_typed(folder)} was trained on {', '.join(before)}"
            raise UserError(f"data: the {what} are {listed}; {remedy}")
    if now.frame_shape != trained.frame_shape:
        one, other = (" x ".join(map(str, spec.frame_shape)) for spec in (now, trained))
        raise UserError(f"data: frames are {one}, but {as_typed(folder)} was trained on {other}; {remedy}")
    rows = read_csv(folder / TABLES[data.kind])
    known = {(row["path"], row["sha256"]) for row in rows}
    of_training = {row[key] for row in rows if row["split"] == "training" for key in ("path", "sha256")}
    contents = {row["path"]: row["sha256"] for row in rows if row["split"] == "training"}
    for row in data.table:
        path = csv_cell(row["path"])
        if data.is_cut and contents.get(path, row["sha256"]) != row["sha256"]:
            raise UserError(f"data: {path} has changed, so that its end for the test begins elsewhere; {remedy}")
        is_new = (path, row["sha256"]) not in known  # else it may be a copy that was there before
        if row["split"] != "training" and (path in of_training or (is_new and row["sha256"] in of_training)):
            raise UserError(f"data: {path} is for {row['split']}, but {as_typed(folder)} was trained on it; {remedy}")
    if data.skipped:
        log.info(f"data: left out {counted(len(data.skipped), data.kind)}, such as {data.skipped[0]}")
    since = f"since {as_typed(folder)} was trained"
    if rows:
        recorded_rows, rows_now = (
            {tuple(map(csv_cell, row.values())) for row in table} for table in (rows, data.table)
        )
        if changed := sorted({path for path, *_ in recorded_rows ^ rows_now}):
            log.info(f"data: {counted(len(changed), data.kind)} changed, came or went {since}, such as {changed[0]}")
        return
    recorded = read_json(folder / PROVENANCE).get("data", {}).get("sha256")
    if recorded and recorded != data.sha256():
        log.info(f"data: the files have changed {since}, so that samples may have moved from training to test")


# The network


def load_run(path: str | Path, trust: Trust = ()) -> tuple[nn.Module, DictConfig]:
    """Returns the network of a run's best epoch, on the CPU and in eval mode, and the run's config; `latest` is the
    newest run below outputs/.

        network, cfg = load_run("outputs/2026-11-24/23-59-05")
        with torch.inference_mode():
            logits = network(sequences(images, cfg.data.orderings, cfg.data.grid))

    A network that was trained with data.train_orderings reads one of those instead of data.orderings.

    Images and clips are uint8, or floats from 0 to 1; series are floats. The network, and logits_per_step of a network
    of this project, raise ValueError for others, for other axes, and for frames that are not cut from images if the
    network encodes each piece only once: `network.in_full()` reads them.

    `trust` are modules of other code that the config may name, such as ["my_module"]; they are imported.

    Sets glibc's allocator and torch's number of threads as training does (processes/launch.py). Raises UserError if
    the folder contains no run, or none of its epochs has finished.
    """
    classifier, cfg = load_classifier(find_run(str(path), BEST), trust)
    network = classifier.network.eval()
    steps = classifier.spec.num_steps if "grid" in cfg.data else "steps"  # of clips and series, which may have fewer
    name = next(iter(inspect.signature(network.forward).parameters))
    orderings = orderings_of(cfg.data.orderings, tuple(cfg.data.grid)) if "grid" in cfg.data else []
    checked = functools.partial(checked_inputs, name, (steps, *classifier.spec.frame_shape), orderings)
    network.register_forward_pre_hook(checked, with_kwargs=True)
    return network, cfg


def checked_inputs(
    name: str,
    sizes: tuple[Any, ...],
    orderings: Orderings,
    network: Any,
    inputs: tuple[Any, ...],
    named: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Scales and checks the frames: the first argument of the network, or the one with its name."""
    given, *others = inputs or (named.pop(name),)
    frames = checked_frames(given, sizes, next(network.parameters()).dtype)
    if getattr(network, "needs_orderings", False) and not torch.compiler.is_compiling():
        check_cut(frames, orderings)
    return (frames, *others), named


def checked_frames(frames: Any, sizes: tuple[Any, ...], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Scales frames of uint8. Raises ValueError for frames of other sizes, and for pixels that are floats outside [0,
    1].
    """
    if not isinstance(frames, Tensor):
        raise ValueError(f"frames are a {type(frames).__name__}; give a tensor, e.g. torch.as_tensor(frames).")
    pairs = zip(sizes, frames.shape[1:], strict=False)
    if frames.dim() != len(sizes) + 1 or not all(size in (given, "steps") for size, given in pairs):
        rule = f"but this network reads [batch, {', '.join(map(str, sizes))}]"
        remedy = "give series of these sizes"
        if len(sizes) == 4:
            remedy = (
                "cut images with sequences(images, cfg.data.orderings, cfg.data.grid), or give clips of these sizes"
            )
        raise ValueError(f"frames are {list(frames.shape)}, {rule}; {remedy}.")
    if len(sizes) == 4 and frames.dtype == torch.uint8:
        return scaled(frames, dtype)
    if not frames.is_floating_point():
        remedy = "give uint8, or floats from 0 to 1" if len(sizes) == 4 else "give floats, such as frames.float()"
        raise ValueError(f"frames are {frames.dtype}; {remedy}.")
    if len(sizes) == 4 and not torch.compiler.is_compiling():  # pixels
        check_range(frames)
    return frames.to(dtype)  # numpy's floats are float64


def load_classifier(folder: Path, trust: Trust = ()) -> tuple[Classifier, DictConfig]:
    configure_cpu()
    cfg = read_config(folder / CONFIG, trust)
    checkpoint = read_checkpoint(folder / BEST)
    try:
        cfg = keep_num_frames(cfg, spec := stored_spec(checkpoint["hyper_parameters"]))
        classifier = build_classifier(cfg, spec, trained=True)
        classifier.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{folder / BEST}: does not fit {folder / CONFIG} ({error}); restore one of them.") from error
    return classifier, cfg


class Resumed(NamedTuple):
    """What last.ckpt tells of the run that resumes."""

    spec: SequenceSpec  # for which the network was made
    epochs: int
    global_step: int


def read_resumed(folder: Path) -> Resumed | None:
    """Returns None for a new run."""
    if not (folder / LAST).exists():
        return None
    last = read_checkpoint(folder / LAST)
    return Resumed(stored_spec(last["hyper_parameters"]), last["epoch"] + 1, last["global_step"])


def stored_spec(stored: dict[str, Any]) -> SequenceSpec:
    names = stored["class_names"], stored.get("feature_names", ())
    return SequenceSpec(tuple(stored["frame_shape"]), stored["num_steps"], *map(tuple, names))


# Weights of another run, as far as names and shapes match


PREFIX = "network."  # of the names in a checkpoint
FAR = 3  # deviations, and their ratio, from which on statistics are those of other units
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}  # float8 needs scales, which are not in the file


def check_init(data: SequenceDataModule, init: str, root: str | None = None) -> None:
    """Raises UserError for a sample of the validation or the test that the network of `init=` was trained on. `root` is
    `data.root`.
    """
    if leak := leak_of_init(data, init, root):
        remedy = "write the values of `data` that divided its samples, such as its fold"
        raise UserError(f"init: {leak}; {remedy}, or, if new samples have moved others, the splits in data.labels.")


def leak_of_init(data: SequenceDataModule, init: str, root: str | None) -> str | None:
    folder = find_weights(init).absolute().parent  # the run's, or its folder of checkpoints
    folder = folder.parent if folder.name == BEST.parent.name else folder
    rows = read_csv(folder / TABLES[data.kind])  # none, if `init` is no run on files
    recorded = read_json(folder / PROVENANCE).get("data", {})
    if data.table and not recorded:
        log.info(f"init: {init} is in no run folder, so it is not known which samples it was trained on")
    others = {row["sha256"] for row in rows if row["split"] != "training"}  # copies, of which the run has warned
    trained = {row["sha256"] for row in rows} - others
    wholes = {row["path"]: row["sha256"] for row in rows if row["split"] == "training" and recorded.get("root") == root}
    for row in data.table:
        path, now = csv_cell(row["path"]), row["sha256"]
        if row["split"] != "training" and now in trained:
            return f"{path} is for {row['split']} now, but {as_typed(folder)} was trained on it"
        elif data.is_cut and wholes.get(path, now) != now:
            return f"the end of {path} is for the test now, but {as_typed(folder)} was trained on another part of it"
    if not data.table and len(data.validation_indices) and recorded.get("sha256") == data.sha256():
        before = read_checkpoint(folder / BEST).get(type(data).__qualname__) if (folder / BEST).exists() else None
        if before and before != data.state_dict():
            return f"{as_typed(folder)} was trained on images that are for validation now"
    return None


def copy_weights(network: nn.Module, init: str, columns: Sequence[str] = (), classes: Sequence[str] = ()) -> None:
    """Logs which weights have no counterpart, and warns of other classes, and of series that the statistics in the file
    do not fit. Raises UserError for a damaged file, for weights of another type or that are not finite, for those of a
    network that reads these columns of series in another order, and if no weight fits.
    """
    file = find_weights(init)
    (weights, known, known_classes), own = read_weights(file), network.state_dict()
    if known_classes and classes and known_classes != tuple(classes) and len(known_classes) == len(classes):
        rule = f"init: {file} tells {', '.join(known_classes)}, but the classes here are {', '.join(classes)}"
        log.warning(f"{rule}; its last layer is copied in this order")
    if known and columns and known != tuple(columns):
        rule = f"init: {file} reads {', '.join(known)}, but the columns of these series are {', '.join(columns)}"
        if sorted(known) == sorted(columns):
            raise UserError(f"{rule}; write them in the same order.")
        log.warning(f"{rule}; they are standardized as the former were, if there are as many")
    fitting = {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}
    if not fitting:
        raise UserError(f"init: {file} has no weight whose name and shape this network has; choose its model.")
    for name, weight in fitting.items():
        types = {weight.dtype, own[name].dtype}
        in_file, in_network = (str(kind).removeprefix("torch.") for kind in (weight.dtype, own[name].dtype))
        if len(types) > 1 and not types <= FLOATS:
            problem = f"is {in_file}, but {in_network} in this network; save it in that type"
        elif not weight.to(own[name].dtype).isfinite().all():
            problem = f"has values that are NaN, infinite or too large for {in_network}; give those of an earlier epoch"
        else:
            continue
        raise UserError(f"init: {file}: {name} {problem}.")
    standardizing = [layer for layer in network.modules() if isinstance(layer, Standardize)]
    of_data = [(layer.mean.flatten().clone(), layer.deviation.flatten().clone()) for layer in standardizing]
    network.load_state_dict(fitting, strict=False)
    for layer, statistics in zip(standardizing, of_data, strict=True):
        warn_of_other_units(statistics, (layer.mean.flatten(), layer.deviation.flatten()), file)
    log.info(f"init: copied {len(fitting)} of {len(own)} tensors from {file}")
    for name in (name for name in own if name not in fitting):
        reason = f"the file has {list(weights[name].shape)}" if name in weights else "the file has none"
        log.info(f"init: {name} {list(own[name].shape)} keeps its initial values; {reason}")
    for name in (name for name in weights if name not in own):
        log.info(f"init: {name} {list(weights[name].shape)} of the file is not in this network")


def warn_of_other_units(here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor], file: Path) -> None:
    """`here` are the mean and the deviation of each feature in the data, and `there` those in the file."""
    (mean, deviation), (known_mean, known_deviation) = here, there
    ratios = known_deviation / deviation
    is_far = ((known_mean - mean).abs() > FAR * deviation) | (ratios > FAR) | (ratios < 1 / FAR)
    if is_far.any():
        feature = int(is_far.nonzero()[0])
        one, other = (
            f"{mean[feature]:g} and the deviation {deviation[feature]:g}" for mean, deviation in (here, there)
        )
        rule = f"of feature {feature + 1}, the mean is {one} here, but {other} in {file}, by which it is standardized"
        log.warning(f"init: {rule}; if the units differ, convert them or leave init out")


def read_weights(file: Path) -> tuple[Mapping[str, Tensor], Sequence[str], Sequence[str]]:
    """Returns the weights by their names, and the names of the columns of series that the network reads, and of its
    classes, if known.
    """
    if file.suffix != ".safetensors":
        checkpoint = read_checkpoint(file)
        named = ((name, weight) for name, weight in checkpoint["state_dict"].items() if name.startswith(PREFIX))
        spec = stored_spec(checkpoint["hyper_parameters"])
        return {name.removeprefix(PREFIX): weight for name, weight in named}, spec.feature_names, spec.class_names
    with needs_extra(f"init={file}", "export"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            reading, classes = (json.loads(metadata.get(key, "{}")) for key in ("reading", "class_names"))
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dict
        return weights, tuple(reading.get("feature_names", ())), tuple(classes)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise UserError(f"init: {file} cannot be read ({error}); export it again.") from error


# Networks that another one learns from


def load_teachers(cfg: DictConfig, data: SequenceDataModule) -> Teachers:
    """Loads the networks that `teacher` names. Their configs may name the modules of other code that this run's model
    names.

    Raises UserError for a network that was trained on other data, or on samples that this run does not train on.
    """
    folders, networks = run_folder.find_teachers(cfg.teacher), []
    named = other_code({"model": OmegaConf.to_container(cfg.model)}).values()
    trust = [target.rpartition(".")[0] for target in named]  # not torch.nn, which stands for all that it imports
    here, sha256 = data_values(keep_num_frames(cfg, data.spec)), data.sha256()
    for folder in folders:
        classifier, own = load_classifier(folder, trust)
        there = data_values(own)
        for key in (key for key in here | there if key not in FREE_DATA_KEYS):
            if here.get(key) != there.get(key):
                one, other = (as_yaml(values.get(key)) for values in (here, there))
                rule = f"{one}, but the teacher {as_typed(folder)} was trained with {other}"
                raise UserError(f"data.{key}: {rule}; write the same value, or choose another teacher.")
        if not (recorded := read_json(folder / PROVENANCE).get("data", {}).get("sha256")):
            rule = f"{as_typed(folder / PROVENANCE)} does not tell which files it was trained on"
            raise UserError(f"teacher: {rule}; restore it, or choose another teacher.")
        if recorded != sha256:
            raise UserError(f"teacher: {as_typed(folder)} was trained on other files; train it again on these.")
        networks.append(classifier.network)
    checksum = hashlib.sha256(b"".join((folder / BEST).read_bytes() for folder in folders)).hexdigest()
    log.info(f"teacher: {counted(len(networks), 'network')} of {as_typed(expanded(cfg.teacher))}")
    return Teachers(networks, cfg.teacher_weight, cfg.temperature, checksum)


def data_values(cfg: DictConfig) -> dict[str, Any]:
    """Returns the values of the keys of `data`, and the defaults of those that the config leaves out."""
    values: Any = OmegaConf.to_container(cfg.data, resolve=True)
    parameters = inspect.signature(get_class(cfg.data._target_)).parameters.values()
    return values | {each.name: each.default for each in parameters if each.name not in values}


def as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# Test metrics


def evaluate(folder: Path, accelerator: str, trust: Trust = (), places: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Logs the test metrics and returns them by name. `places` are those that `data_of_run` takes."""
    classifier, _ = run_test(folder, accelerator, trust, places)
    results = classifier.test_results()
    log.info(f"{'run':22}  {folder}")
    for name, value in results.items():
        log.info(f"{name:22}  {value}")
    return results


def run_test(
    folder: Path, accelerator: str, trust: Trust = (), places: Mapping[str, Any] = {}
) -> tuple[Classifier, SequenceDataModule]:
    """Tests the best checkpoint. The returned Classifier holds the logits and labels of the test images."""
    quiet_lightning()
    classifier, cfg = load_classifier(folder, trust)
    trainer = instantiate_node(
        "accelerator", {"_target_": "lightning.pytorch.Trainer"}, accelerator=accelerator, devices=1,
        precision=resolve_precision(cfg.trainer.precision, accelerator), logger=False, callbacks=[Progress()],
        limit_test_batches=cfg.trainer.get("limit_test_batches"), enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    data = data_of_run(folder, cfg, classifier.spec, places)
    trainer.test(classifier, datamodule=data, verbose=False)
    return classifier, data
