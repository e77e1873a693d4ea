"""The plan is an upper bound that is not far from what training takes."""

from typing import Any, Literal

import pytest
import torch

from raysae.sae import SaeSettings, plan_training_memory
from tests.sae.peak_memory import run_alone

MEASURE = """
import sys, torch
from raysae.sae import SaeSettings, SaeTrainer
from tests.sae.peak_memory import peak_bytes
torch.randn(64, 64) @ torch.randn(64, 64)
x = torch.randn(1024, 512)
modality = torch.zeros(1024, dtype=torch.uint8)
tiny = SaeTrainer(SaeSettings(architecture=sys.argv[1], d_sae=64, batch_tokens=1024), 512, "cpu", x)
tiny.step(x, modality)
before = peak_bytes()
settings = SaeSettings(
    architecture=sys.argv[1], d_sae=16384, batch_tokens=1024, dead_after_tokens=1024, aux_k=64
)
trainer = SaeTrainer(settings, 512, "cpu", x)
for _ in range(3):
    trainer.step(x, modality)
print(peak_bytes() - before)
"""


@pytest.mark.parametrize("architecture", ["relu", "topk"])
def test_plan_against_measurement(architecture: Literal["relu", "topk"]) -> None:
    (grown,) = run_alone(MEASURE, architecture)
    settings = SaeSettings(
        architecture=architecture, d_sae=16384, batch_tokens=1024, dead_after_tokens=1024, aux_k=64
    )
    planned = plan_training_memory(settings, 512)
    assert 0.5 * planned < grown < 1.15 * planned


def test_plan_grows_with_what_costs() -> None:
    def plan(**changes: Any) -> int:
        return plan_training_memory(SaeSettings(**({"d_sae": 4096} | changes)), 512)

    assert plan(d_sae=8192) > plan()
    assert plan(batch_tokens=8192) > plan()
    assert plan(aux_k=512) > plan(aux_k=0)
    settings = SaeSettings(batch_tokens=2**16)
    assert plan_training_memory(settings, 512, world_size=4) < plan_training_memory(settings, 512)
    assert plan_training_memory(settings, 512, torch.float64) > plan_training_memory(settings, 512)
