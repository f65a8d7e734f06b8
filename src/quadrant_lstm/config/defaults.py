"""Looks up the default that conf/ gives a key, for error messages."""

import re
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf


def default_config() -> DictConfig:
    """Composes the config of the running script with its choices of groups but without its other overrides."""
    script = Path(sys.argv[0]).resolve()
    if not (script.parent / "conf" / f"{script.stem}.yaml").is_file():
        return OmegaConf.create()
    groups = r"(data|model|optimizer|schedule|trainer)=\w+"
    choices = [argument for argument in sys.argv[1:] if re.fullmatch(groups, argument)]
    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # there may be only one at a time
    try:
        with initialize_config_dir(str(script.parent / "conf"), version_base="1.3"):
            try:
                return compose(script.stem, choices)
            except HydraException:
                return compose(script.stem)
    finally:
        GlobalHydra.instance().hydra = running


def default_value(key: str) -> Any:
    return OmegaConf.select(default_config(), key)
