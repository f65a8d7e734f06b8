import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture(scope="session")
def events(finished_run) -> EventAccumulator:
    """The TensorBoard events of a finished run."""
    return EventAccumulator(str(finished_run), size_guidance={"images": 0, "scalars": 0}).Reload()
