"""Runs whose encoder is a pretrained network: read from a file, frozen for some epochs, then trained."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from quadrant_lstm import load_run
from tests.clips import write_clip_folder
from tests.folders import checkpoint_of, run_folder, tiny_data
from tests.scripts import Script, succeeds, waiting_after

NAME = "shufflenet_v2_x0_5"
TWO_PROCESSES = """
import torch
from torch import distributed
from quadrant_lstm.callbacks.checkpoints import Checkpoints
save = Checkpoints.on_train_epoch_end
def compare_and_save(self, trainer, module):
    weights = torch.cat([weight.detach().flatten() for weight in module.parameters()])
    of_both = [torch.empty_like(weights) for _ in range(2)]
    distributed.all_gather(of_both, weights)
    assert torch.equal(*of_both)
    save(self, trainer, module)
Checkpoints.on_train_epoch_end = compare_and_save
"""


def images(cwd: Path) -> tuple[str, ...]:
    return *tiny_data(cwd), "data.validation_images=40", "data.batch_size=80"


def clips(cwd: Path) -> tuple[str, ...]:
    """Their features are kept while the encoder is frozen."""
    root = write_clip_folder(cwd / "clips", per_class=6, num_frames=[4, 5, 9])
    options = ("data.layout=THWC", "data.size=[32,32]", "data.num_frames=4", "data.sampling=uniform")
    return "data=clips", f"data.root={root}", *options, "data.batch_size=4", "data.num_workers=1"


def words(cwd: Path, data: Callable[[Path], tuple[str, ...]] = images) -> tuple[str, ...]:
    """Returns the arguments of a run of four epochs, whose encoder is frozen for two, and writes the encoder's file."""
    torch.manual_seed(0)
    torch.save(get_model(NAME).state_dict(), cwd / "weights.pth")
    return (
        *data(cwd), "model=join", "model/encoder=resnet18",
        f"model.encoder.name={NAME}", "model.encoder.weights=weights.pth", "model.encoder.frozen=2",
        "model.encoder.lr_factor=0.1", "trainer.max_epochs=4", "~trainer.callbacks.dashboard",
    )  # fmt: skip


def is_pretrained(cwd: Path, weights: dict[str, torch.Tensor]) -> bool:
    """Tells whether the encoder of the run still has these weights."""
    prefix, state = "network.encoder.module.module.", checkpoint_of(run_folder(cwd))["state_dict"]
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return all(torch.equal(value, weights[key]) for key, value in own.items())


@pytest.mark.parametrize(("schedule", "data", "kills"), [("constant", images, [2]), ("onecycle", clips, [1, 3])])
def test_a_run_resumes_exactly_before_at_and_after_the_epoch_that_unfreezes_its_encoder(
    schedule, data, kills, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for cwd in (whole, killed):
        cwd.mkdir()
    succeeds("train.py", *words(whole, data), f"schedule={schedule}", cwd=whole, HOME=str(whole))
    kept = whole / ".cache/quadrant_lstm/features"
    assert kept.exists() == (data == clips)
    command = (*words(killed, data), f"schedule={schedule}")
    pretrained = torch.load(killed / "weights.pth")
    for epoch in kills:
        home = killed / f"home{epoch}"  # features are computed anew
        process = Script("train.py", *command, cwd=killed, before=waiting_after(epoch), environment={"HOME": str(home)})
        assert any(line.startswith(f"epoch {epoch}/4") for line in process.lines()), process.stderr
        process.kill()
        assert is_pretrained(killed, pretrained) == (epoch < 3)
        command = ("run=latest",)
        (killed / "weights.pth").unlink(missing_ok=True)  # the checkpoint holds them
    succeeds("train.py", *command, cwd=killed)
    one, other = (checkpoint_of(run_folder(cwd)) for cwd in (whole, killed))
    torch.testing.assert_close(other["state_dict"], one["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(other["optimizer_states"], one["optimizer_states"], rtol=0, atol=0)
    rates = [group["lr"] for group in one["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx([rates[0], rates[0] / 10])
    network, _ = load_run(run_folder(killed))
    assert network.encoder.module.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_two_processes_keep_features_and_unfreeze_an_encoder_together(tmp_path):
    options = (*words(tmp_path, clips), "trainer.accelerator=cpu", "trainer.devices=2")
    succeeds("train.py", *options, cwd=tmp_path, before=TWO_PROCESSES, HOME=str(tmp_path))
    assert not is_pretrained(tmp_path, torch.load(tmp_path / "weights.pth"))
    kept = {file.name for file in (tmp_path / ".cache/quadrant_lstm/features").glob("*/*")}
    contents = {sha256(file.read_bytes()).hexdigest() for file in (tmp_path / "clips").glob("train/*/*")}
    assert kept == contents
