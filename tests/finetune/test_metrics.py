from __future__ import annotations

import pytest

from raysae.errors import DataError
from raysae.finetune.metrics import check_loss, pair_figures, step_metrics


def test_pair_figures_on_three_pairs():
    reference = ([-1.0, -5.0, -2.0], [-2.0, -3.0, -2.0])
    policy = ([-1.0, -2.0, -3.0], [-2.5, -3.0, -2.0])
    assert pair_figures(policy, reference, beta=0.1) == pytest.approx(
        {
            "pairs": 3,
            "accuracy_before": 1 / 3,
            "accuracy_after": 2 / 3,
            "reward_accuracy": 2 / 3,
            "reward_margin": 0.1 * (0.5 + 3.0 - 1.0) / 3,
        }
    )


def test_only_the_optimizer_steps_of_a_log_count():
    log = [
        {"step": 1, "loss": 0.69, "rewards/margins": 0.0, "epoch": 0.1},
        {"step": 2, "loss": 0.5, "rewards/margins": 0.2, "learning_rate": 1e-6},
        {"step": 2, "train_runtime": 3.0, "train_loss": 0.6},
    ]
    assert step_metrics(log) == [
        {"step": 1, "loss": 0.69, "reward_margin": 0.0},
        {"step": 2, "loss": 0.5, "reward_margin": 0.2, "lr": 1e-6},
    ]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_stops_the_training(loss):
    check_loss(3, 0.5)
    with pytest.raises(DataError, match="the loss of step 3"):
        check_loss(3, loss)
