import multiprocessing
import re

import numpy as np
import pytest
import torch

from benchmarks import clips, measure, question
from benchmarks.__main__ import main
from benchmarks.layers import ways_to_convolve, ways_to_encode, ways_to_share
from benchmarks.measure import cells, table, take_turns
from benchmarks.question import KERAS, OURS, Plain, orderings_for, our_network
from quadrant_lstm import sequences
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.build import build_data
from tests.folders import TINY, tiny_data
from tests.scripts import FORKSERVER, script


@pytest.mark.parametrize("num_orderings", [4, 8])
def test_ours_and_plain_pytorch_are_the_same_network(num_orderings):
    torch.manual_seed(0)
    expected, network = Plain(num_orderings).eval(), our_network(num_orderings).eval()
    network.load_state_dict(dict(zip(network.state_dict(), expected.state_dict().values(), strict=True)))
    frames = sequences(torch.rand(3, 1, 28, 28), orderings_for(num_orderings))
    torch.testing.assert_close(expected(frames), network(frames))


def test_every_way_to_compute_a_layer_gives_the_same():
    encoded = ways_to_encode(clips=2, steps=3, size=12, filters=4)
    torch.testing.assert_close(encoded["TimeDistributed"](), encoded["one fold"]())
    torch.testing.assert_close(encoded["TimeDistributed"](), encoded["a loop over the steps"]())
    every_second = torch.tensor([[1, 0, 1], [0, 1, 0]]).unsqueeze(2)
    torch.testing.assert_close(encoded["half masked"](), encoded["TimeDistributed"]() * every_second)
    maps = ways_to_convolve(clips=2, steps=3, size=6, channels=1, hidden=2)
    torch.testing.assert_close(maps["ConvLSTM"](), maps["convolved together"]())
    torch.testing.assert_close(maps["bf16"]().float(), maps["ConvLSTM"](), rtol=0.1, atol=0.02)
    shared = ways_to_share(4)
    torch.testing.assert_close(shared["shared tiles"](), shared["every frame"](), rtol=1e-4, atol=1e-4)


def test_a_peer_that_runs_in_its_own_process_has_a_column(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "get_context", lambda _: FORKSERVER)  # a spawned process would import torch
    monkeypatch.setattr(question, "PEERS", [OURS])
    monkeypatch.setattr(question, "MORE_ORDERINGS", [OURS._replace(num_orderings=8)])
    measure.write_page(tmp_path / "question.md", question.tables(tmp_path, rounds=1, steps=1, epochs=0))
    page = (tmp_path / "question.md").read_text()
    assert "\n|  | this project, fp32 | this project, fp32, 8 orderings |\n" in page
    for first, unit, least in ("training step", "ms", 0), ("inference", "ms", 0), ("peak main memory", "MB", 100):
        value = re.search(rf"\| {first}.*?\| ([\d,.]+) {unit}", page)[1]
        assert least < float(value.replace(",", "")) < 60_000
    assert (tmp_path / "question.png").is_file()


def test_a_peer_that_cannot_train_says_why(monkeypatch):
    def fail(build):
        raise ModuleNotFoundError("No module named 'tensorflow'\nsecond line")

    monkeypatch.setattr(question, "Process", fail)
    reason = "Keras, TensorFlow, fp32: ModuleNotFoundError: No module named 'tensorflow'"
    assert question.start([KERAS]) == ({}, [reason])


def test_what_is_compared_takes_turns_and_the_first_round_does_not_count():
    turns = iter(range(6))
    ways = {"one": lambda: next(turns), "other": lambda: next(turns)}
    assert take_turns(ways, rounds=2) == {"one": [2, 4], "other": [3, 5]}


def test_a_table_shows_medians_ranges_and_the_ratios_of_each_round():
    measured = {"slow": [100.0, 200.0, 3000.0], "fast": [50.0, 10.0, 1500.0]}
    assert list(cells(measured, "ms")) == [
        "200 ms (100 to 3,000)",
        "50 ms (10 to 1,500), 0.50 (0.28 to 0.50)",  # of 0.5, 0.05 and 0.5
    ]
    lines = list(table("images", [("64", {"one": lambda: 1.0}), ("512", {"one": lambda: 2.5})], 2, "s"))
    assert lines == ["| images | one |\n|---|---|", "| 64 | 1 s (1 to 1) |", "| 512 | 2.5 s (2.5 to 2.5) |"]


@pytest.mark.parametrize("name", clips.FORMATS)
def test_both_ways_read_all_frames(name, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="needs PyAV")
    built = []
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(clips, "NUM_CLIPS", 8)
    monkeypatch.setattr(clips, "SIZE", 32)
    monkeypatch.setattr(clips, "build_data", lambda cfg: built.append(build_data(cfg)) or built[0])
    with multiprocessing.get_context("fork").Pool(1) as pool:
        ways = clips.ways_to_read(pool, tmp_path / "clips", *clips.FORMATS[name])
        assert all(way() > 0 for way in ways.values())
    (data,) = built
    assert {note.num_frames for note in data.notes.values()} == {clips.NUM_FRAMES}
    assert sum(len(batch.labels) for batch in data.train_dataloader()) == len(data.train.samples)


def test_both_ways_to_seek_read_the_same_frames(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="needs PyAV")
    monkeypatch.setattr(clips, "LONG", 640)
    from_start, from_key_frame = clips.ways_to_seek(tmp_path / "long").values()
    frames = from_start.args[-1]
    assert from_start() > 0
    expected = frames.copy()
    frames[:] = 0
    assert from_key_frame() > 0
    assert expected.any() and np.array_equal(frames, expected)


def test_a_run_of_train_py_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(question.subprocess, "run", lambda command, **_: script(*command[1:], cwd=tmp_path))
    speed, start = question.train_py("train.py", *tiny_data(tmp_path), *TINY)
    assert speed > 10
    assert 0 < start < 100


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--rounds=0"], "--rounds: 0 is not a whole number of at least 1; "),
        (["layers", "--epochs=2"], "--epochs: layers has no such option; leave it out."),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    with pytest.raises(UserError, match=f"^{line}"):
        main()
    assert not list(tmp_path.iterdir())
