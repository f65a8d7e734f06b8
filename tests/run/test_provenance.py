"""What provenance.json says about the checkout of a run."""

import subprocess

from quadrant_lstm.run.provenance import git_state


def git(folder, *arguments):
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_changed_files_are_named_except_those_in_outputs(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "outputs").mkdir()
    code, kept = tmp_path / "src" / "code.py", tmp_path / "outputs" / ".gitkeep"
    code.write_text("1")
    kept.write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    kept.unlink()
    assert git_state(code.parent)["changed"] == []
    code.write_text("2")
    (tmp_path / "new.py").write_text("")
    assert git_state(code.parent)["changed"] == [" M src/code.py", "?? new.py"]


def test_a_folder_outside_a_checkout_has_no_state(tmp_path):
    assert git_state(tmp_path) is None
