"""Both architectures find the dictionary that made the data."""

from typing import Any

import pytest
import torch

from raysae.sae import SaeHealth, SaeSettings, SaeTrainer

D, PLANTED, ACTIVE = 32, 64, 3


def planted() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(PLANTED, D, generator=generator))


def tokens(step: int, n: int) -> torch.Tensor:
    """Sums of ACTIVE planted directions with random positive coefficients, far from the origin."""
    generator = torch.Generator().manual_seed(step + 1)
    scores = torch.rand(n, PLANTED, generator=generator)
    active_nf = torch.zeros(n, PLANTED).scatter_(1, scores.topk(ACTIVE).indices, 1.0)
    size_nf = 0.5 + torch.rand(n, PLANTED, generator=generator)
    return 5 * ((active_nf * size_nf) @ planted()) + 3


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "topk", "k": ACTIVE, "lr": 1e-2, "dead_after_tokens": 20_000, "aux_k": 32},
        {"architecture": "relu", "l1_coefficient": 0.6, "l1_warmup_steps": 100, "lr": 1e-2},
    ],
    ids=["topk", "relu"],
)
def test_planted_dictionary_is_recovered(changes: dict[str, Any]) -> None:
    settings = SaeSettings(
        **({"d_sae": 128, "steps": 500, "batch_tokens": 512, "lr_decay_steps": 150} | changes)
    )
    modality_n = torch.zeros(512, dtype=torch.uint8)
    trainer = SaeTrainer(settings, D, "cpu", tokens(10**6, 4096))
    for step in range(settings.steps):
        trainer.step(tokens(step, 512), modality_n)
    sae = trainer.finished_sae()
    cosine_ff = planted() @ torch.nn.functional.normalize(sae.W_dec).T
    best_f = cosine_ff.max(dim=1).values
    health = SaeHealth(D, settings.d_sae)
    health.measure(sae, tokens(10**7, 4096), torch.zeros(4096, dtype=torch.uint8))
    summary = health.summary()["all"]
    assert best_f.mean() >= 0.9, (best_f.mean(), summary)
    assert (best_f >= 0.9).float().mean() >= 0.9, (best_f.sort().values[:10], summary)
    assert summary["fvu"] < 0.25
