"""Tests format=keras and quadrant_lstm.from_keras: networks that go to Keras and come from it keep their logits."""

import itertools
import re

import keras
import numpy as np
import pytest
import torch
from keras import layers

from quadrant_lstm import load_run, sequences
from quadrant_lstm.cli.arguments import hydra_arguments
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import ORDERINGS, QUADRANTS, SequenceSpec, numbered_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.from_keras import main, make_run
from quadrant_lstm.model.rnn import GRU
from quadrant_lstm.run import keras_model
from quadrant_lstm.run.export import keras_file
from quadrant_lstm.run.exported_program import cut_images
from quadrant_lstm.run.keras_model import KerasSizes, build_keras_model, sizes_of_keras, sizes_of_network
from tests.networks import QUESTION, question_network, small_network
from tests.scripts import ROOT, succeeds

SIZES = KerasSizes(filters=[4, 6], kernel_size=5, pool_size=2, dropout=0.1, lstm_units=7, dense_units=8)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def frames():
    return sequences(torch.from_numpy(load_images("mnist", None).test_images[:20])).float() / 255


def assert_equal_outputs(folder, model, inputs, frames):
    network, _ = load_run(folder)
    with torch.no_grad():
        expected = torch.as_tensor(model(inputs)).cpu()
        outputs = network(frames)
    outputs = outputs if (expected < 0).any() else outputs.softmax(1)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=0)
    assert expected.std(dim=0).max() > 1e-3  # not the same for all frames


