import os
import signal
import subprocess
import sys

import pytest

from quadrant_lstm.dashboard.loggers import TensorBoard


def test_writing_events_does_not_import_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise AssertionError('imported')")
    writer = "from quadrant_lstm.dashboard.loggers import TensorBoard; import sys, tensorboard.compat as c"
    events = f"TensorBoard({str(tmp_path)!r}).experiment.add_scalar('a', 1); assert c.tf.__version__ == 'stub'"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", f"{writer}; {events}"], check=True, env=environment)


class Ended(Exception):
    pass


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_deferred_until_a_point_is_written(signum, tmp_path, monkeypatch):
    def end(*_):
        raise Ended

    def write_during_signal(*_):
        signal.raise_signal(signum)
        written.append("a point")

    logger, written = TensorBoard(str(tmp_path)), []
    monkeypatch.setattr(logger.experiment, "add_scalar", write_during_signal)
    before = signal.signal(signum, end)
    try:
        with pytest.raises(Ended):
            logger.log_metrics({"a": 1.0}, 0)
        assert written == ["a point"]
        assert signal.getsignal(signum) is end
    finally:
        signal.signal(signum, before)
