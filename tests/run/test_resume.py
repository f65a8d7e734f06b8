"""Tests that a run resumes from whole files only, and that a run folder from somebody else stays in its folder."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quadrant_lstm.callbacks.checkpoints import read_checkpoint, write_checkpoint
from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.load import read_resumed
from quadrant_lstm.run.train import check_resumable
from quadrant_lstm.run_folder import BEST, CONFIG, LAST, METRICS
from tests.folders import TINY, run_folder, tiny_data
from tests.scripts import Script, refused, succeeds


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    """Returns a copy of a run that was interrupted after three epochs."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "results.json").unlink()
    return run


def replace(run: Path, old: str, new: str, name: str = ".hydra/config.yaml") -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: replace(run, "\n2,", "\n9,", METRICS), "metrics.csv: has no row of epoch 2, which has finished"),
        (lambda run: replace(run, "epoch,", "epxch,", METRICS), "metrics.csv: row 1 is damaged; restore the file."),
        (lambda run: replace(run, "\n2,", "\n2,x", METRICS), "metrics.csv: row 2 is damaged; restore the file."),
        (lambda run: replace(run, "val/accuracy,", "val/accurac,", METRICS), "metrics.csv: its header is damaged at"),
        (lambda run: (run / ".hydra/overrides.yaml").write_text("a"), "overrides.yaml: is not a list of overrides"),
        (lambda run: (run / BEST).write_bytes(b""), "best.ckpt: cannot be read"),
        (lambda run: ((run / LAST).unlink(), (run / METRICS).unlink()), "last.ckpt: is missing, but epochs"),
        (lambda run: (run / BEST).unlink(), "best.ckpt: is missing, but epochs of this run"),
    ],
)  # fmt: skip
def test_a_run_whose_files_are_lost_or_damaged_is_not_resumed(damage, message, copied_run):
    damage(copied_run)
    with pytest.raises(UserError, match=re.escape(message)):
        check_resumable(copied_run, read_resumed(copied_run))


def test_a_run_whose_config_was_edited_is_not_validated_on_what_it_was_trained_on(copied_run):
    replace(copied_run, "validation_seed: 0", "validation_seed: 1", CONFIG)
    (line,) = refused("train.py", f"run={copied_run}", "trainer.max_epochs=9", cwd=copied_run.parents[0]).splitlines()
    assert line.startswith("data: other samples are for validation than when this run began; restore its config.yaml")


def test_a_run_that_was_killed_between_its_first_two_checkpoints_begins_again(copied_run):
    (copied_run / "checkpoints/last.ckpt").unlink()
    write_checkpoint({"epoch": 0}, copied_run / "checkpoints/best.ckpt")
    header, first, *later = (copied_run / "metrics.csv").read_text().splitlines(keepends=True)
    (copied_run / "metrics.csv").write_text(header + first)
    assert read_resumed(copied_run) is None
    check_resumable(copied_run, None)
    (copied_run / "metrics.csv").write_text(header + first + later[0])
    with pytest.raises(UserError, match="last.ckpt: is missing, but epochs of this run have finished; restore it, or"):
        check_resumable(copied_run, None)


def test_an_epoch_that_was_lost_after_it_was_kept_is_not_the_best(copied_run, tmp_path):
    """The run was killed between best.ckpt and last.ckpt of epoch 4, and resumes with a worse learning rate."""
    write_checkpoint(read_checkpoint(copied_run / BEST) | {"epoch": 3}, copied_run / BEST)
    succeeds("train.py", f"run={copied_run}", "trainer.max_epochs=4", "optimizer.lr=9", cwd=tmp_path)
    best, last = (read_checkpoint(copied_run / file)["state_dict"] for file in (BEST, LAST))
    torch.testing.assert_close(best, last, rtol=0, atol=0)


def test_a_resumed_run_logs_to_what_it_is_told(copied_run):
    words = hydra_arguments([f"run={copied_run}", "trainer/logger=csv"])
    assert words[-2:] == ["+trainer/logger=csv", "~trainer.logger.tensorboard"]
    both = hydra_arguments([f"run={copied_run}", "trainer/logger=[csv,tensorboard]"])
    assert "~trainer.logger.tensorboard" not in both


def test_an_optimizer_that_needs_other_averages_is_refused(copied_run):
    words = (f"run={copied_run}", "+optimizer.amsgrad=true", "trainer.max_epochs=4")
    line = "optimizer.amsgrad: needs averages that this run has not kept; start a new run."
    assert refused("train.py", *words, cwd=copied_run.parents[0]).strip() == line


def test_a_refused_command_leaves_a_run_as_it_is(copied_run, tmp_path):
    def line_of(*words: str) -> str:
        line = refused("train.py", *words, cwd=tmp_path)
        assert {file: file.read_bytes() for file in files} == files
        return line

    files = {file: file.read_bytes() for file in copied_run.rglob("*") if file.is_file() and file.suffix != ".log"}
    del files[copied_run / "metrics.csv"]
    new = line_of("trainer=smoke", f"hydra.run.dir={copied_run}")
    assert f"{copied_run} contains a run; resume it with run=" in new
    words = (f"run={copied_run}", "trainer.max_epochs=4")
    with FileLock(copied_run / ".lock"):
        assert line_of(*words).endswith("another process works in it; wait for that process or stop it.\n")
    (copied_run / "metrics.csv").unlink()
    assert "metrics.csv: has no row of epoch 1, which has finished; restore it, or" in line_of(*words)
    assert not (copied_run / "metrics.csv").exists()


