"""Turns the arguments of train.py, and those of the scripts that read a run, into Hydra's."""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.main import get_args_parser

from quadrant_lstm.config import trust
from quadrant_lstm.config.check import GROUPS, OF_TEACHER, read_config, trust_list
from quadrant_lstm.config.values import FREE_DATA_KEYS, names_other_than_own_keys, resolve_interpolations
from quadrant_lstm.errors import UserError, as_text
from quadrant_lstm.processes.torchrun import Meeting, is_torchrun
from quadrant_lstm.run_folder import BEST, CONFIG, LOG, check_links, find_run
from quadrant_lstm.sweep.sweep_folder import Sweep, find_sweep
from quadrant_lstm.text import assigned, quoted, with_own_network

# What was typed


OWN_KEYS = ("run", "sweep", "plan", "trust")  # of train.py; Hydra does not get them


@dataclass
class Typed:
    """The arguments of train.py."""

    words: list[str]  # Hydra's options as they were typed
    options: Namespace  # the same, parsed
    overrides: list[str]
    own: dict[str, str]  # the values of OWN_KEYS, without those that are null

    @property
    def only_shows(self) -> bool:
        """Whether Hydra prints something, such as --help, and starts no run."""
        return bool(self.options.help or self.options.hydra_help or self.options.cfg or self.options.info)


def parse(arguments: list[str]) -> Typed:
    options = parse_options(arguments)
    own = {key: value for key, value in assigned(options.overrides).items() if key in OWN_KEYS}
    if empty := [key for key, value in own.items() if not value]:
        raise UserError(f"{empty[0]}: is empty; give a value, or leave it out.")
    overrides = [override for override in options.overrides if key_of(override) not in own]
    words = [argument for argument in arguments if argument not in options.overrides]
    return Typed(words, options, overrides, {key: value for key, value in own.items() if value != "null"})


def parse_options(arguments: list[str]) -> Namespace:
    """Returns Hydra's options, with the overrides wherever they stand among them."""
    parser: Any = get_args_parser()
    parser.error = refuse  # argparse would print its usage
    parser.allow_abbrev = False  # --experiment=NAME would be Hydra's --experimental-rerun
    options, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise UserError(f"{unknown[0]}: there is no such option; write keys as KEY=VALUE, e.g. trainer.max_epochs=5.")
    return options


def refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; python {sys.argv[0]} --hydra-help lists the options.")


def check_single_values(overrides: list[str], remedy: str) -> None:
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            key, _, values = str(override.input_line).partition("=")
            raise UserError(f"{key}: {values} are several values; {remedy}.")


# Hydra's arguments


NO_CHOICE = re.compile(rf"({'|'.join(GROUPS)}|experiment|\w+/[\w/]+)=(.*,)?(null|[\d.]+)(,.*)?")


def hydra_arguments(arguments: list[str]) -> list[str]:
    return translated(parse(arguments))


def translated(typed: Typed) -> list[str]:
    """Replaces `run=PATH` (resume a run), `sweep=PATH` (resume a sweep) and `plan=true` (only show a sweep's jobs)."""
    run, sweep, plan, modules = map(typed.own.get, OWN_KEYS)
    options, words, overrides = typed.options, typed.words, typed.overrides
    is_sweep = options.multirun or plan or sweep
    if run and is_sweep:
        raise UserError("run: a sweep starts new runs; leave out -m, sweep= and plan=, or run=.")
    if modules and not run:
        raise UserError("trust: is for the config of a run folder; add run=PATH, or leave it out.")
    if (options.cfg or options.info) and is_sweep:
        raise UserError("--cfg, --info: show the config of one run; leave out -m, sweep= and plan=.")
    if options.config_dir:
        check_names(Path(options.config_dir))
    without_effect = re.compile(r"\+*hydra\.run\.dir=" if is_sweep else r"[+~]*hydra[./](launcher|sweeper|sweep)\b")
    if wrong := [override for override in overrides if NO_CHOICE.fullmatch(override)]:  # Hydra does not name the group
        raise UserError(f"{wrong[0]}: is no choice of a group; write the name of one of its files, or leave it out.")
    if wrong := [override for override in overrides if without_effect.match(override) and not typed.only_shows]:
        rule = "is for a single run; write hydra.sweep.dir" if is_sweep else "is for sweeps; add -m"
        raise UserError(f"{wrong[0]}: {rule}, or leave it out.")
    if run:
        return resume_run(run, typed, trust_list(modules))
    if plan not in (None, "true"):
        raise UserError(f"plan: {plan!r} is not true; write plan=true, or leave it out.")
    if plan:
        words, overrides = ["-m", *words], [*overrides, "hydra.sweeper.plan=true"]
    if sweep and not typed.only_shows:
        return [*words, *resume_sweep(find_sweep(sweep), options.config_dir, with_own_network(overrides))]
    if not (options.multirun or plan):
        check_single_values(overrides, "add -m to run a sweep over them")
    if "init=latest" in overrides:  # found once, because each job of a sweep would find the one before
        newest = f"init={quoted(find_run('latest', BEST).absolute())}"
        overrides = [newest if override == "init=latest" else override for override in overrides]
    return [*words, *with_own_network(overrides)]  # Hydra's parser wants the options first


