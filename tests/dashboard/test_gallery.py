"""The pictures of classes with any names."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from quadrant_lstm.dashboard import gallery
from quadrant_lstm.dashboard.dashboard import Dashboard
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.clips import Clips
from quadrant_lstm.model.network import Join
from quadrant_lstm.plotting import as_png
from tests.clips import noise_clip
from tests.networks import RECURRENT, Pooled

NAMES = ["$5_$10", "a$_$b", "\u732b\U000e1000"]  # the last one has a character that no font has


@pytest.fixture
def clips(tmp_path) -> Clips:
    for half in ("train", "test"):
        for name in NAMES:
            (tmp_path / half / name).mkdir(parents=True)
            for number in range(2):
                np.save(tmp_path / half / name / f"{number}.npy", noise_clip(3, seed=number))
    arguments = {
        "num_frames": 3, "frame_step": 1, "size": None, "channels": 3, "layout": "THWC", "test_share": 0.25,
        "validation_share": 0.25, "validation_seed": 0, "batch_size": 3, "num_workers": 0, "cache_gb": 0.0,
        "skip_broken": False, "seed": 1, "augmentation": Augmentation(),
    }  # fmt: skip
    return Clips(str(tmp_path), **arguments)


def all_pictures(data: Clips) -> Iterator[tuple[str, Figure]]:
    logits, labels = torch.zeros(6, 3, 3), torch.arange(6) // 2
    tested = gallery.TestOutputs(torch.arange(6), logits, labels, torch.ones(3, 3, dtype=torch.long))
    yield from gallery.data_pictures(data)
    yield from gallery.prediction_pictures(data, tested)
    yield from gallery.belief_pictures(data, tested)
    sizes = {"dropout": 0.0, "lstm_units": 3, "dense_units": 4, "shared_tiles": False}
    network = Join((3, 12, 16), 3, 3, None, Pooled, RECURRENT["lstm"], **sizes).eval()
    yield from gallery.inside_pictures(network, data, tested)


@pytest.mark.filterwarnings("error")
def test_all_pictures_show_classes_of_any_name(clips):
    assert list(clips.spec.class_names) == NAMES
    assert gallery.drawn_names(clips) == ["$5_$10", "a$_$b", "#3"]
    pictures = dict(all_pictures(clips))
    for figure in pictures.values():
        as_png(figure)
    axes = pictures["test/confusion"].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["$5_$10", "a$_$b", "#3"]
    texts = [text.get_text() for text in pictures["test/mistakes_1"].axes[0].texts]
    assert texts[0] == "a$_$b as $5_$10\n33 %"


def test_a_class_that_no_font_can_write_is_named_in_one_line(clips, caplog):
    dashboard = Dashboard()
    dashboard.number_classes(clips)
    assert dashboard.numbered == {"#3": NAMES[2]}
    (record,) = caplog.records
    assert f"pictures show #3 instead of {NAMES[2]}, and so on. To see the names, install a font" in record.getMessage()
