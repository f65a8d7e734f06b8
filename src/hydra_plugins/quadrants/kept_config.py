"""Composes the jobs of a sweep from the copy of conf/ that was made when the sweep began.

So all jobs have one config, whatever happens to conf/ while the sweep runs or before it resumes. Hydra's own part comes
from conf/ as it is now: it says how jobs are launched.
"""

import copy
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl  # 1.3 has no public class that composes
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm.config.check import check_keys_and_values, without_hydra
from quadrant_lstm.config.check_classes import check_paths, leads_outside
from quadrant_lstm.config.interpolations import resolve_interpolations
from quadrant_lstm.config.schema import GROUPS
from quadrant_lstm.config.values import differing_values, leaves
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_yaml

NOT_KEPT = ("hydra", "readers")  # folders of conf/: Hydra's own part, and the configs of other scripts


class KeptConfigLoader(ConfigLoaderImpl):
    """Reads `folder`, the copy, before the search path of `current`, Hydra's own loader.

    `differences` maps keys of the composed jobs to their values in the copy and in conf/ now. The folder may come from
    somebody else: UserError is raised for a class, an interpolation or a path that conf/ does not name, unless the
    config of any run folder may name it.
    """

    def __init__(self, current: ConfigLoader, folder: Path, config_name: str):
        primary: Any = OmegaConf.to_container(read_yaml(folder / f"{config_name}.yaml"))
        if (folder / "hydra").exists() or "hydra" in primary:
            raise UserError(f"{folder}: holds Hydra's own config, which a sweep does not copy; remove it.")
        search_path = copy.deepcopy(current.get_search_path())
        search_path.prepend("sweep", f"file://{folder.absolute()}")
        super().__init__(search_path)
        self.current, self.folder = current, folder
        self.differences: dict[str, tuple[Any, Any]] = {}
        self.is_same = files_to_keep(current, config_name) == {
            str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.yaml")
        }

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        config = super().load_sweep_config(master_config, sweep_overrides)
        if not self.is_same:
            try:
                now = without_hydra(self.current.load_sweep_config(master_config, sweep_overrides))
            except (HydraException, OmegaConfBaseException):
                now = None
            self.compare(without_hydra(config), now)
        hydra = copy.deepcopy(master_config.hydra)
        with read_write(hydra), open_dict(hydra):
            hydra.overrides.task = config.hydra.overrides.task
            hydra.job.override_dirname = config.hydra.job.override_dirname
            config.hydra = hydra
        return config

    def compare(self, kept: DictConfig, now: DictConfig | None) -> None:
        """`now` is None if conf/ no longer has such a config."""
        if now is None or not needs_trust(kept) <= needs_trust(now):
            try:
                check_keys_and_values(kept, trust=[])
                check_paths(resolve_interpolations(kept, trusted=False), trust=[])
            except UserError as error:
                raise UserError(f"{self.folder}: {error}") from error
        if now is not None:
            self.differences |= differing_values(kept, now)


def files_to_keep(loader: ConfigLoader, config_name: str) -> dict[str, bytes]:
    """Returns the files of conf/, and the groups of the folder of --config-dir, by their names."""
    files: dict[str, bytes] = {}
    for source in loader.get_sources():
        if source.scheme() != "file":
            continue
        root = Path(source.path)
        folders = [root] if source.provider == "main" else [root / group for group in (*GROUPS, "experiment")]
        found = (file for folder in folders for file in sorted(folder.rglob("*.yaml")))
        names = {str(file.relative_to(root)): file for file in found}
        files |= {
            name: without_hydra_key(file) if name == f"{config_name}.yaml" else file.read_bytes()
            for name, file in names.items()
            if name not in files and Path(name).parts[0] not in NOT_KEPT
        }
    return files


def without_hydra_key(file: Path) -> bytes:
    config = read_yaml(file)
    config.pop("hydra", None)
    return OmegaConf.to_yaml(config).encode()


def keep_files(loader: ConfigLoader, config_name: str, folder: Path) -> None:
    for name, content in files_to_keep(loader, config_name).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def needs_trust(cfg: DictConfig) -> set[str]:
    """Returns what could execute code, read the environment, or write elsewhere: classes, interpolations, paths."""
    return {
        f"{key}={value}"
        for key, value in leaves(OmegaConf.to_container(cfg))
        if key.endswith("._target_")
        or "${" in str(value)
        or key in ("data.dataset", "data.root")  # to which a data set may be downloaded
        or (key.startswith("trainer.") and leads_outside(key, value))
    }
