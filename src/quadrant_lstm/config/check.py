"""Checks a config: its keys and values, its classes and their arguments. Reads the config of a run folder.

The annotations of a constructor's arguments say what the keys of its node may hold (kinds.py); conf/ has the values.
Raises UserError that names the key. Imports no torch before it imports the classes.
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from quadrant_lstm import kinds
from quadrant_lstm.config.trust import OWN, TARGETS, check_download, check_trust
from quadrant_lstm.config.values import differing_values, nodes_with_target, resolve_interpolations
from quadrant_lstm.errors import UserError, place_in_own_code, printable, with_type
from quadrant_lstm.files import read_yaml
from quadrant_lstm.run_folder import BEST, CONFIG, as_typed, find_run, unfinished
from quadrant_lstm.signals import importing
from quadrant_lstm.text import assigned

Kinds = Mapping[str, Any]
GROUPS = ("data", "model", "optimizer", "schedule", "trainer")
ROOT: Kinds = {
    "seed": kinds.Natural,
    "label_smoothing": kinds.BelowOne,
    "class_weights": Literal["balanced"] | None,
    "keep": kinds.Keep,
    "monitor": kinds.Monitor,
    "init": str | None,
    "teacher": str | None,
    "teacher_weight": kinds.Fraction,
    "temperature": kinds.Temperature,
    "run": str | None,
    "swept": list[str] | None,
}
OF_TEACHER = ("teacher_weight", "temperature")  # which need a teacher, and which a teacher needs
REQUIRED = ("trainer.max_epochs", "trainer.precision", "trainer.callbacks.checkpoints")

# The arguments of torch's and Lightning's classes that a run restricts more than their annotations do.
LIBRARIES: Mapping[str, Kinds] = {
    "optimizer": {
        "lr": kinds.Positive,
        "betas": kinds.Betas,
        "eps": kinds.Positive,
        "momentum": kinds.BelowOne,
        "weight_decay": kinds.NonNegative,
    },
    "schedule": {
        "factor": kinds.Fraction,
        "gamma": kinds.Positive,
        "eta_min": kinds.NonNegative,
        "max_lr": kinds.Positive,
        "pct_start": kinds.BelowOne,
        "div_factor": kinds.Positive,
        "final_div_factor": kinds.Positive,
    },
    "trainer": {
        "accelerator": kinds.Accelerator,
        "devices": kinds.Count | Literal["auto", -1] | list[kinds.Natural],
        "num_nodes": kinds.Count,
        "strategy": kinds.Strategy | kinds.Node,
        "precision": kinds.Precision,
        "max_epochs": kinds.Count,
        "gradient_clip_val": kinds.NonNegative | None,
        "limit_train_batches": kinds.Count | kinds.Fraction | None,
        "limit_val_batches": kinds.Count | kinds.Fraction | None,
        "limit_test_batches": kinds.Count | kinds.Fraction | None,
        "log_every_n_steps": kinds.Count,
        "logger": kinds.Node | None | Annotated[Literal[False], "false"],
        "logger.*": kinds.Node,
        "profiler": kinds.Node | str | None,
        "callbacks": kinds.Node,
        "callbacks.*": kinds.Node,
        "plugins": Annotated[None, "null, because a run needs its own plugin; leave it out"],
        "default_root_dir": Annotated[None, "null; use hydra.run.dir instead"],
        "val_check_interval": Annotated[Literal[1], "1, for validation at the end of every epoch; leave it out"],
        "max_steps": Annotated[Literal[-1], "-1, because runs end after an epoch; use trainer.max_epochs instead"],
        "check_val_every_n_epoch": Annotated[Literal[1], "1, for validation in every epoch; leave it out"],
        "enable_checkpointing": Annotated[Literal[True] | None, "true, because a run needs them; leave it out"],
        "fast_dev_run": Annotated[Literal[False], "false; use trainer=smoke instead"],
        "overfit_batches": kinds.Natural | kinds.Fraction,
    },
}
READ_BY_NETWORK: Mapping[str, Kinds] = {"model.recurrent": {"units": kinds.Count | None}}  # not by the node's class
LIBRARY_PACKAGES = ("torch.", "torchvision.", "lightning.")
GIVEN_BY_CODE = {
    "model": ("frame_shape", "num_classes", "num_steps", "orderings", "grid"),
    "model.": ("in_channels", "input_size", "num_units", "num_channels", "hidden_channels", "num_steps"),  # its parts
    "optimizer": ("params",),
    "schedule": ("optimizer", "total_steps", "T_max"),
}  # fmt: skip


SHARES_BESIDE = {  # keys of `data` without an effect beside one that chooses the same samples
    "fold": ("validation_share", "validation_images"),
    "test_fold": ("test_share",),
    "test_end": ("test_share",),
}


UNFIT_CALLBACKS = {  # of Lightning
    "StochasticWeightAveraging": "averages the weights after the last checkpoint is written; leave it out, and write "
    "trainer.callbacks.ema.decay=0.999",
    "BatchSizeFinder": "trains with another batch size than the config records; leave it out, and write "
    "data.batch_size",
    "LearningRateFinder": "cannot set optimizer.lr; leave it out, and sweep over optimizer.lr",
    "BackboneFinetuning": "does not find the encoder; leave it out, and write model.encoder.frozen=EPOCHS",
}


def check_config(cfg: DictConfig) -> None:
    """Checks a config that train.py composed."""
    check_values(cfg)
    for name, callback in cfg.trainer.callbacks.items():
        package, _, kind = str(callback.get("_target_")).rpartition(".")
        if package.startswith("lightning.") and (rule := UNFIT_CALLBACKS.get(kind)):
            raise UserError(f"trainer.callbacks.{name}: {kind} {rule}.")
    if isinstance(profiler := cfg.trainer.get("profiler"), str):
        raise UserError(f"trainer.profiler: {profiler} is no group of keys; write trainer/profiler=simple or pytorch.")
    check_validation(cfg)


def check_effect(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Raises UserError for an override that has no effect beside the other values."""
    typed, reasons = assigned(overrides), dict[str, str]()
    if not cfg.get("teacher"):
        reasons |= dict.fromkeys(OF_TEACHER, "there is no teacher; add teacher=FOLDER")
    recurrent = cfg.model.get("recurrent")
    if isinstance(recurrent, DictConfig) and (units := recurrent.get("units")) is not None:
        reasons["model.lstm_units"] = f"model.recurrent.units={units} sets the units; write that key"
    if cfg.data.get("fold") is None and cfg.data.get("test_fold") is None:
        reasons["data.num_folds"] = "there is no fold; add data.fold=N"
    for key, shares in SHARES_BESIDE.items():
        if (value := cfg.data.get(key)) is not None:
            rule = f"data.{key}={value} says which samples these are; write data.{key}=null"
            reasons |= dict.fromkeys([f"data.{share}" for share in shares], rule)
    for key in (key for key in reasons if key in typed):
        raise UserError(f"{key}: {typed[key]}, but {reasons[key]}, or leave it out.")


