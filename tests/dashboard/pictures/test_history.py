from quadrant_lstm.dashboard.pictures.history import HISTORIES, draw_history


def test_the_history_has_a_curve_for_each_column():
    rows = [{"epoch": str(epoch), "train/loss": str(1 / epoch), "val/loss": ""} for epoch in (1, 2, 3)]
    loss, accuracy, steps = (draw_history(title, rows, 2).axes[0] for title in HISTORIES)
    curve, best = loss.lines
    assert list(curve.get_ydata()) == [1, 1 / 2, 1 / 3]
    assert best.get_xdata()[0] == 2
    assert len(accuracy.lines) == len(steps.lines) == 1