def test_tensorboard_shows_the_config_that_a_run_resumes_with(copied_run, tmp_path):
    succeeds("train.py", f"run={copied_run}", "trainer.max_epochs=4", "data.batch_size=32", cwd=tmp_path)
    texts = EventAccumulator(str(copied_run)).Reload().Tensors("run/config/text_summary")
    first, resumed = (text.tensor_proto.string_val[0].decode() for text in texts)
    for before, now in (("max_epochs: 3", "max_epochs: 4"), ("batch_size: 16", "batch_size: 32")):
        assert before in first and now in resumed
        assert now in (copied_run / ".hydra/config.yaml").read_text()


def test_a_run_whose_folder_is_moved_while_it_trains_ends(tmp_path):
    process = Script("train.py", *tiny_data(tmp_path), *TINY, "trainer.max_epochs=10000", cwd=tmp_path)
    process.wait_for("outputs/*/*/checkpoints/last.ckpt")
    run_folder(tmp_path).rename(tmp_path / "moved")
    process.wait()
    line = r".*: was deleted or moved while the run was trained; restore it and resume with run=.*, or start again\.\n"
    assert process.returncode == 2, process.stderr
    assert re.fullmatch(line, process.stderr)


LOGGER = "  logger:\n"
CALLBACK = "  callbacks:\n    other:\n      _target_: lightning.pytorch.callbacks.ModelCheckpoint\n      dirpath: {}\n"
CSV = "  logger:\n    csv:\n      _target_: lightning.pytorch.loggers.CSVLogger\n      save_dir: {}\n      name: {}\n"
PROFILER = "  profiler:\n    _target_: lightning.pytorch.profilers.SimpleProfiler\n    filename: {}\n  callbacks:\n"
FOLDER = "${hydra:runtime.output_dir}"


@pytest.mark.parametrize(
    ("old", "new", "key", "path"),
    [
        ("  callbacks:\n", CALLBACK.format("/theirs"), "trainer.callbacks.other.dirpath", "/theirs"),
        ("  callbacks:\n", CALLBACK.format(f"{FOLDER}/../x"), "trainer.callbacks.other.dirpath", f"{FOLDER}/../x"),
        (LOGGER, CSV.format("docs", "a"), "trainer.logger.csv.save_dir", "docs"),
        (LOGGER, CSV.format(FOLDER, "../a"), "trainer.logger.csv.name", "../a"),
        (f"      save_dir: {FOLDER}", "      save_dir: ~/x", "trainer.logger.tensorboard.save_dir", "~/x"),
        ("  callbacks:\n", PROFILER.format("../x"), "trainer.profiler.filename", "../x"),
        ("  dataset: idx\n", "  dataset: KMNIST\n", "data.root", "{root}"),
    ],
)
def test_a_path_out_of_a_run_folder_has_to_be_trusted(old, new, key, path, copied_run, finished_run):
    replace(copied_run, old, new)
    path = path.replace("{root}", str(finished_run.parents[2] / "tiny"))
    message = f"{key}: {path} is outside the run folder; add trust={path} if files may be written there."
    assert_trusted(copied_run, path, message)


def assert_trusted(run: Path, trust: object, message: str) -> None:
    """Resumes the run, which is refused with the message unless that is trusted."""
    with pytest.raises(UserError, match=re.escape(message)):
        hydra_arguments([f"run={run}"])
    assert hydra_arguments([f"run={run}", f"trust={trust}"])


def test_paths_below_the_run_folder_need_no_trust(copied_run):
    replace(copied_run, "  callbacks:\n", CALLBACK.format(f"{FOLDER}/more"))
    replace(copied_run, LOGGER, CSV.format(FOLDER, "a"))
    assert hydra_arguments([f"run={copied_run}"])


@pytest.mark.parametrize("argument", ["offline: false", "offline: true\n      entity: theirs"])
def test_an_upload_has_to_be_trusted(argument, copied_run):
    values = f"      save_dir: {FOLDER}\n      project: a\n      {argument}\n"
    wandb = f"    wandb:\n      _target_: lightning.pytorch.loggers.WandbLogger\n{values}"
    replace(copied_run, LOGGER, LOGGER + wandb)
    assert_trusted(copied_run, "wandb", "trainer.logger.wandb: may upload to a server; add trust=wandb if you trust")


@pytest.mark.parametrize("name", ["checkpoints", "train.log"])
def test_a_link_out_of_a_run_folder_has_to_be_trusted(name, copied_run, tmp_path):
    (copied_run / name).rename(tmp_path / name)
    (copied_run / name).symlink_to(tmp_path / name)
    message = f"{copied_run / name}: links to {tmp_path / name}, outside its folder; replace the link by a copy, or add"
    assert_trusted(copied_run, tmp_path, message)
    (copied_run / name).unlink()
    (copied_run / "original").mkdir()
    (copied_run / name).symlink_to("original")
    assert hydra_arguments([f"run={copied_run}"])


def test_a_log_that_is_hard_linked_is_copied_before_it_grows(copied_run, tmp_path):
    (tmp_path / "other.log").hardlink_to(copied_run / "train.log")
    hydra_arguments([f"run={copied_run}"])
    assert (copied_run / "train.log").read_bytes() == (tmp_path / "other.log").read_bytes()
    assert (copied_run / "train.log").stat().st_nlink == 1
