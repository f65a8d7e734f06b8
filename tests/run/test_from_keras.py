"""Tests format=keras and quadrant_lstm.from_keras: networks that go to Keras and come from it keep their logits."""

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
from quadrant_lstm.run.export import keras_file
from quadrant_lstm.run.exported_program import cut_images
from quadrant_lstm.run.keras_model import KerasSizes, build_keras_model, sizes_of_keras, sizes_of_network
from tests.networks import QUESTION, question_network, small_network
from tests.scripts import ROOT, Script

SIZES = KerasSizes(filters=[4, 6], kernel_size=5, pool_size=2, dropout=0.1, lstm_units=7, dense_units=8)
FRAME_SHAPE = (1, 56, 14)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def frames():
    return sequences(torch.from_numpy(load_images("mnist", None).test_images[:20])).float() / 255


def assert_equal_logits(folder, model, frames):
    network, _ = load_run(folder)
    with torch.no_grad():
        expected = torch.as_tensor(model(frames.movedim(2, -1))).cpu()
        torch.testing.assert_close(network(frames), expected, atol=1e-5, rtol=0)
    assert expected.std(dim=0).min() > 1e-3


def test_a_model_becomes_a_run_with_its_sizes_and_logits(tmp_path, frames):
    model = build_keras_model(SIZES, QUESTION)
    model.save(tmp_path / "model.keras")
    make_run(tmp_path / "model.keras", tmp_path / "run", [])
    assert_equal_logits(tmp_path / "run", model, frames)
    assert load_run(tmp_path / "run")[1].model.dropout == 0.1


def as_posted(flatten, end, channels="channels_last"):
    """Returns the network as the author of the question wrote it. Activations are layers of their own."""
    shape = (4, 1, 56, 14) if channels == "channels_first" else (4, 56, 14, 1)
    encoder = [
        layers.Conv2D(32, 3, data_format=channels), layers.Activation("relu"),
        layers.Conv2D(32, 3, data_format=channels), layers.Activation("relu"),
        layers.MaxPooling2D(2, data_format=channels),
    ]  # fmt: skip
    keras.utils.set_random_seed(0)
    encoder = map(layers.TimeDistributed, encoder)
    rest = [layers.LSTM(5), layers.Dense(50), layers.Dense(10), *end]
    model = keras.Sequential([keras.Input(shape), *encoder, *flatten, *rest])
    rng = np.random.default_rng(0)  # with the initial weights, all probabilities are about 0.1
    model.set_weights([weight + 0.1 * rng.standard_normal(weight.shape) for weight in model.get_weights()])
    return model


def flattened():
    return [layers.TimeDistributed(layers.Flatten()), layers.TimeDistributed(layers.Dropout(0.25))]


def reshaped():
    return [layers.Dropout(0.25), layers.Reshape((4, 4160))]


@pytest.mark.parametrize(
    ("flatten", "end", "channels"),
    [
        (flattened, [layers.Activation("softmax")], "channels_first"),
        (reshaped, [layers.Softmax()], "channels_last"),
        (reshaped, [], "channels_first"),
    ],
)
def test_the_network_as_it_was_posted_keeps_its_outputs(flatten, end, channels, tmp_path, frames):
    model = as_posted(flatten(), end, channels)
    model.save(tmp_path / "model.keras")
    make_run(tmp_path / "model.keras", tmp_path / "run", [])
    network, _ = load_run(tmp_path / "run")
    with torch.no_grad():
        expected = torch.as_tensor(model(frames if channels == "channels_first" else frames.movedim(2, -1))).cpu()
        outputs = network(frames).softmax(1) if end else network(frames)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=0)
    assert expected.std(dim=0).max() > 1e-3  # not the same for all frames


def test_a_model_in_half_precision_is_read(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = changed()
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    make_run(tmp_path / "model.keras", tmp_path / "run", [])


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = build_keras_model(KerasSizes(), QUESTION)
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="model.keras: has weights that are NaN or infinite; save the model of an"):
        make_run(tmp_path / "model.keras", tmp_path / "run", [])


def test_a_model_file_has_its_sizes(tmp_path):
    build_keras_model(SIZES, QUESTION).save(tmp_path / "model.keras")
    with pytest.raises(
        UserError, match=r"^model\.lstm_units=9: .*model\.keras has the sizes of its network; leave it out"
    ):
        make_run(tmp_path / "model.keras", tmp_path / "run", ["model.lstm_units=9"])