def check_values(cfg: DictConfig, trust: Sequence[str] | None = None) -> None:
    """Checks keys and values. `trust` is None for a config that was typed or is in conf/, which may name any class. Of
    that of a run folder, classes of torch, Lightning and other code are imported for data and model only.
    """
    config = resolve_interpolations(cfg, trusted=trust is None)
    check_keys(config, ROOT, GROUPS)
    for group in GROUPS:
        if not isinstance(config.get(group), dict) or "_target_" not in config[group]:
            raise UserError(f"{group}: is missing; choose a file of conf/{group}/ with {group}=NAME.")
    for path, node in nodes_with_target(config):
        check_value(f"{path}._target_", target := node["_target_"], str)
        allowed = TARGETS[path.partition(".")[0]]
        if (target.startswith(OWN) or path == "data") and not target.startswith(allowed):
            raise UserError(f"{path}._target_: {target} is not allowed; name a class of {'*, '.join(allowed)}*.")
    if trust is not None:
        check_trust(config, trust)
        check_download(config, trust)
    for path, node in nodes_with_target(config):
        check_node(path, node, trust is None or path.startswith(("data", "model")))
    for key in [*REQUIRED, *(OF_TEACHER if config.get("teacher") else ())]:
        if OmegaConf.select(cfg, key) is None:
            raise missing_key(key)
    check_precision(config)
    used = config["trainer"]["callbacks"]["checkpoints"].get("monitor", "val/accuracy")
    if (monitor := config.get("monitor", used)) != used:
        rule = f"but trainer.callbacks.checkpoints.monitor is {used}; write the same metric"
        raise UserError(f"monitor: {monitor}, {rule}.")


def check_precision(config: Mapping[str, Any]) -> None:
    """Raises UserError if an average of the weights or gradient clipping cannot work, perhaps at this precision."""
    trainer, precision = config["trainer"], config["trainer"]["precision"]
    average = trainer.get("callbacks", {}).get("ema", {}).get("decay")
    if average is not None and precision in ("bf16-true", "16-true"):
        rule = f"{average} needs finer steps than trainer.precision={precision} has"
        raise UserError(f"trainer.callbacks.ema.decay: {rule}; write bf16-mixed, or ema.decay=null.")
    clip = trainer.get("gradient_clip_val")
    if clip and config["optimizer"].get("fused") and (precision == "auto" or precision.endswith("-mixed")):
        rule = f"{clip} cannot be combined with a fused optimizer at trainer.precision={precision}"
        raise UserError(f"trainer.gradient_clip_val: {rule}; add optimizer.fused=false.")


