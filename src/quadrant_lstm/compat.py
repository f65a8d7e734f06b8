"""Arguments that differ between the versions of Hydra that pyproject.toml admits.

1.3 warns without `version_base`, 1.4 with it. 1.4 warns where nothing says which classes a config may name;
config/trust.py and conf/ say that, so these arguments admit any class.
"""

from typing import Any

import hydra.utils

IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")
WHITELIST: Any = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
OF_COMPOSE: dict[str, Any] = {"version_base": "1.3"} if IS_HYDRA_1_3 else {}
OF_MAIN: dict[str, Any] = OF_COMPOSE if IS_HYDRA_1_3 else {"execution_whitelist": WHITELIST}
OF_INSTANTIATE: dict[str, Any] = {} if IS_HYDRA_1_3 else {"_execution_whitelist_": WHITELIST}
