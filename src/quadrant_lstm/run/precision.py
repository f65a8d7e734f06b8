"""Chooses the precision of `trainer.precision=auto`.

It is bf16-mixed on CPUs that multiply bf16, where training steps are faster (docs/speed.md), and 32-true elsewhere. It
is also 32-true with torch 2.10, which does not tell what the CPU multiplies.
"""

import functools
import logging
from typing import Any

import torch

log = logging.getLogger(__name__)


@functools.cache  # logs its choice only once
def resolve_precision(precision: str, accelerator: str) -> Any:
    if precision != "auto":
        return precision
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    chosen = "bf16-mixed" if on_cpu and cpu_multiplies_bf16() else "32-true"
    log.info(f"trainer.precision: auto is {chosen} here")
    return chosen


def cpu_multiplies_bf16() -> bool:
    return bool(bf16_instructions())


def bf16_instructions() -> list[str]:
    """Returns the names of the CPU's instructions that multiply bf16."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 has no get_capabilities
    return [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
