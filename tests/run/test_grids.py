"""Trains, tests and exports on grids other than the question's."""

import io

import pytest
import torch

from quadrant_lstm import sequences
from quadrant_lstm.data.orderings import SequenceSpec, numbered_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.build import build_data, build_network
from quadrant_lstm.run.export import export
from quadrant_lstm.run.exported_program import cut_images, program_file
from quadrant_lstm.run_folder import read_results, read_rows
from tests.configs import composed_config
from tests.folders import TINY, run_folder, tiny_data
from tests.scripts import script

MODELS = {
    "cnn_lstm": ("model=cnn_lstm", "model.kernel_size=2", "model.filters=[3,4]"),
    "without recurrence": ("model=cnn_lstm", "model.kernel_size=2", "model.filters=[3]", "model/recurrent=concat"),
    "deep": ("model=deep", "model.blocks=[[4],[6]]"),
    "reshaped": ("model=reshaped", "model.kernel_size=2", "model.filters=[3]"),
    "join": ("model=join", "model/encoder=rows", "model/recurrent=bilstm"),
    "maps": ("model=join", "model/recurrent=conv_lstm", "model.encoder.kernel_size=2", "model.encoder.filters=[3]"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("grid", "orderings", "frame"),
    [
        ("[4,4]", "[rows,snake,spiral]", (1, 21, 7)),
        ("[7,4]", '["random:1"]', (1, 4, 7)),
        ("[1,2]", "[rows]", (1, 28, 14)),
    ],
)
def test_every_network_reads_any_grid(model, grid, orderings, frame):
    cfg = composed_config(*MODELS[model], f"data.grid={grid}", f"data.orderings={orderings}")
    data = build_data(cfg)
    assert data.spec.frame_shape == frame
    network = build_network(cfg, data.spec).eval()
    frames = torch.rand(2, data.spec.num_steps, *frame)
    assert network(frames).shape == (2, 10)


def test_a_program_cuts_its_images_on_the_grid_of_the_run():
    cfg = composed_config("data.grid=[4,2]", "data.orderings=[snake,reversed-columns]", *MODELS["cnn_lstm"])
    network = build_network(cfg, SequenceSpec((1, 14, 14), 8, numbered_names(10))).eval()
    inputs = cut_images((1, 28, 28), cfg.data.orderings, cfg.data.grid)
    program = torch.export.load(io.BytesIO(program_file("torch", network, inputs, {}).content)).module()
    images = torch.rand(2, 1, 28, 28)
    frames = sequences(images, cfg.data.orderings, cfg.data.grid)
    torch.testing.assert_close(program(images), network(frames).softmax(1), atol=1e-6, rtol=0)


def test_a_run_on_a_grid_has_an_accuracy_for_each_step_and_is_tested_again(tmp_path):
    data = tiny_data(tmp_path)
    sizes = ("model.kernel_size=1", "model.pool_size=1", "data.grid=[4,2]", "data.orderings=[rows,hilbert]")
    with pytest.raises(UserError, match="hilbert needs a grid of 2 x 2, 4 x 4, 8 x 8, ..., not 4 x 2;"):
        build_data(composed_config(*data, *TINY, *sizes))
    words = (*sizes[:-1], "data.orderings=[rows,snake]", "trainer.max_epochs=1")
    done = script("train.py", *data, *TINY[1:], *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = run_folder(tmp_path)
    row = read_rows(run / "metrics.csv")[0]
    assert all(row[f"val/accuracy_step_{step}"] for step in range(1, 9))
    results = read_results(run)
    assert results["test/accuracy_step_8"] == results["test/accuracy"]
    again = script("evaluate.py", "run=latest", cwd=tmp_path)
    assert f"{'test/accuracy':20}  {results['test/accuracy']}\n" in again.stdout
    with pytest.raises(
        UserError, match=r"format=html: data.grid is \[4, 2\], but the page cuts quadrants; use format=o"
    ):
        export(run, "html")
