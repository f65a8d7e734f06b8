"""A root script's command line -> its task, or one line on stderr and exit status 2. Imports no torch."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm.config.check import check, without_hydra
from quadrant_lstm.config.defaults import default_config
from quadrant_lstm.config.messages import unknown_key
from quadrant_lstm.config.schema import CLASSES
from quadrant_lstm.errors import DISK, UserError
from quadrant_lstm.processes.launch import end_with_parent, is_launched, tell_parent
from quadrant_lstm.run_folder import OUTPUTS, new_folder

log = logging.getLogger(__name__)
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

OmegaConf.register_new_resolver("new_folder", new_folder, use_cache=True)  # a sweep's jobs share its folder


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Around Hydra's main: a mistake in the command line or the config is one line, and so are Ctrl-C and SIGTERM."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises what it would print
    logging.raiseExceptions = False  # a full disk costs lines of train.log, not a traceback for each
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    except UserError as error:
        fail(error)
    except InstantiationException:
        raise  # not the user's
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error))
    except OSError as error:
        fail(explain_disk(error))
    except ValueError as error:
        if not str(error).startswith("Config group override"):
            raise
        fail(explain_group())
    except KeyboardInterrupt:
        if not is_launched():
            print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Around a task: alone, a mistake ends the process; in a sweep it ends this job, and stands in its log."""
    try:
        yield
    except (UserError, OSError, OmegaConfBaseException) as error:
        mistake = explain_disk(error) if isinstance(error, OSError) else explain(error)
        if is_launched():
            tell_parent(mistake)
            sys.exit(2)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            fail(mistake)
        log.error(mistake)
        raise mistake from None
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            log.exception(f"{type(error).__name__}: {error}")
        raise


def explain_disk(error: OSError) -> UserError:
    """Whatever wrote: TensorBoard's writer has no name for its file."""
    if error.errno not in DISK:
        raise error
    if not HydraConfig.initialized():
        return UserError(f"{error.filename or OUTPUTS}: cannot be written ({error.strerror}); run in another folder.")
    folder = HydraConfig.get().runtime.output_dir
    return UserError(
        f"{folder}: cannot be written ({error.strerror}); the last finished epoch is safe: mend that, and go on with "
        f"run={folder}."
    )


def fail(error: Exception) -> NoReturn:
    print(error, file=sys.stderr)
    sys.exit(2)


class BeforeRun(Callback):
    """Hydra calls this before it makes the run's folder: a mistake leaves nothing behind.

    Hydra turns a callback's exceptions into warnings, but not SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            check(without_hydra(config))
            check_libraries(without_hydra(config))
            folder, subdir = config.hydra.run.dir, config.hydra.output_subdir
            if subdir and Path(folder, subdir).exists():
                raise UserError(f"hydra.run.dir: {folder} holds a run; go on with it by run={folder}, or name another.")
        except UserError as error:
            fail(error)
        except OmegaConfBaseException as error:
            fail(explain(error))


def explain(error: Exception) -> UserError:
    """Hydra's or OmegaConf's error -> one line with a remedy; ours as it is."""
    if isinstance(error, UserError):
        return error
    if isinstance(cause := innermost(error), UserError):  # of ${new_folder:...}
        return cause
    if isinstance(error, OverrideParseException):
        return UserError(f"{error.override}: is not an override; write KEY=VALUE, e.g. model.lstm_units=64.")
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return no_choice(group, choice, error.options)
    key = getattr(error.__cause__, "full_key", None)
    if isinstance(error, ConfigCompositionException) and key and str(error).startswith("Could not override"):
        return explain_key(key)
    return UserError(error)


def no_choice(group: str, choice: str, options: Iterable[str]) -> UserError:
    return UserError(f"{group}: there is no {group}={choice}; choose from {', '.join(options)}.")


def explain_group() -> UserError:
    """Hydra takes text or a list for a group's choice, and does not say which group was given null or a number."""
    for argument in sys.argv[1:]:
        group, _, choice = argument.partition("=")
        folder = Path(sys.argv[0]).resolve().parent / "conf" / group
        if folder.is_dir() and not (folder / f"{choice}.yaml").is_file():
            return no_choice(group, choice, sorted(file.stem for file in folder.glob("*.yaml")))
    return UserError("a group's choice is the name of a file in its folder of conf/; write e.g. model=cnn_lstm.")


def innermost(error: BaseException) -> BaseException:
    return innermost(error.__context__) if error.__context__ else error


def explain_key(key: str) -> UserError:
    if key.startswith("hydra."):
        return UserError(f"{key}: Hydra has no such key; python {sys.argv[0]} --cfg hydra shows those it has.")
    config = default_config()
    error = unknown_key(key, keys(OmegaConf.to_container(config)))
    target = OmegaConf.select(config, f"{key.rpartition('.')[0]}._target_") if "." in key else None
    if target is None or target in CLASSES:
        return error
    return UserError(f"{error} Any other argument of {target} is added by +{key}=VALUE.")


def keys(config: Any, path: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{path}{key}.")


def check_libraries(cfg: DictConfig) -> None:
    """What needs torch to be imported."""
    from quadrant_lstm.config.signatures import check_signatures

    check_signatures(cfg)
