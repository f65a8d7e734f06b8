import lightning.pytorch as pl
import pytest
from torch.utils.data import DataLoader

from quadrant_lstm.callbacks.training import EarlyStopping
from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import run_folder
from tests.networks import trainer
from tests.scripts import script, train_tiny

PATIENCE = "trainer.callbacks.early_stopping.patience"
NINE_EPOCHS = ("trainer.max_epochs=9", "trainer/callbacks=early_stopping")


class Logs(pl.LightningModule):
    """Logs a given value in each epoch."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def training_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        pass

    def on_train_epoch_end(self):
        self.log(self.name, self.values[self.current_epoch])


@pytest.mark.parametrize(
    ("monitor", "min_delta", "values", "epochs"),
    [
        ("val/accuracy", 0.0, [0.5, 0.6, 0.6, 0.6, 0.6, 0.9], 4),
        ("val/loss", 0.0, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 6),
        ("val/loss", 2.0, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 3),
        ("val/accuracy", 0.0, [0.5, 0.6, 0.7, 0.8, 0.8, 0.8], 6),  # patience ends with the last epoch
    ],
)
def test_training_stops_after_two_epochs_without_improvement(monitor, min_delta, values, epochs):
    stopping = EarlyStopping(monitor, patience=2, min_delta=min_delta)
    training = trainer(max_epochs=6, callbacks=[stopping])
    training.fit(Logs(monitor, values), DataLoader(range(1)))
    assert training.current_epoch == epochs
    assert stopping.results() == ({"stopped_early": True} if epochs < 6 else {})


def epochs(run):
    return [int(row["epoch"]) for row in read_rows(run / "metrics.csv")]


def test_a_run_that_stopped_early_is_resumed_only_with_more_patience_or_none(tmp_path):
    done = train_tiny(tmp_path, *NINE_EPOCHS, "optimizer.lr=1e-30", "model.dropout=0", f"{PATIENCE}=2")
    assert "val/accuracy has not improved for 2 epochs; training stops" in done.stdout
    run = run_folder(tmp_path)
    assert read_results(run)["stopped_early"] is True
    assert epochs(run) == [1, 2, 3]
    refused = script("train.py", f"run={run}", cwd=tmp_path)
    assert refused.returncode == 2
    assert f"has finished its 3 epochs, by early stopping; to train longer, raise {PATIENCE}" in refused.stderr
    (run / "results.json").unlink()  # as if it had been interrupted after it stopped
    assert script("train.py", f"run={run}", cwd=tmp_path).returncode == 0
    assert epochs(run) == [1, 2, 3]
    assert read_results(run)["stopped_early"] is True
    assert script("train.py", f"run={run}", f"{PATIENCE}=3", cwd=tmp_path).returncode == 0
    assert epochs(run) == [1, 2, 3, 4]
    without = ("~trainer.callbacks.early_stopping", "trainer.max_epochs=5")
    assert script("train.py", f"run={run}", *without, cwd=tmp_path).returncode == 0
    assert epochs(run) == [1, 2, 3, 4, 5]
