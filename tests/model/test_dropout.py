import pytest
import torch

from quadrant_lstm.model.network import Dropout


@pytest.mark.parametrize("p", [0.001, 0.25, 0.5, 0.9, 0.999])
def test_a_share_of_p_is_dropped_and_the_mean_is_kept(p):
    torch.manual_seed(0)
    inputs = torch.ones(1000, 1001, requires_grad=True)
    outputs = Dropout(p)(inputs)
    kept = outputs != 0
    assert abs(kept.float().mean().item() - (1 - p)) < 0.004
    assert abs(outputs.mean().item() - 1) < 0.05
    assert len(outputs[kept].unique()) == 1
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs.detach())


def test_elements_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(4000, 64)) != 0).float()
    correlations = torch.corrcoef(kept.T) - torch.eye(64)
    assert correlations.abs().max() < 0.1
    assert (kept.mean(0) - 0.5).abs().max() < 0.05


def test_dropout_is_reproducible_and_does_nothing_in_eval_or_at_zero():
    inputs = torch.ones(100)
    torch.manual_seed(3)
    first = Dropout(0.5)(inputs)
    torch.manual_seed(3)
    assert torch.equal(first, Dropout(0.5)(inputs))
    assert Dropout(0.5).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs
