"""trainer.precision -> the one to train in.

`auto` is bf16-mixed where that was measured to be faster: on a CPU that multiplies tiles of bf16 (AMX), 13 ms a step
against 22 (docs/benchmark.md). Elsewhere nothing was measured, and it is 32-true.
"""

import logging
from typing import Any

import torch

log = logging.getLogger(__name__)


def resolve(precision: str, accelerator: str) -> Any:
    if precision != "auto":
        return precision
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 has none
    found = "bf16-mixed" if on_cpu and capabilities.get("amx_bf16") else "32-true"
    log.info(f"trainer.precision: auto is {found} here")
    return found