def check_validation(cfg: DictConfig) -> None:
    key = "validation_share" if "validation_share" in cfg.data else "validation_images"
    if cfg.data[key] != 0 or cfg.data.fold is not None:
        return
    for name, callback in cfg.trainer.callbacks.items():
        if name != "checkpoints" and str(monitor := callback.get("monitor")).startswith("val/"):
            needs = f"trainer.callbacks.{name}.monitor={monitor} needs validation samples"
            raise UserError(f"data.{key}: 0, but {needs}; hold some out, or monitor train/loss.")
    kind = "search" if "pruning" in cfg.trainer.callbacks else "sweep"
    if compared := [swept for swept in cfg.get("swept") or () if swept not in ("seed", "data.test_fold")]:
        needs = f"a {kind} over {', '.join(compared)} ranks its jobs by {cfg.get('monitor', 'val/accuracy')}"
        raise UserError(f"data.{key}: 0, but {needs}; hold some samples out, or sweep only the seed.")


# Values


def check_keys(config: Mapping[str, Any], kinds: Mapping[str, Any], groups: Iterable[str] = ()) -> None:
    for key, value in config.items():
        if key in kinds:
            check_value(key, value, kinds[key])
        elif key not in groups:
            raise unknown_key(key, [*kinds, *groups])


def check_value(key: str, value: Any, kind: Any) -> None:
    if value == "???":
        raise missing_key(key)
    if value == "":
        raise UserError(f"{key}: is empty; give a value, or leave it out.")
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        typed = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
        rule = kinds.in_words(kind)  # some rules name the remedy
        known = map(str, get_args(kind)) if get_origin(kind) is Literal else ()
        similar = difflib.get_close_matches(str(value), known, n=1)
        remedy = f"; did you mean {similar[0]}?" if similar else "." if ";" in rule else "; choose another value."
        if str in (kind, *get_args(kind)) and isinstance(value, int | float):
            remedy = f"; write \"{key}='VALUE'\" for a text."
        raise UserError(f"{key}: {typed} is not {rule}{remedy}") from None


def missing_key(key: str) -> UserError:
    return UserError(f"{key}: is missing; add {key}=VALUE, or leave out the ~ override that removes it.")


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """`known` are the keys beside it, and those of groups beside it: optimizer.lr is suggested for lr."""
    prefix, dot, name = key.rpartition(".")
    known = dict.fromkeys(other for other in known if not other.startswith("_") and "._" not in other)
    siblings = [other for other in known if "." not in other]
    similar = difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)
    similar = similar or [other for other in known if other.endswith(f".{name}")]
    if similar:
        return UserError(f"{key}: there is no such key; did you mean {prefix}{dot}{similar[0]}?")
    listed = ", ".join(f"{prefix}{dot}{other}" for other in siblings)
    return UserError(f"{key}: there is no such key; known keys: {listed}.")


# Classes and their arguments


def check_node(path: str, node: Mapping[str, Any], is_imported: bool) -> None:
    """Compares the arguments in a node with the constructor of its class."""
    target, rules = node["_target_"], dict(READ_BY_NETWORK.get(path, {}))
    if target.startswith(OWN) or is_imported:
        found: Any = find_class(f"{path}._target_", target)
        if path == "schedule" and hasattr(found, "step") and takes(found.step, "metrics"):  # ReduceLROnPlateau
            raise UserError(f"{path}._target_: {target} needs a metric, which no run gives it; name another class.")
        parameters = inspect.signature(found).parameters
        check_arguments(path, node, parameters, others=rules)
        rules = {name: kind_of(parameter.annotation, target) for name, parameter in parameters.items()} | rules
    if target.startswith(LIBRARY_PACKAGES):
        rules |= LIBRARIES.get(path, {})
    for name, value in node.items():
        if name in rules and (value != "" or path in LIBRARIES or target.startswith(OWN)):  # others may take it
            if rules[name] == kinds.Factory and isinstance(value, str):
                raise UserError(f"{path}.{name}: {value} is a choice of a group; write {path}/{name}={value}.")
            check_value(f"{path}.{name}", value, rules[name])
        if f"{name}.*" in rules and isinstance(value, dict):
            for child, content in value.items():
                check_value(f"{path}.{name}.{child}", content, rules[f"{name}.*"])


def kind_of(hint: Any, target: str) -> Any:
    """Returns what a config holds for an argument with this annotation. An object or a function, which a class of this
    project takes, has a node; anything may stand for one of other code.
    """
    if is_value(hint):
        return hint
    if hint in (Any, inspect.Parameter.empty) or not target.startswith(OWN):
        return Any
    return kinds.Factory if get_origin(hint) is Callable else kinds.Node


