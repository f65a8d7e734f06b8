from quadrant_lstm.dashboard.pictures.history import AFTER_EACH_STEP, HISTORIES, draw_history, histories


def test_the_history_has_a_curve_for_each_column():
    rows = [{"epoch": str(epoch), "train/loss": str(1 / epoch), "val/loss": ""} for epoch in (1, 2, 3)]
    loss, accuracy = (draw_history(title, curves, rows, 2).axes[0] for title, curves in HISTORIES.items())
    curve, best = loss.lines
    assert list(curve.get_ydata()) == [1, 1 / 2, 1 / 3]
    assert best.get_xdata()[0] == 2
    assert len(accuracy.lines) == 1


def test_there_is_no_history_of_the_steps_without_validation():
    row = {"epoch": "1", "val/accuracy_step_1": "0.5", "val/accuracy_step_2": "0.9"}
    assert list(histories([row])[AFTER_EACH_STEP]) == ["val/accuracy_step_1", "val/accuracy_step_2"]
    assert AFTER_EACH_STEP not in histories([dict.fromkeys(row, "")])
    assert AFTER_EACH_STEP not in histories([{"epoch": "1"}])
