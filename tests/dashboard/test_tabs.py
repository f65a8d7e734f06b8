import pytest
from omegaconf import OmegaConf
from tensorboard.plugins.hparams import metadata

from quadrant_lstm.dashboard.dashboard import hyperparameters
from quadrant_lstm.run_folder import read_results


def test_hyperparameters_are_written_with_the_final_metrics(events, finished_run):
    data = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    parameters = metadata.parse_session_start_info_plugin_data(data).hparams
    assert parameters["model.lstm_units"].number_value == 5
    assert parameters["optimizer.lr"].number_value == 0.001
    assert parameters["model.filters"].string_value == "[4]"
    # augmentation is off, and data.seed is interpolated from seed
    assert not [name for name in parameters if "augmentation" in name or name == "data.seed"]
    experiment = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    names = [info.name.tag for info in metadata.parse_experiment_plugin_data(experiment).metric_infos]
    assert names == ["test/accuracy", "test/loss", "val/best_accuracy"]
    results = read_results(finished_run)
    assert events.Scalars("test/accuracy")[-1].value == pytest.approx(results["test/accuracy"])
    assert events.Scalars("val/best_accuracy")[-1].value == pytest.approx(results["val/accuracy"])


def test_the_varied_keys_of_a_sweep_include_the_choices_of_groups():
    cfg = OmegaConf.create(
        {"swept": ["model", "model/recurrent", "optimizer.lr"], "model": {"units": 5}, "optimizer": {"lr": 0.1}}
    )
    overrides = ["model=join", "model/recurrent=gru", "optimizer.lr=1e-1", "swept=[model,model/recurrent,optimizer.lr]"]
    assert hyperparameters(cfg, overrides) == {"model": "join", "model/recurrent": "gru", "optimizer.lr": 0.1}
