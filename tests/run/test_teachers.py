import copy
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn.functional import cross_entropy

from quadrant_lstm.callbacks.checkpoints import read_checkpoint, write_checkpoint
from quadrant_lstm.dashboard.dashboard import hyperparameters
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import write_json
from quadrant_lstm.model.teachers import Teachers
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import load_teachers
from quadrant_lstm.run_folder import BEST, CONFIG, RESULTS
from tests.configs import composed_config
from tests.folders import TINY, assert_same_weights, tiny_data
from tests.networks import Flat
from tests.scripts import refused, succeeds
from tests.series import write_series_folder


def test_the_mean_gradient_over_all_teachers_is_that_of_their_mean_probabilities():
    torch.manual_seed(0)
    frames, labels, network = torch.randn(5, 4, 1, 2, 2), torch.randint(0, 3, (5,)), Flat()
    networks = [Flat() for _ in range(3)]

    def gradient(losses: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(losses.mean(), network.linear.weight)[0]

    def mixed(teacher: Flat) -> torch.Tensor:
        losses = cross_entropy(logits := network(frames), labels, reduction="none")
        return Teachers([teacher], weight=0.7, temperature=2.0, checksum="").mixed(losses, logits, frames)

    probabilities = torch.stack([(teacher(frames) / 2).softmax(1) for teacher in networks]).mean(0).detach()
    logits = network(frames)
    expected = 0.3 * cross_entropy(logits, labels) + 0.7 * 2**2 * cross_entropy(logits / 2, probabilities)
    mean = torch.stack([gradient(mixed(teacher)) for teacher in networks]).mean(0)
    torch.testing.assert_close(mean, gradient(expected))
    assert mixed(copy.deepcopy(network)).allclose(0.3 * cross_entropy(logits, labels, reduction="none"))


@pytest.mark.parametrize("temperature", [1.0, 20.0, 100.0])
def test_the_divergence_of_half_precision_is_that_of_floats(temperature):
    torch.manual_seed(0)
    teacher, frames = Flat(), torch.randn(64, 4, 1, 2, 2)
    teachers = Teachers([teacher], weight=1.0, temperature=temperature, checksum="")
    logits = (teacher(frames) + 0.3 * torch.randn(64, 3)).detach()
    expected = teachers.mixed(torch.zeros(64), logits, frames)
    with torch.autocast("cpu", torch.bfloat16):
        half = teachers.mixed(torch.zeros(64), logits.bfloat16(), frames)
    torch.testing.assert_close(half.mean(), expected.mean(), rtol=0.05, atol=1e-3)
    assert half.min() > -1e-3


def test_each_training_step_asks_one_of_all_teachers():
    torch.manual_seed(0)
    network, frames = Flat(), torch.randn(1, 4, 1, 2, 2)
    teachers = Teachers([Flat() for _ in range(3)], weight=1.0, temperature=1.0, checksum="")
    losses = {teachers.mixed(torch.zeros(1), network(frames), frames).item() for _ in range(30)}
    assert len(losses) == 3


@pytest.fixture
def sweep(finished_run: Path, tmp_path: Path) -> Path:
    """Returns a folder with two finished jobs, whose networks differ, one that has not finished, and a pruned one."""
    for number in range(4):
        shutil.copytree(finished_run, tmp_path / "sweep" / str(number))
    change(tmp_path / "sweep/1" / BEST)
    (tmp_path / "sweep/2" / RESULTS).unlink()
    write_json(tmp_path / "sweep/3" / RESULTS, {"pruned": True})
    return tmp_path / "sweep"


def change(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint)
    content["state_dict"]["network.head.bias"] += 1
    write_checkpoint(content, checkpoint)


def load(cwd: Path, teacher: Path, *words: str, **sizes: int) -> Teachers:
    """Loads the teachers of a run on the tiny data."""
    cfg = composed_config(*tiny_data(cwd, **sizes), *TINY, f"teacher={teacher}", *words)
    return load_teachers(cfg, build_data(cfg))


def test_a_run_with_teachers_resumes_exactly_and_not_with_others(sweep, tmp_path):
    words = (*tiny_data(tmp_path), *TINY, f"teacher={sweep}")
    interrupted, whole = tmp_path / "interrupted", tmp_path / "whole"
    done = succeeds("train.py", *words, "trainer.max_epochs=2", f"hydra.run.dir={whole}", cwd=tmp_path)
    assert "teacher: 2 networks of sweep" in done.stdout
    succeeds("train.py", *words, "trainer.max_epochs=1", f"hydra.run.dir={interrupted}", cwd=tmp_path)
    resume = ("train.py", f"run={interrupted}", "trainer.max_epochs=2")
    change(sweep / "1" / BEST)
    assert refused(*resume, cwd=tmp_path) == (
        "teacher: holds other networks than when this run began; restore them, or start a new run.\n"
    )
    (sweep / "1" / BEST).unlink()
    shutil.copy(sweep / "0" / BEST, sweep / "1" / BEST)
    change(sweep / "1" / BEST)
    succeeds(*resume, cwd=tmp_path)
    assert_same_weights(whole, interrupted)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.fold=0",), "data.fold: 0, but the teacher .*/0 was trained with null; write the same value, or choose"),
        (("data.orderings=[[4,3,2,1]]",), "data.orderings: .*, but the teacher .* was trained with"),
        ((), "teacher: .*/0 was trained on other files; train it again on these."),
    ],
)
def test_a_teacher_that_saw_other_samples_is_refused(words, message, sweep, tmp_path):
    with pytest.raises(UserError, match=message):
        load(tmp_path, sweep, *words, train=200 if words else 199)