@pytest.mark.parametrize(
    ("flatten", "end", "channels"),
    [
        ([layers.TimeDistributed(layers.Flatten()), layers.TimeDistributed(layers.Dropout(0.25))],
         [layers.Activation("softmax")], "channels_first"),
        ([layers.Dropout(0.25), layers.Reshape((4, 4160))], [layers.Softmax()], "channels_last"),
        ([layers.Dropout(0.25), layers.Reshape((4, 4160))], [], "channels_first"),
    ],
)  # fmt: skip
def test_the_network_as_it_was_posted_keeps_its_outputs(flatten, end, channels, tmp_path, frames):
    """Its author made layers of the activations."""
    keras.utils.set_random_seed(0)
    inputs = frames if channels == "channels_first" else frames.movedim(2, -1)
    encoder = [
        layers.Conv2D(32, 3, data_format=channels), layers.Activation("relu"),
        layers.Conv2D(32, 3, data_format=channels), layers.Activation("relu"),
        layers.MaxPooling2D(2, data_format=channels),
    ]  # fmt: skip
    rest = [layers.LSTM(5), layers.Dense(50), layers.Dense(10), *end]
    folded = map(layers.TimeDistributed, encoder)
    model = keras.Sequential([keras.Input(inputs.shape[1:]), *folded, *flatten, *rest])
    rng = np.random.default_rng(0)  # with the initial weights, all probabilities are about 0.1
    model.set_weights([weight + 0.1 * rng.standard_normal(weight.shape) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    make_run(tmp_path / "model.keras", tmp_path / "run", [])
    assert_equal_outputs(tmp_path / "run", model, inputs, frames)


def test_a_network_keeps_its_sizes_and_logits_in_keras_and_back(tmp_path, frames):
    network = question_network(shared_tiles=True, dropout=0.1).eval()
    images = cut_images((1, 28, 28), ORDERINGS, QUADRANTS)
    (tmp_path / "network.keras").write_bytes(keras_file(network, QUESTION, images))
    model = keras.saving.load_model(tmp_path / "network.keras")
    make_run(tmp_path / "network.keras", tmp_path / "run", [])
    assert_equal_outputs(tmp_path / "run", model, frames.movedim(2, -1), frames)
    torch.testing.assert_close(load_run(tmp_path / "run")[0](frames), network(frames), atol=1e-5, rtol=0)
    assert load_run(tmp_path / "run")[1].model.dropout == 0.1
    with pytest.raises(UserError, match=r"run holds weights, but no training to resume; begin a new one with init="):
        hydra_arguments([f"run={tmp_path / 'run'}"])


def test_a_new_network_is_initialized_like_keras():
    keras.utils.set_random_seed(0)
    network, copy, model = question_network(), question_network(), build_keras_model(KerasSizes(), QUESTION)
    assert model.count_params() == 93698 == 93718 - 4 * 5  # one bias of the LSTM less
    keras_model.copy_from_keras(model, copy)
    for (name, ours), theirs in zip(network.state_dict().items(), copy.state_dict().values(), strict=True):
        if "bias" in name:
            assert torch.equal(ours, theirs), name
        elif name == "recurrent.weight_hh_l0":
            for weights in (ours, theirs):
                torch.testing.assert_close(weights.T @ weights, torch.eye(5))
        else:
            assert ours.abs().max() == pytest.approx(theirs.abs().max().item(), rel=0.03), name
            assert ours.std() == pytest.approx(theirs.std().item(), rel=0.15), name


def test_a_model_in_half_precision_is_read_in_single_precision(tmp_path, frames):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = changed()
    finally:
        keras.config.set_dtype_policy("float32")
    single = changed()
    single.set_weights(half.get_weights())
    half.save(tmp_path / "model.keras")
    make_run(tmp_path / "model.keras", tmp_path / "run", [])
    assert_equal_outputs(tmp_path / "run", single, frames.movedim(2, -1), frames)


def test_the_sizes_of_a_network_are_those_of_its_model():
    network, spec = small_network(), SequenceSpec((1, 32, 8), 4, numbered_names(3))
    assert sizes_of_network(network) == KerasSizes([2, 3], 3, 2, 0.25, 5, 4)
    model = build_keras_model(sizes_of_network(network), spec)
    assert sizes_of_keras(model) == (sizes_of_network(network), [1, 32, 8], 3)
    for other in (torch.nn.Linear(1, 1), question_network(lstm_units=3, recurrent=GRU)):
        with pytest.raises(UserError, match="format=keras: writes model=cnn_lstm with one LSTM layer in one direction"):
            sizes_of_network(other)


def nan_weights():
    model = build_keras_model(SIZES, QUESTION)
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    return model


def twice(name: str):
    """Returns a model that uses a layer twice."""
    # positive weights: of negative ones, ReLU would leave zeros, which all layers keep
    conv = layers.TimeDistributed(layers.Conv2D(1, 3, activation="relu", kernel_initializer="ones"))
    dense = layers.Dense(5)
    frames = keras.Input((4, 56, 14, 1))
    maps = conv(conv(frames)) if name == "conv" else conv(frames)
    features = layers.TimeDistributed(layers.Flatten())(layers.TimeDistributed(layers.MaxPooling2D(2))(maps))
    state = dense(layers.LSTM(5)(layers.Dropout(0.25)(features)))
    return keras.Model(frames, layers.Dense(10)(dense(state) if name == "dense" else state))


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (nan_weights, [], "has weights that are NaN or infinite; save the model of an earlier epoch."),
        (lambda: twice("conv"), [], "connect its layers one after another, each once"),
        (lambda: twice("dense"), [], "connect its layers one after another, each once, and let a Reshape keep the st"),
        (lambda: changed(dropout=layers.Reshape((2, 1296)), flatten=layers.Dropout(0.25)), [], "connect its layers"),
        (lambda: changed(lstm=layers.GRU(5)), [], "the model has the layers Conv2D, MaxPooling2D, Flatten, Dropout, "),
        (lambda: changed(), ["model.lstm_units=9"], "model.keras has the sizes of its network; leave it out."),
        (lambda: changed(), ["seed=1,2"], "seed: 1,2 are several values; write one of them, or a list in brackets."),
        (lambda: changed(), ["data.orderings=[[1,2,3,4],[4,3,2,1]]"], "reads 4 frames [1, 56, 14] of 10 classes, but "
         "the data have 4 of [1, 28, 14] and 10; add data=, data.grid= or data.orderings= as in its training."),
        (None, [], "model.keras: cannot be read as a Keras model ("),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused(make, words, message, tmp_path):
    make().save(tmp_path / "model.keras") if make else (tmp_path / "model.keras").touch()
    with pytest.raises(UserError, match=re.escape(message)):
        make_run(tmp_path / "model.keras", tmp_path / "run", words)
    assert not (tmp_path / "run").exists()


def changed(**changes):
    """Returns the question's model in which the layer of each given name is replaced, by one or by several."""
    parts = {
        "conv": layers.Conv2D(4, 3, activation="relu"), "pool": layers.MaxPooling2D(2), "flatten": layers.Flatten(),
        "dropout": layers.Dropout(0.25), "lstm": layers.LSTM(5), "dense": layers.Dense(6), "head": layers.Dense(10),
    } | changes  # fmt: skip
    listed = {name: part if isinstance(part, list) else [part] for name, part in parts.items()}
    folded = [layers.TimeDistributed(layer) for name in ("conv", "pool", "flatten") for layer in listed.pop(name)]
    return keras.Sequential([keras.Input((4, 56, 14, 1)), *folded, *itertools.chain(*listed.values())])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv": layers.Conv2D(4, 3, activation="relu", padding="same")}, "has padding=same; it must be valid"),
        ({"conv": layers.Conv2D(4, 3)}, "has activation=linear; it must be relu"),
        ({"conv": layers.Conv2D(4, (3, 5), activation="relu")}, r"has kernel_size=\(3, 5\); it must be \(3, 3\)"),
        ({"pool": layers.MaxPooling2D(2, strides=1)}, r"has strides=\(1, 1\); it must be \(2, 2\)"),
        ({"lstm": layers.LSTM(5, go_backwards=True)}, "has go_backwards=True; it must be False"),
        ({"head": layers.Dense(10, activation="sigmoid")}, "has activation=sigmoid; it must be linear"),
        ({"conv": [layers.Conv2D(4, 3), layers.Activation("tanh")]}, "Conv2D. has activation=tanh; it must be relu"),
        ({"conv": [layers.Conv2D(4, 3), layers.ReLU(6)]}, r"ReLU. has max_value=6; it must be None"),
        ({"dense": [layers.Dense(6), layers.Softmax()]}, "Dense. has activation=softmax; it must be linear"),
        ({"pool": [layers.MaxPooling2D(2), layers.Softmax()]}, "has the layers Conv2D, MaxPooling2D, Softmax, Flatten"),
        ({"lstm": [layers.LSTM(5), layers.Activation("relu")]}, "has the layers .*, LSTM, Activation, Dense, Dense; "),
        ({"head": [layers.Dense(10), layers.Softmax(axis=0)]}, "Softmax. has axis=0; it must be -1"),
    ],
)
def test_another_network_is_refused_by_its_layer(changes, message):
    with pytest.raises(UserError, match=message):
        sizes_of_keras(changed(**changes))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("conf/train.yaml", "run=new"), "conf/train.yaml: is not a .keras file; give one that model.save of Keras 3"),
        (("nowhere.keras", "run=new"), "nowhere.keras: does not exist; give one that model.save of Keras 3 wrote."),
        (("run=new",), "run: is missing or given twice; add run=NEW, the folder to make."),
        (("nowhere.keras", "run=conf"), "run: conf is not an empty folder; write a new one."),
    ],
)
def test_a_wrong_command_is_refused(words, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["from_keras", *words])
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        main()


def test_a_model_is_read_where_no_backend_of_keras_was_chosen(tmp_path):
    build_keras_model(SIZES, QUESTION).save(tmp_path / "model.keras")
    words = ("src/quadrant_lstm/from_keras.py", tmp_path / "model.keras", f"run={tmp_path / 'run'}")
    done = succeeds(*words, cwd=ROOT, before="import os; del os.environ['KERAS_BACKEND']")
    tested, trained = done.stdout.replace("'", "").splitlines()
    assert tested.startswith("python evaluate.py run=")
    assert trained.startswith(f"python train.py init={tmp_path / 'run'} ")
    assert "model.filters=[4,6] model.kernel_size=5" in trained