@pytest.mark.parametrize("twice", ["convolution", "dense layer"])
def test_a_model_that_uses_a_layer_twice_is_refused(twice, tmp_path):
    # positive weights: of negative ones, ReLU would leave zeros, which all layers keep
    conv = layers.TimeDistributed(layers.Conv2D(1, 3, activation="relu", kernel_initializer="ones"))
    dense = layers.Dense(5)
    frames = keras.Input((4, 56, 14, 1))
    maps = conv(conv(frames)) if twice == "convolution" else conv(frames)
    features = layers.TimeDistributed(layers.Flatten())(layers.TimeDistributed(layers.MaxPooling2D(2))(maps))
    state = dense(layers.LSTM(5)(layers.Dropout(0.25)(features)))
    state = dense(state) if twice == "dense layer" else state
    keras.Model(frames, layers.Dense(10)(state)).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="connect its layers one after another, each once"):
        make_run(tmp_path / "model.keras", tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_a_run_from_keras_is_not_resumed(tmp_path):
    build_keras_model(SIZES, QUESTION).save(tmp_path / "model.keras")
    make_run(tmp_path / "model.keras", tmp_path / "run", [])
    with pytest.raises(UserError, match=r"run holds weights, but no training to resume; begin a new one with init="):
        hydra_arguments([f"run={tmp_path / 'run'}"])


def test_a_network_keeps_its_logits_in_keras_and_back(tmp_path, frames):
    network = question_network(shared_tiles=True).eval()
    images = cut_images((1, 28, 28), ORDERINGS, QUADRANTS)
    (tmp_path / "network.keras").write_bytes(keras_file(network, QUESTION, images))
    model = keras.saving.load_model(tmp_path / "network.keras")
    with torch.no_grad():
        torch.testing.assert_close(
            network(frames), torch.as_tensor(model(frames.movedim(2, -1))).cpu(), atol=1e-5, rtol=0
        )
    make_run(tmp_path / "network.keras", tmp_path / "run", [])
    assert_equal_logits(tmp_path / "run", model, frames)


def test_the_sizes_of_a_network_are_those_of_its_model():
    network, spec = small_network(), SequenceSpec((1, 32, 8), 4, numbered_names(3))
    assert sizes_of_network(network) == KerasSizes([2, 3], 3, 2, 0.25, 5, 4)
    assert sizes_of_keras(build_keras_model(sizes_of_network(network), spec)) == (
        sizes_of_network(network), [1, 32, 8], 3
    )  # fmt: skip


def changed(**changes):
    """Returns the question's model in which the layer of each given name is replaced, by one or by several."""
    parts = {
        "conv": layers.Conv2D(4, 3, activation="relu"), "pool": layers.MaxPooling2D(2), "flatten": layers.Flatten(),
        "dropout": layers.Dropout(0.25), "lstm": layers.LSTM(5), "dense": layers.Dense(6), "head": layers.Dense(10),
    } | changes  # fmt: skip
    listed = {name: part if isinstance(part, list) else [part] for name, part in parts.items()}
    folded = [layers.TimeDistributed(layer) for name in ("conv", "pool", "flatten") for layer in listed.pop(name)]
    return keras.Sequential(
        [keras.Input((4, 56, 14, 1)), *folded, *(layer for part in listed.values() for layer in part)]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv": layers.Conv2D(4, 3, activation="relu", padding="same")}, "has padding=same; it must be valid"),
        ({"conv": layers.Conv2D(4, 3)}, "has activation=linear; it must be relu"),
        ({"conv": layers.Conv2D(4, (3, 5), activation="relu")}, r"has kernel_size=\(3, 5\); it must be \(3, 3\)"),
        ({"pool": layers.MaxPooling2D(2, strides=1)}, r"has strides=\(1, 1\); it must be \(2, 2\)"),
        (
            {"pool": layers.AveragePooling2D(2)},
            "has the layers Conv2D, AveragePooling2D, Flatten, .*; they must be Conv2D",
        ),
        ({"lstm": layers.GRU(5)}, "the model has the layers .*GRU"),
        ({"lstm": layers.LSTM(5, go_backwards=True)}, "has go_backwards=True; it must be False"),
        ({"dense": layers.Dense(6, activation="relu")}, "has activation=relu; it must be linear"),
        ({"head": layers.Dense(10, activation="sigmoid")}, "has activation=sigmoid; it must be linear"),
        ({"conv": [layers.Conv2D(4, 3), layers.Activation("tanh")]}, "Conv2D. has activation=tanh; it must be relu"),
        ({"conv": [layers.Conv2D(4, 3), layers.ReLU(6)]}, r"ReLU. has max_value=6; it must be None"),
        ({"dense": [layers.Dense(6), layers.Activation("relu")]}, "Dense. has activation=relu; it must be linear"),
        ({"dense": [layers.Dense(6), layers.Softmax()]}, "Dense. has activation=softmax; it must be linear"),
        (
            {"pool": [layers.MaxPooling2D(2), layers.Softmax()]},
            "has the layers Conv2D, MaxPooling2D, Softmax, Flatten,",
        ),
        (
            {"lstm": [layers.LSTM(5), layers.Activation("relu")]},
            "has the layers .*, LSTM, Activation, Dense, Dense; they",
        ),
        (
            {"head": [layers.Dense(10), layers.Softmax(), layers.Softmax()]},
            "has the layers .*, Dense, Dense, Softmax; ",
        ),
        ({"head": [layers.Dense(10), layers.Softmax(axis=0)]}, "Softmax. has axis=0; it must be -1"),
        (
            {"dropout": layers.Reshape((2, 1296)), "flatten": layers.Dropout(0.25)},
            r"must be \(4, -1\), a vector for each",
        ),
    ],
)
def test_another_network_is_refused_by_its_layer(changes, message):
    with pytest.raises(UserError, match=message):
        sizes_of_keras(changed(**changes))