def is_value(hint: Any) -> bool:
    """Tells whether YAML has values of this type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return is_value(arguments[0])
    if origin in (Union, UnionType, list, Sequence):
        return all(map(is_value, arguments))
    return origin is Literal or hint in (int, float, bool, str, type(None))


def check_arguments(
    path: str, node: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], others: Iterable[str]
) -> None:
    """Raises UserError for a key that is neither an argument nor one of `others`, and for a missing argument."""
    target = node["_target_"]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    given = GIVEN_BY_CODE.get("".join(path.partition(".")[:2]), ())
    known = [name for name in parameters if name not in given]
    keys = [*known, *others]
    unknown = [name for name in node if not name.startswith("_") and name not in keys]
    if unknown and not takes_any:
        if difflib.get_close_matches(unknown[0], keys):
            raise unknown_key(f"{path}.{unknown[0]}", keys)
        removed, names = " ".join(f"~{path}.{name}" for name in unknown), " or ".join(unknown)
        raise UserError(f"{path}.{unknown[0]}: {target} does not take {names}; leave it out, or add {removed}.")
    gets_more = not target.startswith(OWN) and (path.startswith("model.") or takes_any)  # such as sizes
    for name in () if gets_more else known:
        parameter = parameters[name]
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and name not in node:
            raise missing_key(f"{path}.{name}")


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tells whether a function or the constructor of a class takes an argument of this name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def find_class(key: str, target: str) -> type:
    """Imports a class. Raises UserError for an error in its module, and for a wrong name, with the nearest one."""
    package, _, name = target.rpartition(".")
    try:
        with importing():
            module = import_module(package)
    except Exception as error:
        place = place_in_own_code(error)
        remedy = "correct the name, or put its file beside the script or into a folder of PYTHONPATH."
        reason = f"{place}{with_type(error)}" if place else f"{error}; {remedy}"
        raise UserError(f"{key}: {target} cannot be imported: {reason}") from error
    found = getattr(module, name, None)
    if inspect.isclass(found) and (found.__module__ == package or not package.startswith(OWN)):
        return found
    classes = [other for other, value in vars(module).items() if inspect.isclass(value)]
    similar = difflib.get_close_matches(name, classes, n=1)
    remedy = f"did you mean {package}.{similar[0]}?" if similar else "correct the name."
    raise UserError(f"{key}: there is no class {target}; {remedy}")


# The config of a run folder, and of the scripts that read one


Trust = str | Sequence[str] | None  # modules, folders or wandb: one, a list, or the text of a list as it is typed


def trust_list(trust: Trust) -> list[str]:
    return [name.strip() for name in (trust.strip("[]").split(",") if isinstance(trust, str) else trust or [])]


def read_config(file: Path, trust: Trust = ()) -> DictConfig:
    """Reads the config of a run folder, which may come from somebody else, and checks it. `trust` are modules whose
    classes it may name besides those of this project, torch.nn, torch.optim and Lightning.
    """
    cfg = read_yaml(file)
    if not isinstance(cfg, DictConfig) or "model" not in cfg.keys():  # noqa: SIM118  # `in cfg` resolves the value
        raise UserError(f"{file}: is not the config of a run; give a folder that train.py made.")
    try:
        check_values(cfg, trust_list(trust))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return cfg


def check_trained_with(folder: Path, cfg: DictConfig) -> None:
    """Raises UserError if a run that resumes was trained with other values. The weights of `init` are read once."""
    for key, (trained, now) in differing_values(read_yaml(folder / CONFIG), cfg).items():
        if key != "init":
            rule = f"was trained with {trained}, but conf/ or an override has {now}"
            raise UserError(f"{key}: {folder} {rule}; resume it with run={folder}, or delete it to train it again.")


def find_trained_run(cfg: DictConfig, kinds: Mapping[str, Any]) -> Path:
    """Checks the config of a script that reads a run, whose keys besides `run` and `trust` have these kinds, and the
    run's config. Returns the run's folder, and says on stderr if it has not finished.
    """
    check_reader_keys(cfg, kinds)
    folder = find_run(cfg.run, BEST)
    config = read_config(folder / CONFIG, cfg.trust)
    if progress := unfinished(folder, config):
        print(printable(f"{as_typed(folder)}: {progress}"), file=sys.stderr)
    return folder


def check_reader_keys(cfg: DictConfig, kinds: Mapping[str, Any]) -> None:
    check_keys(resolve_interpolations(cfg, trusted=True), {"run": str | None, "trust": str | list[str] | None, **kinds})
