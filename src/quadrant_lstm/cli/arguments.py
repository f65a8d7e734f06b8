"""Turns the arguments of train.py, and those of the scripts that read a run, into Hydra's."""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from quadrant_lstm.cli.command import check_choices
from quadrant_lstm.config.check import GROUPS
from quadrant_lstm.config.read import read_config, trusted_modules
from quadrant_lstm.config.trust import DOWNLOADS, check_paths, check_uploads, is_below, leads_outside
from quadrant_lstm.config.values import OWN_KEY, RUN_FOLDER, leaves, resolve_interpolations
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.torchrun import Meeting, is_torchrun
from quadrant_lstm.run_folder import BEST, CONFIG, LOG, check_links, find_run, locked
from quadrant_lstm.sweep.sweep_folder import Sweep, find_sweep
from quadrant_lstm.text import quoted, with_own_network

# Hydra's options, and the values of single keys


def parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """Returns Hydra's options, with the overrides wherever they stand, and the words that Hydra does not know."""
    parser: Any = get_args_parser()
    parser.error = refuse  # argparse would print its usage
    return parser.parse_known_intermixed_args(arguments)


def refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; python {sys.argv[0]} --hydra-help lists the options.")


def check_options(arguments: list[str]) -> Namespace:
    options, unknown = parse(arguments)
    if unknown:
        raise UserError(f"{unknown[0]}: there is no such option; write keys as KEY=VALUE, e.g. trainer.max_epochs=5.")
    if options.experimental_rerun:
        raise UserError("--experimental-rerun: is not supported; resume a run with run=FOLDER.")
    if (options.resolve or options.package) and not options.cfg:
        raise UserError("--resolve, --package: are for --cfg; add --cfg job, or leave them out.")
    if (options.multirun or value_of("sweep", arguments)) and (options.cfg or options.info):
        name = "--cfg" if options.cfg else "--info"
        given = "-m" if options.multirun else "sweep="
        raise UserError(f"{name}: shows the config of one run; leave out {given}, or list the jobs with plan=true.")
    return options


def only_shows(arguments: list[str]) -> bool:
    """Tells whether Hydra prints something, such as --help, and starts no run."""
    if "--version" in arguments:  # parse would print it
        return True
    options = parse(arguments)[0]
    return bool(options.help or options.hydra_help or options.cfg or options.info)


def value_of(key: str, arguments: list[str]) -> str | None:
    """Returns the last value of the key, which may be typed more than once, or None if it is missing or null.

    Raises UserError for an empty value.
    """
    values = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith(f"{key}=")]
    if "" in values:
        raise UserError(f"{key}: is empty; give a value, or leave it out.")
    return values[-1] if values and values[-1] != "null" else None


def without(key: str, arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if not argument.lstrip("+").startswith(f"{key}=")]


# `run=` and `sweep=`: a run resumes with its own config, a sweep with its overrides


# Keys that a resumed run cannot change: it would validate on images that it has been trained on, need a network of
# other sizes, or give one optimizer the state of another.
FIXED_KEYS = (
    "data.dataset", "data.validation_images", "data.validation_seed", "data.fold", "data.num_folds", "data.grid",
    "data.orderings", "data.test_share", "data.validation_share", "data.num_frames", "data.frame_step", "data.size",
    "data.channels", "data.label", "data.canvas", "optimizer._target_",
)  # fmt: skip
CHECKED_TARGETS = ("hydra.sweeper.sampler._target_", "hydra.sweeper.pruner._target_")  # by sweep/search.py


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


# The arguments of the scripts


def hydra_arguments(arguments: list[str]) -> list[str]:
    """Replaces `run=PATH` (resume a run), `sweep=PATH` (resume a sweep) and `plan=true` (only show a sweep's jobs)."""
    if plan := value_of("plan", arguments):
        if plan != "true":
            raise UserError(f"plan: {plan!r} is not true; write plan=true, or leave it out.")
        if value_of("run", arguments):
            raise UserError("plan: shows the jobs of a sweep, but run= resumes one run; leave one out.")
        return [*hydra_arguments(["-m", *without("plan", arguments)]), "hydra.sweeper.plan=true"]
    arguments = [without_own_package(argument) for argument in arguments]
    options = check_options(arguments)
    check_choices(arguments)
    run, sweep = value_of("run", arguments), value_of("sweep", arguments)
    if run and sweep:
        raise UserError("run: cannot be combined with sweep=; run= resumes one run, sweep= a sweep: leave one out.")
    trust = value_of("trust", arguments)
    if trust and not run:
        raise UserError("trust: is for the config of a run folder; add run=PATH, or leave it out.")
    if run:
        return resume_run(run, without("trust", without("run", arguments)), trusted_modules(trust))
    if sweep and not only_shows(arguments):
        return resume_sweep(sweep, without("sweep", arguments))
    if not options.multirun:
        check_single_values(options.overrides, "add -m to run a sweep over them")
    overrides = without("sweep", options.overrides)
    if value_of("init", overrides) == "latest":  # found once, because each job of a sweep would find the one before
        overrides = [f"init={quoted(find_run('latest', BEST).absolute())}", *without("init", overrides)]
    words = [argument for argument in arguments if argument not in options.overrides]
    return [*words, *with_own_network(overrides)]  # Hydra's parser wants the options first


