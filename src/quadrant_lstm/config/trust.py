"""What the config of a run or a sweep from somebody else may name: classes, folders and uploads. Imports no torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from quadrant_lstm.config.values import RUN_FOLDER, leaves, nodes_with_target
from quadrant_lstm.errors import UserError

# The packages whose classes each group may name, and single classes. What is typed may name any class, except in data;
# the config of a run folder may name others that its reader trusts.
TARGETS = {
    "data": ("quadrant_lstm.data.",),
    "model": ("quadrant_lstm.model.", "torch.nn."),
    "optimizer": ("torch.optim.",),
    "schedule": ("torch.optim.lr_scheduler.",),
    "trainer": (
        "quadrant_lstm.callbacks.",
        "quadrant_lstm.processes.launch.DDP",
        "quadrant_lstm.dashboard.",
        "quadrant_lstm.sweep.pruning.Pruning",
        "lightning.pytorch.",
        *(f"lightning.pytorch.{kind}." for kind in ("callbacks", "strategies", "profilers")),
        # the other loggers write to the working directory, or to a server
        *(f"lightning.pytorch.loggers.{name}Logger" for name in ("CSV", "MLFlow", "TensorBoard", "Wandb")),
    ),
}
FOLDER_ARGUMENT = re.compile(r"(dir|path|root|uri|url|location)$")  # of loggers, callbacks and profilers
DOWNLOADS = Path("~/.cache/quadrant_lstm")  # where conf/data/ puts data sets
WANDB_ARGUMENTS = {"_target_", "save_dir", "project", "offline"}  # of conf/; others go to wandb.init
OWN = "quadrant_lstm."
READ_IN_PLACE = ("mnist", "idx")  # data sets that are not downloaded


def check_trust(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a class of other code whose module is not in `trust`, and names all modules to trust."""
    other = other_code(config)
    for path, target in other.items():
        if not any(target.startswith(f"{module}.") for module in trust):
            modules = ",".join(sorted({name.rpartition(".")[0] for name in other.values()}))
            remedy = f"trust={f'[{modules}]' if ',' in modules else modules}"
            raise UserError(f"{path}._target_: {target} is other code; add {remedy} if you trust it.")


def other_code(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the classes of other code that a config names, by the keys of their nodes."""
    targets = {path: str(node["_target_"]) for path, node in nodes_with_target(config)}
    return {path: name for path, name in targets.items() if not may_be_named(name, path.partition(".")[0])}


def may_be_named(target: str, group: str) -> bool:
    """Tells whether any run folder's config may name the class in this group. One of this project has to be defined in
    the module that its name tells (check.py).
    """
    packages = TARGETS.get(group, ())
    return target.startswith(packages) if target.startswith(OWN) else is_class_in(target, packages)


def is_class_in(target: str, packages: Iterable[str]) -> bool:
    """Tells whether the target is listed itself, or is one capitalized name after a listed package: a longer path could
    lead to what modules import.
    """
    return any(target == package or re.fullmatch(re.escape(package) + r"[A-Z]\w*", target) for package in packages)


def check_paths(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a path that leads out of the run folder and is in none of the folders in `trust`."""
    for key, value in leaves(config["trainer"], "trainer"):
        if leads_outside(key, value):
            check_path(key, value, trust)


def check_uploads(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a logger that may upload to somebody's account, unless `trust` names it."""
    for path, node in nodes_with_target(config["trainer"]):
        uploads = node["_target_"].endswith(".WandbLogger") and (not node.get("offline") or set(node) - WANDB_ARGUMENTS)
        if uploads and "wandb" not in trust:
            raise UserError(f"trainer.{path}: may upload to a server; add trust=wandb if you trust its arguments.")


def check_download(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Raises UserError for a folder that a data set would be downloaded to, unless conf/ or `trust` names it."""
    data = config["data"]
    root = data.get("root")
    if root is not None and (data.get("dataset") or "idx") not in READ_IN_PLACE and not is_below(root, DOWNLOADS):
        check_path("data.root", root, trust)


def check_path(key: str, path: str, trust: Sequence[str]) -> None:
    if path not in trust and not any(is_below(path, Path(folder)) for folder in trust):
        raise UserError(f"{key}: {path} is outside the run folder; add trust={path} if files may be written there.")


def leads_outside(key: str, value: Any) -> bool:
    """Tells whether the value of a key of `trainer` is a path outside the run folder."""
    if not isinstance(value, str):
        return False
    inside = value.removeprefix(RUN_FOLDER)
    if inside != value:
        return inside[:1] not in ("", "/") or ".." in PureWindowsPath(inside).parts
    is_folder = FOLDER_ARGUMENT.search(key) is not None  # a relative path starts at the working directory
    parts = PureWindowsPath(value).parts  # which are separated by / or \\
    return is_folder or value.startswith(("/", "\\", "~")) or ".." in parts or ":\\" in value or "://" in value


def is_below(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder) and ".." not in Path(path).parts
