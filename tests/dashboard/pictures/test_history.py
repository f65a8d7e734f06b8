from quadrant_lstm.dashboard.report import AFTER_EACH_STEP, HISTORIES, draw_history, histories


def test_the_history_has_a_curve_for_each_column():
    rows = [{"epoch": str(epoch), "train/loss": str(1 / epoch), "val/loss": ""} for epoch in (1, 2, 3)]
    loss, accuracy = (draw_history(curves, rows, 2).axes[0] for curves in HISTORIES.values())
    curve, best = loss.lines
    assert list(curve.get_ydata()) == [1, 1 / 2, 1 / 3]
    assert best.get_xdata()[0] == 2
    assert len(accuracy.lines) == 1


def test_the_legend_covers_no_curve_and_names_the_dotted_line():
    names = [f"val/accuracy_step_{step}" for step in range(1, 17)]
    rows = [{"epoch": str(epoch)} | dict.fromkeys(names, "0.5") for epoch in (1, 2)]
    figure = draw_history(histories(rows)[AFTER_EACH_STEP], rows, 2)
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"step {step}" for step in range(2, 17, 2)), "tested epoch"
    ]  # fmt: skip
    assert legend.get_window_extent().x0 > axes.get_window_extent().x1


def test_there_is_no_history_of_the_steps_without_validation():
    row = {"epoch": "1", "val/accuracy_step_1": "0.5", "val/accuracy_step_2": "0.9"}
    assert list(histories([row])[AFTER_EACH_STEP]) == ["val/accuracy_step_1", "val/accuracy_step_2"]
    assert AFTER_EACH_STEP not in histories([dict.fromkeys(row, "")])
    assert AFTER_EACH_STEP not in histories([{"epoch": "1"}])
