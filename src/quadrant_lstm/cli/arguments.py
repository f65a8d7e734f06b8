"""Turns the arguments of the root scripts into Hydra's.

`run=` and `sweep=` become the config and the folder that train.py resumes; `plan=true` becomes a key of the sweeper.
"""

import os
import re
import signal
import sys
from argparse import Namespace
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.cli.explain import check_choices
from quadrant_lstm.config.check import read_config, trusted_modules
from quadrant_lstm.config.interpolations import OWN_KEY
from quadrant_lstm.config.schema import GROUPS
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.torchrun import is_used
from quadrant_lstm.run_folder import BEST, CONFIG, LOG, find_run, quoted, read_yaml, write_atomically
from quadrant_lstm.sweep.jobs import find_sweep

MULTIRUN = {"-m", "--multirun"}
# A resumed run cannot change what divides its images, because it would validate on images that it has been trained on,
# nor what the sizes of its network depend on.
OF_THE_RUN = [
    f"data.{key}"
    for key in (
        *("dataset", "validation_images", "validation_seed", "fold", "num_folds", "grid", "orderings"),
        *("test_share", "validation_share", "num_frames", "frame_step", "size", "channels", "label", "canvas"),
    )
]


def hydra_arguments(arguments: list[str]) -> list[str]:
    """Replaces `run=PATH` (resume a run), `sweep=PATH` (resume a sweep) and `plan=true` (only show a sweep's jobs)."""
    if plan := value_of("plan", arguments):
        if plan != "true":
            raise UserError(f"plan: {plan!r} is not true; write plan=true, or leave it out.")
        if value_of("run", arguments):
            raise UserError("plan: shows the jobs of a sweep, but run= resumes one run; leave one out.")
        others = hydra_arguments(["-m", *without("plan", arguments)])
        return ["-m", *(argument for argument in others if argument not in MULTIRUN), "hydra.sweeper.plan=true"]
    arguments = [without_own_package(argument) for argument in arguments]
    check_options(arguments)
    check_choices(arguments)
    run, sweep = value_of("run", arguments), value_of("sweep", arguments)
    if run and sweep:
        raise UserError("run: cannot be combined with sweep=; run= resumes one run, sweep= a sweep: leave one out.")
    trust = value_of("trust", arguments)
    if trust and not run:
        raise UserError("trust: is for the config of a run folder; add run=PATH, or leave it out.")
    if run:
        return resume_run(run, without("trust", without("run", arguments)), trusted_modules(trust))
    if sweep:
        return resume_sweep(sweep, without("sweep", arguments))
    if not MULTIRUN & set(arguments):
        check_single_values(arguments)
    overrides = parse(arguments)[0].overrides
    options = [argument for argument in arguments if argument not in overrides]
    return [*options, *with_own_network(overrides)]  # Hydra's parser wants the options first


def reader_arguments(arguments: list[str]) -> list[str]:
    """Returns Hydra's arguments of a script that reads a run, which has one process."""
    if is_used():
        if os.environ["LOCAL_RANK"] != "0":
            signal.pause()  # torchrun ends this process when the first one has reported: it would end that one, too
        raise UserError("torchrun: only train.py works in several processes; start this script with python.")
    if check_options(arguments).multirun:
        raise UserError("-m: is for sweeps of train.py, but this script reads one run; leave it out.")
    return with_quoted_paths(arguments)


def with_quoted_paths(arguments: list[str]) -> list[str]:
    """Quotes the values of the keys that name files in evaluate.py, predict.py and export.py: they are never lists."""
    pattern = r"(run|images|output|model)=(?!null$|['\"])(.+)"
    paths = [re.fullmatch(pattern, argument, re.DOTALL) for argument in arguments]
    return [
        f"{path[1]}={quoted(path[2])}" if path else argument for path, argument in zip(paths, arguments, strict=True)
    ]


def without_own_package(override: str) -> str:
    """Shortens e.g. trainer/logger@trainer.logger=csv to trainer/logger=csv, which is all that Hydra understands."""
    group, at, rest = override.partition("@")
    package = group.replace("/", ".") + "="
    return f"{group}={rest.removeprefix(package)}" if at and rest.startswith(package) else override