def test_a_key_that_a_teacher_or_its_student_lacks_has_its_default(sweep, tmp_path):
    recorded = OmegaConf.load(sweep / "0" / CONFIG)
    number = recorded.data.pop("num_folds")
    OmegaConf.save(recorded, sweep / "0" / CONFIG)
    assert number == 5 and len(load(tmp_path, sweep / "0").networks) == 1
    recorded.data.update({"fold": 0, "num_folds": 3})
    OmegaConf.save(recorded, sweep / "0" / CONFIG)
    with pytest.raises(UserError, match="data.num_folds: 5, but the teacher .*/0 was trained with 3; write the same"):
        load(tmp_path, sweep / "0", "data.fold=0", "~data.num_folds")


def test_a_teacher_without_a_checksum_of_its_data_is_refused(sweep, tmp_path):
    (sweep / "1/provenance.json").unlink()
    with pytest.raises(UserError, match="teacher: .*/1/provenance.json does not tell which files it was trained on; "):
        load(tmp_path, sweep)


def test_a_class_of_torch_in_the_model_lets_a_teacher_name_nothing_that_torch_imports(sweep, tmp_path):
    recorded = OmegaConf.load(sweep / "0" / CONFIG)
    recorded.optimizer = {"_target_": "torch.nn.functional.torch.os.system", "command": "true"}
    OmegaConf.save(recorded, sweep / "0" / CONFIG)
    gru = ("model.recurrent._target_=torch.nn.GRU", "+model.recurrent.batch_first=true")
    with pytest.raises(UserError, match="optimizer._target_: torch.nn.functional.torch.os.system is other code; add"):
        load(tmp_path, sweep, *gru)


def test_series_whose_longest_gives_the_number_of_steps_have_teachers(tmp_path):
    series = ("data=series", f"data.root={write_series_folder(tmp_path / 'series')}", "data.batch_size=3")
    words = (*series, "model=join", "model/encoder=none", "~trainer.callbacks.dashboard", "trainer.max_epochs=1")
    succeeds("train.py", *words, f"hydra.run.dir={tmp_path / 'teacher'}", cwd=tmp_path)
    cfg = composed_config(*words, f"teacher={tmp_path / 'teacher'}")
    assert cfg.data.num_frames is None
    teachers = load_teachers(cfg, data := build_data(cfg))
    frames, lengths = torch.randn(2, data.spec.num_steps, *data.spec.frame_shape), torch.tensor([2, 5])
    assert teachers.mixed(torch.zeros(2), torch.zeros(2, 2), frames, lengths).isfinite().all()


def test_keys_of_a_teacher_are_hyperparameters_only_with_a_teacher():
    keys = {"teacher": "a", "teacher_weight": 0.5, "temperature": 1.0}
    with_teacher, without = (hyperparameters(composed_config(*words), []) for words in (["teacher=a"], []))
    assert {key: with_teacher[key] for key in keys} == keys
    assert not keys.keys() & without.keys()
