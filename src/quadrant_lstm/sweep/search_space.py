"""Makes the search space of a search from the overrides of its command. Imports optuna."""

from typing import Any

from hydra.core.override_parser.types import Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from quadrant_lstm.errors import UserError

Space = dict[str, BaseDistribution]


def distribution(override: Override) -> BaseDistribution:
    """Converts KEY=interval(...), range(...), choice(...) or a list to an Optuna distribution.

    The choices of a categorical distribution are the texts of the overrides' values.
    """
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if set(getattr(value, "tags", ())) - {"log"} or (log and not override.is_interval_sweep()):
        raise UserError(f"{override.input_line}: the only tag is log, of an interval; write tag(log,interval(A,B)).")
    try:
        if override.is_interval_sweep():
            if isinstance(value.start, int) and isinstance(value.end, int):
                return IntDistribution(value.start, value.end, log=log)
            return FloatDistribution(value.start, value.end, log=log)
        if override.is_range_sweep():
            numbers = list(value.range())
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(numbers[0], numbers[-1], step=value.step)
            return FloatDistribution(numbers[0], numbers[-1], step=value.step)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        message = f"{override.input_line}: cannot be searched ({error}); give a range from low to high."
        raise UserError(message) from error
