import pytest

from quadrant_lstm.benchmark.report import BF16, KERAS, OURS, PLAIN, Rounds, picture, table


def measured() -> dict[str, Rounds]:
    peers = Rounds({KERAS: [100.0, 300.0, 200.0], PLAIN: [60.0] * 3, OURS: [20.0] * 3, BF16: [10.0] * 3})
    orderings = {f"{OURS}, 8 orderings": [30.0] * 3, f"{OURS}, 24 orderings": [50.0] * 3}
    return {
        "train 64": Rounds(peers | orderings),
        "train 512": peers,
        "infer 512": peers,
        "peak 64": peers,
        "peak 512": peers,
        "epoch": Rounds(
            {
                f"{KERAS}, fit": [120.0, 60.0, 110.0],
                f"{PLAIN}, a loop": [80.0] * 3,
                "python train.py": [10.0] * 3,
                "python train.py data.batch_size=512": [7.0],
            }
        ),
        "share above a bare loop": Rounds(fp32=[6.0]),
    }


def test_ratios_are_computed_in_each_round():
    assert Rounds(slow=[100.0, 200.0, 30.0], fast=[10.0, 10.0, 10.0]).ratios("slow", "fast") == [10, 20, 3]
    assert Rounds(slow=[100.0]).ratios("slow", "fast") == []
    with pytest.raises(ValueError):
        Rounds(slow=[100.0, 200.0], fast=[10.0]).ratios("slow", "fast")


def test_the_table_shows_each_figure_and_what_was_not_measured():
    text = table(measured(), ["a GPU: torch finds none"])
    assert "| Keras, TensorFlow | 200.0 (100.0 to 300.0) | 1.0 (1.0 to 1.0) |" in text
    ours = "20.0 (20.0 to 20.0) | 10.0 (5.0 to 15.0) | 20 (20 to 20) | 20 (20 to 20) | 10.0 (5.0 to 15.0) | 20 / "
    assert f"| this project, fp32 | {ours}" in text
    assert "| this project, fp32: times as fast as plain PyTorch, fp32, a step of 64 | 3.0 (3.0 to 3.0) |" in text
    assert "| this project, fp32: time of a step with 8 orderings, relative to 4 | 1.5 (1.5 to 1.5) |" in text
    assert "| python train.py: times as fast as Keras, TensorFlow, fit, an epoch | 11.0 (6.0 to 12.0) |" in text
    assert "| python train.py: times as fast as plain PyTorch, fp32, a loop, an epoch | 8.0 (8.0 to 8.0) |" in text
    assert "| an epoch of 60,000 images: python train.py data.batch_size=512 | 7.0 (7.0 to 7.0) s |" in text
    assert "batch_size=512: times" not in text
    assert "| this project, fp32: share of a step of train.py above a bare loop | 6.0 (6.0 to 6.0) % |" in text
    assert text.endswith("Not measured: a GPU: torch finds none.")


def test_without_keras_its_cells_are_empty():
    figures = measured()
    for rounds in figures.values():
        rounds.pop(KERAS, None)
        rounds.pop(f"{KERAS}, fit", None)
    assert "| this project, fp32 | 20.0 (20.0 to 20.0) |  | 20" in table(figures, [])


def test_what_was_not_measured_has_no_row():
    figures = measured()
    for rounds in figures.values():
        rounds.pop(BF16, None)
    assert "bf16" not in table(figures, [])


def test_the_picture_has_one_bar_per_peer():
    figure = picture(measured(), "a machine")
    assert [len(axes.patches) for axes in figure.axes] == [4, 4]
