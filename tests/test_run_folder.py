import os
import subprocess

import pytest

from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import BEST, CONFIG, find_run, locked, new_folder


def test_ten_starts_in_the_same_second_get_ten_folders(tmp_path):
    folders = [new_folder(str(tmp_path / "2026-11-24" / "12-00-00")) for _ in range(10)]
    assert len(set(folders)) == 10
    assert folders[:2] == [str(tmp_path / "2026-11-24" / "12-00-00"), str(tmp_path / "2026-11-24" / "12-00-00-2")]


def test_latest_is_the_newest_run_also_in_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for age, run in enumerate(("outputs/2026-11-24/12-00-00", "outputs/sweeps/2026-11-24/11-00-00/3")):
        config = tmp_path / run / CONFIG
        config.parent.mkdir(parents=True)
        config.write_text("")
        os.utime(config, (age, age))
    assert str(find_run("latest")) == "outputs/sweeps/2026-11-24/11-00-00/3"
    (tmp_path / "outputs/2026-11-24/12-00-00/checkpoints").mkdir()
    (tmp_path / "outputs/2026-11-24/12-00-00" / BEST).write_text("")
    assert str(find_run("latest", BEST)) == "outputs/2026-11-24/12-00-00"


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name in ("link/run", "file/outputs"):
        with pytest.raises(UserError, match="outputs: .* cannot be made .* run in another folder"):
            new_folder(str(tmp_path / name))


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with subprocess.Popen(["true"]) as process:
        ended = process.pid
    left = [tmp_path / f".metrics.csv.{ended}", tmp_path / f"checkpoints/.last.ckpt.{ended}"]
    written_now = tmp_path / f".results.json.{os.getpid()}"
    kept = [tmp_path / "metrics.csv", tmp_path / ".torchrun", tmp_path / "checkpoints/last.ckpt", written_now]
    for file in (*left, *kept):
        file.touch()
    with locked(tmp_path):
        assert not any(file.exists() for file in left)
        assert all(file.exists() for file in kept)
