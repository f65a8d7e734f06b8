import signal

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from quadrant_lstm.callbacks.checkpoints import log_points
from tests.networks import trainer


class Ended(Exception):
    pass


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_deferred_until_a_point_is_written(signum, tmp_path, monkeypatch):
    def end(*_):
        raise Ended

    def write_during_signal(*_):
        signal.raise_signal(signum)
        written.append("a point")

    logger, written = TensorBoardLogger(str(tmp_path)), []
    monkeypatch.setattr(logger.experiment, "add_scalar", write_during_signal)
    before = signal.signal(signum, end)
    try:
        with pytest.raises(Ended):
            log_points(trainer(logger), {"a": 1.0}, 0, save=True)
        assert written == ["a point"]
        assert signal.getsignal(signum) is end
    finally:
        signal.signal(signum, before)
