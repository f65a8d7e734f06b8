import pytest

from quadrant_lstm.benchmark.all_reduce import all_reduce_seconds, computed_table
from quadrant_lstm.benchmark.processes import OWN, TORCHRUN, measured_table
from quadrant_lstm.benchmark.report import Rounds


def test_one_device_has_nothing_to_reduce():
    assert all_reduce_seconds(375_000, 1, 1e9) == (0, 0)


def test_a_ring_sends_each_part_twice_and_a_tree_sends_everything_up_and_down():
    ring, tree = all_reduce_seconds(8_000_000, 8, 1e9)  # 14 messages of 1 ms; 3 levels, 16 ms
    assert ring == pytest.approx(14 * (25e-6 + 1e-3))
    assert tree == pytest.approx(2 * 3 * 25e-6 + 16e-3)


def test_the_measured_table_shows_medians_and_ranges():
    names = [f"{way} {devices}" for way in (OWN, TORCHRUN) for devices in (1, 2)]
    measured = {
        "speed": Rounds({name: [6400.0, 3200.0, 3200.0] for name in names}),
        "start": Rounds({name: [5.0] for name in names}),
        "restart": Rounds({TORCHRUN: [7.0, 8.0, 9.0]}),
    }
    lines = list(measured_table(measured))
    assert lines[2] == "| images per second, one process | 3200 (3200 to 6400) | 3200 (3200 to 6400) |"
    assert lines[-1].endswith("| the run ends | 8.0 (7.0 to 9.0) |")


def test_the_computed_table_shows_shares_of_a_training_step():
    title, _, columns, _, *rows = computed_table({64: 0.02, 512: 0.2})
    assert title.startswith("Computed: an all-reduce of 375 kB, ")
    assert columns.endswith("| ring / step of 64 images, 20 ms | ring / step of 512 images, 200 ms |")
    assert rows[2] == "| 8 | 10 Gbit/s | 0.87 ms | 0.75 ms | 4.4 % | 0.4 % |"
