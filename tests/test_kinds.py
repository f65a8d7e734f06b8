from typing import Literal

import pytest

from quadrant_lstm.kinds import Count, in_words


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Count, "a whole number of at least 1"),
        (int | None, "a whole number or null"),
        (list[float], "a list"),
        (Literal["a", "b"], "one of a, b"),
        (Count | Literal["auto"], "a whole number of at least 1 or one of auto"),
    ],
)
def test_each_kind_has_words_for_errors(kind, words):
    assert in_words(kind) == words
