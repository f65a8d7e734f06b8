from typing import Literal

import pytest

from quadrant_lstm import kinds as values


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (values.Count, "a whole number of at least 1"),
        (int | None, "a whole number or null"),
        (list[float], "a list"),
        (Literal["a", "b"], "one of a, b"),
        (values.Count | Literal["auto"], "a whole number of at least 1 or one of auto"),
    ],
)
def test_a_kind_is_said_in_words(kind, words):
    assert values.in_words(kind) == words
