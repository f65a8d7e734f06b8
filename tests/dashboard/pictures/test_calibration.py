import pytest
import torch

from quadrant_lstm.dashboard.pictures.predictions import draw_calibration, expected_calibration_error


def test_calibration_error_is_the_distance_between_confidence_and_accuracy():
    confidences = torch.tensor([0.9] * 10 + [0.6] * 10)
    logits = torch.stack([confidences, 1 - confidences], 1).log()
    labels = torch.tensor([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)  # 70 % correct at 90 %, and 60 % at 60 %
    assert expected_calibration_error(logits, labels) == pytest.approx(0.1, abs=1e-4)
    above, below = draw_calibration(logits, labels).axes
    assert [round(bar.get_height(), 3) for bar in above.patches if bar.get_height()] == [0.6, 0.7]
    assert [bar.get_height() for bar in below.patches if bar.get_height()] == [10, 10]
