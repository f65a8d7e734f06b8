"""train.py's command line -> what Hydra is to compose: an old run or sweep from its own folder, a new one as given."""

from omegaconf import OmegaConf

from quadrant_lstm.config.check import read_config
from quadrant_lstm.config.schema import GROUPS
from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.launch import config_dirs
from quadrant_lstm.run_folder import CONFIG, find_run, quoted, read_yaml, write_whole
from quadrant_lstm.sweep.jobs import command, find_sweep, launching, sweeper, swept

MULTIRUN = {"-m", "--multirun"}


def go_on(arguments: list[str]) -> list[str]:
    """`run=PATH` goes on with a run, `sweep=PATH` with a sweep; `plan=true` shows what a sweep would do."""
    if plan := value_of("plan", arguments):
        if plan != "true":
            raise UserError(f"plan: {plan!r} is not true; write plan=true, or leave it out.")
        others = [argument for argument in arguments if not argument.startswith("plan=")]
        return ["-m", *(one for one in go_on(others) if one not in MULTIRUN), "hydra.sweeper.plan=true"]
    run, sweep = value_of("run", arguments), value_of("sweep", arguments)
    if run and sweep:
        raise UserError("run: goes on with one run, sweep= with a sweep; leave out one of them.")
    if run:
        return go_on_with_run(run, [argument for argument in arguments if not argument.startswith("run=")])
    if sweep:
        return go_on_with_sweep(sweep, [argument for argument in arguments if not argument.startswith("sweep=")])
    return sorted(arguments, key=lambda one: one not in MULTIRUN)  # argparse wants it before the overrides


def value_of(key: str, arguments: list[str]) -> str | None:
    values = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return values[-1] if values and values[-1] not in ("", "null") else None


def go_on_with_run(run: str, others: list[str]) -> list[str]:
    """The arguments that make Hydra compose that run's own config, in its own folder."""
    if MULTIRUN & set(others):
        raise UserError("run: a sweep makes new runs; leave out -m, or run=.")
    folder = find_run(run).absolute()
    cfg = read_config(folder / CONFIG)  # before Hydra does: it builds what it finds under `hydra`
    if OmegaConf.to_container(cfg) != OmegaConf.to_container(read_yaml(folder / CONFIG)):
        write_whole(folder / CONFIG, OmegaConf.to_yaml(cfg).encode())  # a run of an older version
    for argument in others:
        key = argument.partition("=")[0].lstrip("+~")
        if key in (*GROUPS, "experiment") or key.startswith("model."):
            raise UserError(f"{argument}: a run goes on with its own config; change single values, or start a new run.")
    where = ["--config-dir", str(folder / CONFIG.parent), "--config-name", CONFIG.stem]
    return [*where, f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null", "hydra/job_logging=run", *others]


def go_on_with_sweep(sweep: str, others: list[str]) -> list[str]:
    """The arguments of that sweep's own command, in its own folder. They may be given once more; how its jobs are
    launched may be changed.
    """
    folder = find_sweep(sweep).absolute()
    values = [argument for argument in others if argument not in MULTIRUN and not argument.startswith("hydra")]
    before = swept(folder)
    of_experiment = [f"{key}={value}" for key, value in (sweeper(folder).get("params") or {}).items()]
    typed = sorted(one for one in before if one not in of_experiment)
    if values and sorted(values) not in (sorted(before), typed):
        raise UserError(
            f"sweep: {folder} is that of {' '.join(typed)}, not of {' '.join(values)}; leave them out, or start a new "
            "sweep without sweep=."
        )
    hydra = [argument for argument in others if argument.startswith("hydra")]
    return [
        *config_dirs(command(folder)),
        "-m",
        *before,
        *launching(folder),
        *hydra,
        f"hydra.sweep.dir={quoted(folder)}",
    ]
