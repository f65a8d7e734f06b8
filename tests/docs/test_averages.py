"""Probabilities are averaged over the orderings of quadrants."""

import statistics

import pytest
import torch

from docs.averages import measure, measure_job
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import Job
from tests.networks import ALL_ORDERINGS, question_network
from tests.scripts import script, train_tiny


def test_each_ordering_counts_as_much_and_probabilities_are_averaged():
    torch.manual_seed(1)
    images, labels = torch.rand(600, 1, 12, 12), torch.arange(600) % 10
    ordering = [(1, 2, 3, 4)]
    network = question_network(frame_shape=(1, 6, 6), orderings=ordering, filters=[3], lstm_units=9).eval()
    with torch.no_grad():
        probabilities = [network(sequences(images, [other])).softmax(1) for other in ALL_ORDERINGS]
    correct = [(each.argmax(1) == labels).float().mean().item() for each in probabilities]
    of_mean = (sum(probabilities).argmax(1) == labels).float().mean().item()
    found = measure(network, sequences(images, ordering), labels)
    assert found == pytest.approx((statistics.mean(correct), of_mean))
    assert min(correct) < max(correct)  # the network does not ignore the ordering


def test_a_sweep_gets_a_line_for_each_job_and_a_table(tmp_path):
    train_tiny(
        tmp_path, "-m", "seed=1,2", "data.orderings=[[1,2,3,4]]", "trainer.max_epochs=1", "hydra.sweep.dir=sweep"
    )
    done = script("docs/averages.py", "sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    jobs, table = done.stdout.split("\n\n")
    assert [line.split("  ")[1] for line in jobs.splitlines()] == ["seed=1", "seed=2"]
    assert table.startswith("| | one ordering | mean of 24 probabilities | difference |\n")


def test_frames_of_several_orderings_are_refused(finished_run):
    with pytest.raises(UserError, match="does not encode single quadrants; give a sweep of experiment=unseen"):
        measure_job(Job(0, finished_run, (), {}))