def test_a_softmax_at_the_end_changes_no_logits():
    assert sizes_of_keras(changed(head=layers.Dense(10, activation="softmax"))) == sizes_of_keras(changed())


@pytest.mark.parametrize("network", [torch.nn.Linear(1, 1), question_network(lstm_units=3, recurrent=GRU)])
def test_a_network_that_the_question_did_not_have_is_not_written(network):
    with pytest.raises(UserError, match="format=keras: writes model=cnn_lstm with one LSTM layer in one direction"):
        sizes_of_network(network)


def test_frames_of_other_data_are_refused(tmp_path):
    build_keras_model(SIZES, QUESTION).save(tmp_path / "model.keras")
    message = r"reads 4 frames \[1, 56, 14\] of 10 classes, but the data have 4 of \[1, 28, 14\] and 10; add data=, "
    with pytest.raises(UserError, match=message):
        make_run(tmp_path / "model.keras", tmp_path / "run", ["data.orderings=[[1,2,3,4],[4,3,2,1]]"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("conf/train.yaml", "run=new"), "conf/train.yaml: does not end in .keras; give a file that model.save"),
        (("nowhere.keras", "run=new"), "nowhere.keras: does not exist; give a file that model.save of Keras 3"),
        (("run=new",), "FILE: is missing; write the .keras file before the keys."),
        (("nowhere.keras", "run=a", "run=b"), "run: a and b are several folders; write one of them."),
        (("nowhere.keras", "run=conf"), "run: conf is not an empty folder; write a new one."),
    ],
)
def test_a_wrong_command_is_refused(words, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["from_keras", *words])
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        main()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("empty.keras", [], "is damaged, or not a .keras file of Keras 3; save it with model.save again."),
        ("", [], "is a folder; give a file that model.save of Keras 3 wrote, FILE.keras."),
        ("empty.keras", ["seed=1,2"], "seed: 1,2 are several values; write one of them, or a list in brackets."),
    ],
)
def test_the_remedy_fits_the_reason(name, words, message, tmp_path):
    (tmp_path / "empty.keras").touch()
    with pytest.raises(UserError, match=re.escape(message)):
        make_run(tmp_path / name, tmp_path / "run", words)


def from_keras(*words: object) -> Script:
    name, before = "src/quadrant_lstm/from_keras.py", "import os; del os.environ['KERAS_BACKEND']"
    return Script(name, *words, cwd=ROOT, before=before).wait()


def test_a_mistake_is_one_line_and_status_2():
    done = from_keras("nowhere.keras")
    assert (done.returncode, done.stderr) == (2, "run: is missing; add run=NEW, the folder to make.\n")


def test_a_model_is_read_where_no_backend_of_keras_was_chosen(tmp_path):
    build_keras_model(KerasSizes(), QUESTION).save(tmp_path / "model.keras")
    done = from_keras(tmp_path / "model.keras", f"run={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'run'}: python evaluate.py run=")
    mistyped = from_keras(tmp_path / "model.keras", f"run={tmp_path / 'other'}", "data.batch_sizes=64")
    assert mistyped.stderr == "data.batch_sizes: there is no such key; did you mean data.batch_size?\n"
