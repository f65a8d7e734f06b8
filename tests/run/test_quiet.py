import warnings

import pytest
from torch import nn

from quadrant_lstm.run.build import allow_frozen_modules


@pytest.mark.parametrize(("trained", "num_warnings"), [(False, 0), (True, 1)])
def test_a_module_in_eval_mode_is_warned_of_only_if_its_weights_are_trained(trained, num_warnings):
    network = nn.Sequential(nn.BatchNorm1d(3).requires_grad_(trained).eval(), nn.Linear(3, 2))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        allow_frozen_modules(network)
        warnings.warn("Found 1 module(s) in eval mode at the start of training. This may", stacklevel=1)
    assert len(found) == num_warnings
