"""What a callback may add to results.json."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HasResults(Protocol):
    def results(self) -> dict[str, Any]:
        """The figures of the training, asked for when it has ended, before the test."""
