import pytest


@pytest.fixture
def record_figure(record_property):
    """A test's figure: pytest ends with a list of them."""

    def record(figure: str) -> None:
        record_property("figure", figure)

    return record
