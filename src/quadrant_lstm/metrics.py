"""Names the metrics of an accuracy after each step."""

from collections.abc import Iterable


def step_accuracy_names(split: str, num_steps: int) -> tuple[str, ...]:
    """Returns e.g. "val/accuracy_step_1" to "val/accuracy_step_4" for the split "val" and four steps."""
    return tuple(f"{split}/accuracy_step_{step}" for step in range(1, num_steps + 1))


def step_accuracies_in(split: str, values: Iterable[str]) -> list[str]:
    """Returns those of the names that step_accuracy_names gives for some number of steps, in the order of the steps."""
    start = f"{split}/accuracy_step_"
    return sorted((name for name in values if name.startswith(start)), key=lambda name: int(name.removeprefix(start)))
