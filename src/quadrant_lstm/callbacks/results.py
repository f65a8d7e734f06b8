"""Defines the interface of callbacks that add values to results.json."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HasResults(Protocol):
    def results(self) -> dict[str, Any]:
        """Returns values of the training; called once after it, before the test."""
