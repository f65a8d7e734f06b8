"""Reads and writes overrides, as they are typed: KEY=VALUE. Imports no torch."""

import re
from collections.abc import Iterable
from pathlib import Path


def assigned(overrides: Iterable[str]) -> dict[str, str]:
    """Returns the values that overrides assign, by their keys."""
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def quoted(folder: Path | str) -> str:
    """Returns the path as a quoted string of Hydra's override grammar."""
    # a backslash stands for itself, except before a quote
    text = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), str(folder))
    return "'" + text.replace("${", "\\${") + "'"


def with_own_network(overrides: list[str]) -> list[str]:
    """Replaces the whole default model by a class that is typed as model._target_, which does not take its keys."""
    own = any(re.match(r"\+*model\._target_=(?!quadrant_lstm\.)", override) for override in overrides)
    if not own or any(re.match(r"\+*model=", override) for override in overrides):
        return overrides
    plain = [override.lstrip("+") for override in overrides]
    return ["~model", *(f"+{override}" if override.startswith("model.") else override for override in plain)]