def reader_arguments(arguments: list[str]) -> list[str]:
    """Returns Hydra's arguments of a script that reads a run, which has one process."""
    if is_torchrun():
        raise UserError("torchrun: only train.py works in several processes; start this script with python.")
    options = check_options(arguments)
    if options.multirun:
        raise UserError("-m: is for sweeps of train.py, but this script reads one run; leave it out.")
    check_single_values(with_quoted_paths(options.overrides), "write one of them")
    return with_quoted_paths(arguments)


def with_quoted_paths(arguments: list[str]) -> list[str]:
    """Quotes the values of keys of evaluate.py, predict.py and export.py that name files, never lists, or modules."""
    pattern = r"(run|images|output|model|trust)=(?!null$|['\"])(.+)"
    return [
        f"{path[1]}={quoted(path[2])}" if (path := re.fullmatch(pattern, argument, re.DOTALL)) else argument
        for argument in arguments
    ]


def without_own_package(override: str) -> str:
    """Shortens e.g. trainer/logger@trainer.logger=csv to trainer/logger=csv, which is all that Hydra understands."""
    group, at, rest = override.partition("@")
    package = group.replace("/", ".") + "="
    return f"{group}={rest.removeprefix(package)}" if at and rest.startswith(package) else override


def check_single_values(overrides: list[str], remedy: str) -> None:
    lists = [override for override in overrides if "=" in override and "," in override]
    for override in OverridesParser.create().parse_overrides(lists):
        if override.is_sweep_override():
            key, _, values = str(override.input_line).partition("=")
            raise UserError(f"{key}: {values} are several values; {remedy}.")


# The command that torchrun repeats in each process


def shared_arguments(arguments: list[str], meeting: Meeting) -> list[str]:
    """Returns Hydra's arguments for a run in the folder that all processes share, or in a new one. Exits if the first
    process only shows something, such as --help.
    """
    arguments, run = with_devices(arguments), value_of("run", arguments)
    if meeting.rank and only_shows(arguments):
        sys.exit(0)
    if meeting.rank:
        folder: str | None = meeting.wait_for_folder()
    else:
        folder = meeting.earlier_folder()
        if not folder or not Path(folder).exists():  # the folder of a run that was refused is removed
            folder = str(find_run(run).absolute()) if run else None
        if folder:
            with locked(Path(folder)):  # raises UserError if another process works in it
                pass
    if not folder:
        return hydra_arguments(arguments)
    if run:
        return hydra_arguments([f"run={folder}", *without("run", arguments)])
    # A process that is started again repeats what was typed: the config of the folder alone would not be trusted to
    # name the user's own classes.
    keeps_config = meeting.rank or Path(folder, CONFIG).exists()
    place = [f"hydra.run.dir={quoted(Path(folder))}", *(["hydra.output_subdir=null"] if keeps_config else [])]
    return [*hydra_arguments(arguments), *place]


def with_devices(arguments: list[str]) -> list[str]:
    """Adds the numbers of devices and of machines. Raises UserError if others were typed, and for a sweep."""
    if parse(arguments)[0].multirun or value_of("sweep", arguments) or value_of("plan", arguments):
        raise UserError("-m: a sweep starts the processes of its jobs itself; run it without torchrun, or on SLURM.")
    devices, machines, total = (os.environ[f"{name}WORLD_SIZE"] for name in ("LOCAL_", "GROUP_", ""))
    if int(devices) * int(machines) != int(total):
        raise UserError(
            f"--nproc-per-node: {devices} on this machine, but {total} processes on {machines} machines; start the "
            "same number on each."
        )
    strategy = value_of("trainer.strategy", arguments) or ""
    if re.search("spawn|fork|notebook", strategy):
        raise UserError(f"trainer.strategy: {strategy} starts processes, but torchrun has started them; leave it out.")
    started = {"trainer.devices": devices, "trainer.num_nodes": machines}
    for key, number in started.items():
        typed = value_of(key, arguments)
        if typed not in (None, number, "auto", "-1"):
            raise UserError(f"{key}: {typed}, but torchrun started {number}; leave it out.")
        arguments = without(key, arguments)
    return [*arguments, *(f"{key}={number}" for key, number in started.items())]
