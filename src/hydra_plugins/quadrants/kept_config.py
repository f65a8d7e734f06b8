"""Composes the jobs of a sweep from the copy of conf/ that was made when the sweep began.

So all jobs have one config, whatever happens to conf/ while the sweep runs or before it resumes. Hydra's own part comes
from conf/ as it is now: it says how jobs are launched.
"""

import copy
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm.compat import ConfigLoaderImpl
from quadrant_lstm.config import check, trust, values
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_yaml

CONF_PROVIDERS = ("main", "command-line")  # Hydra's names for conf/ and the folder of --config-dir
CHECKSUM = ".sha256"


class KeptConfigLoader(ConfigLoaderImpl):
    """Reads `folder`, the copy, instead of conf/, which `current` reads, Hydra's own loader.

    In a sweep that is resumed, each job is compared with conf/ as it is now. `differences` maps keys to their values in
    the copy and in conf/. The copy may come from somebody else: UserError is raised for a class, an interpolation or a
    path that conf/ does not name, unless the config of any run folder may name it.
    """

    def __init__(self, current: ConfigLoader, folder: Path, config_name: str, is_resumed: bool):
        recorded = folder / CHECKSUM
        if not recorded.exists() or recorded.read_bytes() != checksum(folder):
            raise UserError(f"{folder}: is not the config that the sweep began with; restore it, or start a new sweep.")
        file = folder / f"{config_name}.yaml"
        primary: Any = OmegaConf.to_container(read_yaml(file))
        if "hydra" in primary:  # it could name other folders of configs
            raise UserError(f"{file}: has a key hydra, which a sweep does not copy; remove it.")
        search_path = copy.deepcopy(current.get_search_path())
        elements = search_path.get_path()
        elements[:] = [element for element in elements if element.provider not in CONF_PROVIDERS]
        search_path.prepend("main", f"file://{folder.absolute()}")
        super().__init__(search_path)
        self.current, self.folder, self.is_resumed = current, folder, is_resumed
        self.differences: dict[str, tuple[Any, Any]] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        config = super().load_sweep_config(master_config, sweep_overrides)
        if self.is_resumed:
            try:
                now = values.without_hydra(self.current.load_sweep_config(master_config, sweep_overrides))
            except (HydraException, OmegaConfBaseException, yaml.YAMLError):
                now = None
            self.compare(values.without_hydra(config), now)
        hydra = copy.deepcopy(master_config.hydra)
        with read_write(hydra), open_dict(hydra):
            hydra.overrides.task = config.hydra.overrides.task
            hydra.job.override_dirname = config.hydra.job.override_dirname
            config.hydra = hydra
        return config

    def compare(self, kept: DictConfig, now: DictConfig | None) -> None:
        """`now` is None if conf/ no longer has such a config."""
        config: Any = OmegaConf.to_container(kept)
        known = set() if now is None else set(map(str, values.leaves(OmegaConf.to_container(now))))
        unknown = {key: value for key, value in values.leaves(config) if str((key, value)) not in known}
        try:
            for key, value in unknown.items():
                if is_risky(key, value):
                    raise UserError(f"{key}: {value} may run other code, read the environment or write elsewhere")
            if {"data.root", "data.dataset"} & unknown.keys():
                trust.check_download(config, trust=[])
            if any(key.startswith("trainer.logger.") for key in unknown):
                trust.check_uploads(config, trust=[])
        except UserError as error:
            reason = str(error).partition(";")[0]  # its remedy, trust=, is for a run folder
            raise UserError(f"{self.folder}: {reason}; if you trust it, write it into conf/, too.") from error
        if now is not None:
            self.differences |= values.differing_values(kept, now)


def is_risky(key: str, value: Any) -> bool:
    """Tells whether the config of a run folder from somebody else may not hold this value."""
    group = key.partition(".")[0]
    is_other_code = key.endswith("._target_") and not trust.may_be_named(str(value), group)
    writes_elsewhere = group == "trainer" and trust.leads_outside(key, value)
    return is_other_code or values.names_other_than_own_keys(value) or writes_elsewhere


def checksum(folder: Path) -> bytes:
    """Returns the SHA-256 of the names and the contents of a folder's YAML files."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.yaml")):
        digest.update(f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest().encode()


def keep_files(loader: ConfigLoader, config_name: str, overrides: Iterable[str], folder: Path) -> None:
    """Copies conf/ to the folder, and of the folder of --config-dir the groups that the overrides name."""
    groups = {*check.GROUPS, "experiment", *(re.split(r"[/@=]", override.lstrip("+~"))[0] for override in overrides)}
    for source in loader.get_sources():
        if source.scheme() != "file":
            continue
        root = Path(source.path)
        primary = root / f"{config_name}.yaml"
        places = [root] if source.provider == "main" else [root / name for name in sorted(groups)]
        for file in [primary, *(file for place in places for file in sorted(place.rglob("*.yaml")))]:
            copied = folder / file.relative_to(root)
            if file.is_file() and not copied.exists():
                copied.parent.mkdir(parents=True, exist_ok=True)
                copied.write_bytes(file.read_bytes())
                if file == primary:
                    config = read_yaml(file)
                    config.pop("hydra", None)
                    OmegaConf.save(config, copied)
    (folder / CHECKSUM).write_bytes(checksum(folder))
