"""Makes the optimizer and the schedule of a training from their factories, and adjusts those of a resumed run."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler

from quadrant_lstm.errors import UserError

# torch's schedules without one of these arguments are advanced once per epoch
TOTAL_ARGUMENTS = ("total_steps", "T_max")
Made = TypeVar("Made")


def make_optimization(
    optimizer: Callable[..., Optimizer],
    schedule: Callable[..., LRScheduler],
    parameters: Sequence[nn.Parameter],
    num_steps: Callable[[], int | float],
) -> dict[str, Any]:
    """Returns what Lightning's configure_optimizers returns. `num_steps` returns the number of training steps; it is
    called only for a schedule that needs it. Raises UserError.
    """
    made = make("optimizer", optimizer, parameters)
    totals = {name: num_steps() for name in total_arguments(schedule)}
    scheduler = make("schedule", schedule, made, **totals)
    return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": "step" if totals else "epoch"}}


def total_arguments(schedule: Callable[..., LRScheduler]) -> list[str]:
    """Returns the arguments that fix the number of steps of a schedule; without any, a run can train for longer."""
    known = inspect.signature(schedule).parameters
    return [name for name in TOTAL_ARGUMENTS if name in known]


def make(group: str, factory: Callable[..., Made], *arguments: Any, **options: Any) -> Made:
    """Calls the factory of an optimizer or schedule. Raises UserError if it refuses the values of the config."""
    try:
        return factory(*arguments, **options)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{group}: {str(error).rstrip('.')}; change a value of {group}.") from error


def use_settings_of_config(optimizer: Optimizer, scheduler: Any) -> None:
    """Replaces the settings that resuming has restored by those of the config, except those that are scheduled."""
    scheduled = set() if is_constant(scheduler) else {"lr"}
    scheduled |= {"betas", "momentum"} if getattr(scheduler, "cycle_momentum", False) else set()
    for group in optimizer.param_groups:
        group.update({name: value for name, value in optimizer.defaults.items() if name not in scheduled})


def check_planned_steps(scheduler: Any, num_steps: int | float) -> None:
    """Raises UserError if a schedule that resuming has restored was made for another number of training steps."""
    planned = next((vars(scheduler)[name] for name in TOTAL_ARGUMENTS if name in vars(scheduler)), None)
    if planned not in (None, num_steps):
        raise UserError(
            f"trainer.max_epochs: {num_steps:,} steps, but this run's schedule was made for {planned:,} and cannot be "
            "changed; start a new run."
        )


def is_constant(scheduler: Any) -> bool:
    return isinstance(scheduler, ConstantLR) and scheduler.factor == 1


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    return [weights for group in optimizer.param_groups for weights in group["params"]]
