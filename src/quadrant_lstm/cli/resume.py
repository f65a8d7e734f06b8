"""Turns `run=` and `sweep=` into Hydra's arguments: a run resumes with its own config, a sweep with its overrides."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.cli.options import parse, value_of, without
from quadrant_lstm.config.check_classes import DOWNLOADS, check_paths, check_uploads, is_below, leads_outside
from quadrant_lstm.config.interpolations import OWN_KEY, RUN_FOLDER, resolve_interpolations
from quadrant_lstm.config.read import read_config
from quadrant_lstm.config.schema import GROUPS
from quadrant_lstm.config.values import leaves
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_yaml, write_atomically
from quadrant_lstm.run_folder import BEST, CONFIG, LOG, check_links, find_run
from quadrant_lstm.sweep.sweep_folder import Sweep, find_sweep
from quadrant_lstm.text import quoted, with_own_network

# Keys that a resumed run cannot change: it would validate on images that it has been trained on, need a network of
# other sizes, or give one optimizer the state of another.
FIXED_KEYS = (
    "data.dataset", "data.validation_images", "data.validation_seed", "data.fold", "data.num_folds", "data.grid",
    "data.orderings", "data.test_share", "data.validation_share", "data.num_frames", "data.frame_step", "data.size",
    "data.channels", "data.label", "data.canvas", "optimizer._target_",
)  # fmt: skip
CHECKED_TARGETS = ("hydra.sweeper.sampler._target_", "hydra.sweeper.pruner._target_")  # by sweep/study.py


def resume_run(run: str, others: list[str], trust: list[str]) -> list[str]:
    """Returns the arguments that make Hydra compose the run's own config, in the run's own folder."""
    options = parse(others)[0]
    if options.multirun:
        raise UserError("run: a sweep starts new runs; leave out -m, or run=.")
    if options.config_dir:
        raise UserError("--config-dir: a run resumes with its own config; leave this option out.")
    folder = find_run(run).absolute()
    cfg = read_config(folder / CONFIG, trust)  # checked first, because Hydra instantiates what it finds under `hydra`
    plain = resolve_interpolations(cfg, trusted=False)
    check_paths(plain, trust)
    check_uploads(plain, trust)
    check_links(folder, trust)
    if (folder / BEST).exists() and not (folder / LOG).exists():  # made by from_keras
        raise UserError(f"run: {run} holds weights, but no training to resume; begin a new one with init={run}.")
    for argument in others:
        key = ".".join(argument.partition("=")[0].lstrip("+~").split(".")[:2])  # not that of an item of a list
        fixed = key in (*GROUPS, "experiment", "init", *FIXED_KEYS)
        if fixed or key.startswith(("model.", "model/", "schedule.")):
            raise UserError(f"{argument}: a run resumes with its own config; change other values, or start a new run.")
        if key == "optimizer.lr" and not is_constant(cfg.schedule):
            raise UserError(f"{argument}: the schedule of this run sets the learning rate; start a new run.")
    if OmegaConf.to_container(cfg) != OmegaConf.to_container(read_yaml(folder / CONFIG)):
        write_atomically(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())  # a run of an older version
    config = ["--config-dir", str(folder / CONFIG.parent), "--config-name", CONFIG.stem]
    added = [f"+{argument}" if argument.startswith("trainer/") else argument for argument in others]
    return [*config, f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null", "hydra/job_logging=run", *added]


def is_constant(schedule: DictConfig) -> bool:
    return schedule.get("_target_", "").endswith(".ConstantLR") and schedule.get("factor") == 1


def resume_sweep(path: str, others: list[str]) -> list[str]:
    """Returns the arguments of the sweep's own command, in the sweep's own folder.

    `others` may repeat the sweep's overrides but not change them; Hydra's (how jobs are launched) may be changed.
    """
    sweep, options = find_sweep(path), parse(others)[0]
    typed = with_own_network(without("study", options.overrides))
    check_same_sweep(sweep, typed)
    check_trusted(sweep, typed, options.config_dir)
    hydra = [override for override in typed if override.startswith("hydra")]
    if study := value_of("study", others):
        if study != "rebuild" or not sweep.is_search:
            raise UserError(f"study: {study}, but only study=rebuild is known, for a search; leave it out.")
        hydra.append("hydra.sweeper.rebuild=true")
    config_dir = [f"--config-dir={options.config_dir}"] if options.config_dir else []
    place = f"hydra.sweep.dir={quoted(sweep.folder)}"
    recorded = (sweep.hydra.get("job") or {}).get("config_name")
    is_name = isinstance(recorded, str) and recorded.isidentifier()  # it may come from somebody else
    if name := options.config_name or (recorded if is_name else None):
        config_dir.append(f"--config-name={name}")
    return [*config_dir, "-m", *sweep.overrides, *sweep.launch_overrides, *hydra, place]


def check_same_sweep(sweep: Sweep, typed: Sequence[str]) -> None:
    changed = [each for each in typed if not each.startswith("hydra") and each not in sweep.overrides]
    if changed:
        of_experiment = [f"{key}={value}" for key, value in (sweep.hydra["sweeper"].get("params") or {}).items()]
        before = sorted(override for override in sweep.overrides if override not in of_experiment)
        raise UserError(
            f"sweep: {sweep.folder.absolute()} was started with {' '.join(before)}, not {' '.join(changed)}; leave "
            f"{'it' if len(changed) == 1 else 'them'} out, or start a new sweep without sweep=."
        )


def check_trusted(sweep: Sweep, typed: Sequence[str], config_dir: str | None) -> None:
    """Raises UserError for a --config-dir or an override that may run code, unless it was typed again."""
    folder = sweep.folder.absolute()
    sources = sweep.hydra["runtime"]["config_sources"]
    recorded = [source["path"] for source in sources if source["provider"] == "command-line"]
    if recorded and not config_dir:
        raise UserError(
            f"sweep: {folder} was started with --config-dir={recorded[0]}; add it if you trust that folder."
        )
    check_links(sweep.folder, trust=None)
    typed_keys = {override.partition("=")[0] for override in typed}
    overrides = [*sweep.overrides, *sweep.launch_overrides]
    downloads = any(re.match(r"\+*data(\.dataset)?=.*(MNIST|fashion_mnist|kmnist)", override) for override in overrides)
    for override in overrides:
        if override.partition("=")[0] in typed_keys or only_launches(override):
            continue
        if may_run_code(override) or writes_outside(override, downloads):
            raise UserError(f"sweep: {folder} was started with {override!r}; add it if you trust what it does.")


def writes_outside(override: str, downloads: bool) -> bool:
    """Tells whether the jobs of a sweep with this override could write outside its folder; `downloads`, whether its
    data may be downloaded.
    """
    parsed = OverridesParser.create().parse_override(override)
    key, value = str(parsed.key_or_group), parsed.value()
    values = list(parsed.sweep_iterator()) if parsed.is_discrete_sweep() else value
    paths = [(name, getattr(path, "text", path)) for name, path in leaves(values, key)]
    if key == "data.root":
        return downloads and not all(is_below(str(path), DOWNLOADS) for _, path in paths)
    if not key.startswith("trainer"):
        return False
    may_be_any_path = "${" in override.partition("=")[2].removeprefix(RUN_FOLDER)
    may_upload = key.startswith("trainer.logger.wandb")
    outside = any(leads_outside(re.sub(r"\.\d+$", "", name), path) for name, path in paths)
    return may_be_any_path or may_upload or outside


def only_launches(override: str) -> bool:
    """Tells whether the override gives a plain value to a key of the sweeper or the launcher."""
    key, _, value = override.partition("=")
    is_plain = re.fullmatch(r"hydra[/.](sweeper|launcher)[\w.]*", key) and re.fullmatch(r"[\w.:-]*", value)
    return bool(is_plain) and ("._" not in key or key in CHECKED_TARGETS)


def may_run_code(override: str) -> bool:
    """Tells whether the override may name a class, a file outside conf/, or more than keys of the config."""
    key, _, value = override.lstrip("+~").partition("=")
    chooses_file = "/" in key or "." not in key.partition("@")[0]
    reads_more = "${" in OWN_KEY.sub("", value)  # such as the environment
    return key.startswith(("hydra", "-")) or "_target_" in override or reads_more or (chooses_file and ".." in value)
