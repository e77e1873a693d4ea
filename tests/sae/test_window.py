"""A loss that is not finite is found when the metrics are asked for, with its step."""

import pytest
import torch

from raysae.errors import DataError
from tests.sae.training import batch, modality, trainer


@pytest.mark.parametrize("architecture", ["relu", "topk"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_first_bad_step_is_named(architecture: str, value: float) -> None:
    trained = trainer(architecture, torch.float32)
    for step in range(6):
        acts_nd = batch(step)
        if step == 3:
            acts_nd[4, 2] = value
        trained.step(acts_nd, modality())
    with pytest.raises(DataError, match="not finite at step 3"):
        trained.state_dict()
    with pytest.raises(DataError, match="not finite at step 3"):
        trained.finished_sae()
    with pytest.raises(DataError, match="not finite at step 3"):
        trained.metrics()


def test_each_report_begins_a_new_window() -> None:
    trained = trainer("topk")
    trained.step(batch(0), modality())
    trained.metrics()
    trained.step(batch(1), modality())
    alone = trained.metrics()
    both = trainer("topk")
    both.step(batch(0), modality())
    both.step(batch(1), modality())
    assert both.metrics()["loss"] != alone["loss"]


def test_weights_that_overflow_are_not_kept() -> None:
    trained = trainer("relu", torch.float32)
    trained.step(batch(0), modality())
    trained._weights.b_enc_f[3] = torch.inf
    with pytest.raises(DataError, match="weights are not finite after step 0"):
        trained.state_dict()