def check_names(folder: Path) -> None:
    """Raises UserError for a config file that Hydra would pass over, because conf/ has one of the same name."""
    conf = Path(sys.argv[0]).resolve().parent / "conf"
    for file in sorted(folder.rglob("*.yaml")):
        if (hides := conf / file.relative_to(folder)).exists() and not hides.samefile(file):
            raise UserError(
                f"{file}: {as_text(hides)} has the same name, and would be read instead; rename one of them."
            )


def reader_arguments(arguments: list[str]) -> list[str]:
    """Returns Hydra's arguments of a script that reads a run: names of files, never lists, and modules are quoted."""
    if is_torchrun():
        raise UserError("torchrun: only train.py works in several processes; start this script with python.")
    path = re.compile(r"(run|images|output|model|trust|data\.root|data\.labels)=(?!null$|['\"])(.+)", re.DOTALL)
    arguments = [path.sub(lambda found: f"{found[1]}={quoted(found[2])}", argument) for argument in arguments]
    options = parse_options(arguments)
    if options.multirun:
        raise UserError("-m: is for sweeps of train.py, but this script reads one run; leave it out.")
    check_single_values(options.overrides, "write one of them")
    return arguments


# `run=`: a run resumes with its own config, in its own folder


def resume_run(run: str, typed: Typed, trusted: list[str]) -> list[str]:
    for name in ("dir", "name", "path"):
        if getattr(typed.options, f"config_{name}"):
            raise UserError(f"--config-{name}: a run resumes with its own config; leave this option out.")
    folder = find_run(run).absolute()
    cfg = read_config(folder / CONFIG, trusted)  # checked first, because Hydra instantiates what it finds under `hydra`
    plain = resolve_interpolations(cfg, trusted=False)
    trust.check_paths(plain, trusted)
    trust.check_uploads(plain, trusted)
    check_links(folder, trusted)
    if (folder / BEST).exists() and not (folder / LOG).exists():  # made by from_keras
        raise UserError(f"run: {run} holds weights, but no training to resume; begin a new one with init={run}.")
    fixed = [*GROUPS, "experiment", "init", "teacher", "hydra.run.dir", *(() if cfg.get("teacher") else OF_TEACHER)]
    fixed.append("optimizer._target_")  # another optimizer could not use the state of this one
    is_constant = cfg.schedule._target_.endswith(".ConstantLR") and cfg.schedule.get("factor") == 1
    for override in typed.overrides:
        key = key_of(override)
        group, *names = re.split("[./]", key)
        is_fixed = group in ("model", "schedule") or (group == "data" and names and names[0] not in FREE_DATA_KEYS)
        if is_fixed or key in fixed:
            raise UserError(f"{override}: a run resumes with its own config; change other values, or start a new run.")
        if key == "optimizer.lr" and not is_constant:
            raise UserError(f"{override}: the schedule of this run sets the learning rate; start a new run.")
    check_names(folder / CONFIG.parent)
    config = ["--config-dir", str(folder / CONFIG.parent), "--config-name", CONFIG.stem]
    place = [f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null", "hydra/job_logging=run"]
    added = [f"+{override}" if override.startswith("trainer/") else override for override in typed.overrides]
    if chosen := assigned(typed.overrides).get("trainer/logger"):  # instead of the run's own
        loggers = [name for name in cfg.trainer.get("logger") or () if name not in re.findall(r"\w+", chosen)]
        added += [f"~trainer.logger.{name}" for name in loggers]
    return [*config, *typed.words, *place, *added]


# `sweep=`: a sweep resumes with its own overrides, in its own folder


CHECKED_TARGETS = ("hydra.sweeper.sampler._target_", "hydra.sweeper.pruner._target_")  # by sweep/search.py
PATH = re.compile(r"(^|[\[(,'\"\s])[/\\~]|\.\.|[:{$]")  # absolute, above, or perhaps in a mapping or an interpolation


def resume_sweep(sweep: Sweep, config_dir: str | None, typed: list[str]) -> list[str]:
    """Returns the arguments of the sweep's own command, without options but -m.

    `typed` may repeat the sweep's overrides but not change them; Hydra's (how jobs are launched) may be changed.
    """
    if changed := [each for each in typed if not is_of_hydra(each) and each not in sweep.overrides]:
        rule = f"was started with {' '.join(sweep.overrides)}, not {' '.join(changed)}"
        raise UserError(f"sweep: {sweep.folder} {rule}; leave that out, or start a new sweep without sweep=.")
    check_trusted(sweep, typed, config_dir)
    recorded = [each for each in sweep.launch_overrides if key_of(each) not in map(key_of, typed)]
    hydra = [*recorded, *filter(is_of_hydra, typed), f"hydra.sweep.dir={quoted(sweep.folder)}"]
    return ["-m", *sweep.overrides, *hydra]


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def is_of_hydra(override: str) -> bool:
    return key_of(override).startswith("hydra")


def check_trusted(sweep: Sweep, typed: Sequence[str], config_dir: str | None) -> None:
    """Raises UserError for a --config-dir or an override that may run code or write elsewhere, unless it was typed
    again.
    """
    folder = sweep.folder.absolute()
    sources = sweep.hydra["runtime"]["config_sources"]
    recorded = [source["path"] for source in sources if source["provider"] == "command-line"]
    if recorded and not config_dir:
        raise UserError(f"sweep: {folder} was started with --config-dir={recorded[0]}; add it if you trust it.")
    check_links(sweep.folder, trust=None)
    typed_keys = set(map(key_of, typed))
    overrides = [*sweep.overrides, *sweep.launch_overrides]
    downloads = any(re.match(r"\+*data(\.dataset)?=.*(MNIST|fashion_mnist|kmnist)", override) for override in overrides)
    for override in overrides:
        if key_of(override) not in typed_keys and needs_trust(override, downloads):
            raise UserError(f"sweep: {folder} was started with {override!r}; add it if you trust what it does.")


def needs_trust(override: str, downloads: bool) -> bool:
    """Tells whether the override may name a class, a file outside conf/, more than keys of the config, or a place
    outside the sweep's folder that its jobs would write to. `downloads` tells whether its data may be downloaded.
    """
    key, _, value = override.lstrip("+~").partition("=")
    if key.startswith(("hydra", "-")):
        is_plain = re.fullmatch(r"hydra[/.](sweeper|launcher)[\w.]*=[\w.:-]*", override)
        return not is_plain or ("._" in key and key not in CHECKED_TARGETS)
    chooses_file = "/" in key or "." not in key.partition("@")[0]
    reads_more = names_other_than_own_keys(value)  # such as the environment
    if "_target_" in override or reads_more or (chooses_file and ".." in value):
        return True
    if key == "data.root":
        return downloads and not all(trust.is_below(path, trust.DOWNLOADS) for path in value.split(","))
    names_place = trust.FOLDER_ARGUMENT.search(key) or PATH.search(value)
    return key.startswith("trainer") and bool(names_place or key.startswith("trainer.logger.wandb"))


# The command that torchrun repeats in each process


def shared_arguments(arguments: list[str], meeting: Meeting) -> list[str]:
    """Returns Hydra's arguments for a run in the folder that all processes share, or in a new one, on the devices of
    torchrun. Exits if the first process only shows something, such as --help. Raises UserError for a sweep.
    """
    typed = parse(arguments)
    if typed.options.multirun or {"sweep", "plan"} & typed.own.keys():
        raise UserError("-m: a sweep starts the processes of its jobs itself; run it without torchrun, or on SLURM.")
    devices, machines = os.environ["LOCAL_WORLD_SIZE"], os.environ["GROUP_WORLD_SIZE"]
    if int(devices) * int(machines) != int(os.environ["WORLD_SIZE"]):
        raise UserError(f"--nproc-per-node: is {devices} here, but not on all machines; start as many on each.")
    started = {"trainer.devices": devices, "trainer.num_nodes": machines}
    for key, number in started.items():
        if (value := assigned(typed.overrides).get(key, number)) not in (number, "auto"):
            raise UserError(f"{key}: {value}, but torchrun started {number}; leave it out.")
        typed.overrides.append(f"{key}={number}")
    if meeting.rank:
        if typed.only_shows:
            sys.exit(0)
        folder: str | None = meeting.wait_for_folder()
    else:
        folder, run = meeting.earlier_folder(), typed.own.get("run")
        if not folder or not Path(folder).exists():  # the folder of a run that was refused is removed
            folder = str(find_run(run).absolute()) if run else None
    if folder and "run" in typed.own:
        typed.own["run"] = folder
    elif folder:  # what was typed is repeated: the folder's config would not be trusted to name the user's own classes
        typed.overrides.append(f"hydra.run.dir={quoted(folder)}")
        if meeting.rank or Path(folder, CONFIG).exists():
            typed.overrides.append("hydra.output_subdir=null")
    return translated(typed)
