"""trainer.precision -> the one to train in.

`auto` is bf16-mixed where that was measured to be faster: on CPUs that multiply bf16, by tiles (AMX on an Intel Xeon:
11 ms a step of the question's network against 19) or by vectors (AVX-512 on an AMD EPYC: 9 against 14; both in
docs/benchmark). Elsewhere nothing was measured, and it is 32-true.
"""

import functools
import logging
from typing import Any

import torch

log = logging.getLogger(__name__)


@functools.cache  # it is said once
def resolve(precision: str, accelerator: str) -> Any:
    if precision != "auto":
        return precision
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 has none
    multiplies = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    found = "bf16-mixed" if on_cpu and multiplies else "32-true"
    log.info(f"trainer.precision: auto is {found} here")
    return found
