"""Says which training samples are held out for validation. In plain Python, for checks of configs."""

from quadrant_lstm.errors import UserError


def validation_range(total: int, held_out: int, fold: int | None, num_folds: int, key: str) -> tuple[int, int]:
    """Returns where the validation samples begin and end among the `total` shuffled training samples.

    They are the first `held_out`, which may be 0, or fold number `fold` of `num_folds`, which are as equal as possible.
    Raises UserError that names `key` if no sample would be left to train on, or if there is no such fold.
    """
    if fold is None:
        if held_out >= total:
            raise UserError(f"{key}: {held_out} of {total} training samples leave none to train on; write fewer.")
        return 0, held_out
    if fold >= num_folds:
        raise UserError(
            f"data.fold: {fold}, but data.num_folds={num_folds} makes folds 0 to {num_folds - 1}; write one."
        )
    if num_folds > total:
        raise UserError(f"data.num_folds: {num_folds}, but there are {total} training samples; write fewer.")
    return fold * total // num_folds, (fold + 1) * total // num_folds