def with_own_network(overrides: list[str]) -> list[str]:
    """Replaces the whole default model by a class that is typed as model._target_, which does not take its keys."""
    own = any(re.match(r"\+*model\._target_=(?!quadrant_lstm\.)", override) for override in overrides)
    if not own or any(re.match(r"\+*model=", override) for override in overrides):
        return overrides
    words = [override.lstrip("+") for override in overrides]
    return ["~model", *(f"+{word}" if word.startswith("model.") else word for word in words)]


def parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """Returns Hydra's options, with the overrides wherever they stand, and the options that it does not know."""
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
    if options.multirun and (options.cfg or options.info):
        name = "--cfg" if options.cfg else "--info"
        raise UserError(f"{name}: shows the config of one run; leave out -m, or list the jobs with plan=true.")
    return options


def check_single_values(arguments: list[str]) -> None:
    lists = [word for word in arguments if "=" in word and "," in word and not word.startswith("-")]
    for override in OverridesParser.create().parse_overrides(lists):
        if override.is_sweep_override():
            key, _, values = str(override.input_line).partition("=")
            raise UserError(f"{key}: {values} are several values; add -m to run a sweep over them.")


def value_of(key: str, arguments: list[str]) -> str | None:
    values = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith(f"{key}=")]
    if "" in values:
        raise UserError(f"{key}: is empty; give a value, or leave it out.")
    return values[-1] if values and values[-1] != "null" else None


def without(key: str, arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if not argument.lstrip("+").startswith(f"{key}=")]


def resume_run(run: str, others: list[str], trust: list[str]) -> list[str]:
    """Returns the arguments that make Hydra compose the run's own config, in the run's own folder."""
    if MULTIRUN & set(others):
        raise UserError("run: a sweep starts new runs; leave out -m, or run=.")
    folder = find_run(run).absolute()
    cfg = read_config(folder / CONFIG, trust)  # checked first, because Hydra instantiates what it finds under `hydra`
    if (folder / BEST).exists() and not (folder / LOG).exists():  # made by from_keras
        raise UserError(f"run: {run} holds weights, but no training to resume; begin a new one with init={run}.")
    if OmegaConf.to_container(cfg) != OmegaConf.to_container(read_yaml(folder / CONFIG)):
        write_atomically(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())  # a run of an older version
    for argument in others:
        key = ".".join(argument.partition("=")[0].lstrip("+~").split(".")[:2])  # not that of an item of a list
        if key in (*GROUPS, "experiment", "init", *OF_THE_RUN) or key.startswith(("model.", "model/", "schedule.")):
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
    sweep = find_sweep(path)
    folder = sweep.folder.absolute()
    options = parse(others)[0]
    sources = sweep.hydra.runtime.config_sources
    recorded = [source.path for source in sources if source.provider == "command-line"]
    if recorded and not options.config_dir:
        raise UserError(
            f"sweep: {folder} was started with --config-dir={recorded[0]}; add it if you trust that folder."
        )
    repeated = [override for override in options.overrides if not override.startswith("hydra")]
    of_experiment = [f"{key}={value}" for key, value in (sweep.hydra.sweeper.get("params") or {}).items()]
    typed = sorted(override for override in sweep.overrides if override not in of_experiment)
    if repeated and sorted(repeated) not in (sorted(sweep.overrides), typed):
        raise UserError(
            f"sweep: {folder} was started with {' '.join(typed)}, not {' '.join(repeated)}; leave them out, or start "
            "a new sweep without sweep=."
        )
    hydra = [override for override in options.overrides if override.startswith("hydra")]
    typed_keys = {override.partition("=")[0] for override in options.overrides}
    launch, place = [*sweep.launch_overrides, *hydra], f"hydra.sweep.dir={quoted(sweep.folder)}"
    for override in [*sweep.overrides, *sweep.launch_overrides]:
        key, _, value = override.partition("=")
        launches = re.fullmatch(r"hydra[/.](sweeper|launcher)[\w.]*", key) and re.fullmatch(r"[\w.:-]*", value)
        reads_more = "${" in OWN_KEY.sub("", value)  # than keys of the config, such as the environment
        runs_code = key.lstrip("+~").startswith(("hydra", "-")) or "_target_" in override or reads_more
        if key not in typed_keys and not launches and runs_code:
            raise UserError(f"sweep: {folder} was started with {override!r}; add it if you trust what it does.")
    config_dir = [f"--config-dir={options.config_dir}"] if options.config_dir else []
    return [*config_dir, "-m", *sweep.overrides, *launch, place]
