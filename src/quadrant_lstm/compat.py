"""What differs between the versions of Hydra that pyproject.toml admits, and the private names of Hydra and torch.

1.3 warns without `version_base`, 1.4 with it. 1.4 warns where nothing says which classes a config may name;
config/trust.py and conf/ say that, so these arguments admit any class.
"""

from typing import Any

import hydra.utils

# neither 1.3 nor 1.4 has a public class that composes the configs of jobs
from hydra._internal.config_loader_impl import ConfigLoaderImpl as ConfigLoaderImpl

IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")
WHITELIST: Any = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
OF_COMPOSE: dict[str, Any] = {"version_base": "1.3"} if IS_HYDRA_1_3 else {}
OF_MAIN: dict[str, Any] = OF_COMPOSE if IS_HYDRA_1_3 else {"execution_whitelist": WHITELIST}
OF_INSTANTIATE: dict[str, Any] = {} if IS_HYDRA_1_3 else {"_execution_whitelist_": WHITELIST}


def scan(*arguments: Any) -> Any:
    """The loop of exported programs, of which torch 2.13 has no public name."""
    from torch._higher_order_ops import scan  # here, because every command imports this module

    return scan(*arguments)
