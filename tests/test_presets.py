"""The presets hold the published numbers and are valid settings of their jobs."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

from raysae.settings import parse_settings
from raysae.stages.chain import ChainSettings, FinetuneJobSettings, builtin_sae

PRESETS = sorted(
    file.name
    for file in files("raysae").joinpath("presets").iterdir()
    if file.name.endswith(".yaml")
)


def preset(name: str, settings_class: type[Any] = ChainSettings) -> Any:
    path = str(files("raysae").joinpath("presets", name))
    return parse_settings(settings_class, ["--config", path], "jobs/x.py", "Does things.")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_read_and_changes_something(name: str) -> None:
    assert preset(name, FinetuneJobSettings) != FinetuneJobSettings()


@pytest.mark.parametrize(("name", "d_sae"), [("llava-next", 65_536), ("chameleon", 131_072)])
def test_sae_v(name: str, d_sae: int) -> None:
    sae = preset(f"sae-v-{name}.yaml").sae
    assert sae.architecture == "relu"
    assert sae.d_sae == d_sae
    assert sae.steps * sae.batch_tokens == 122_880_000
    assert (sae.l1_coefficient, sae.l1_warmup_steps) == (5.0, 1500)
    assert (sae.peak_lr, sae.lr_warmup_steps, sae.lr_decay_steps) == (5e-5, 0, 6000)
    assert (sae.normalize, sae.aux_k, sae.seed) == ("mean-norm", 0, 42)


def test_sae_v_reads_the_model_as_the_paper_does() -> None:
    settings = preset("sae-v-llava-next.yaml")
    model, weights = settings.model, settings.weights
    assert (model.layer, model.template, model.text) == (16, "paper", "question")
    assert (weights.n_samples, weights.top_k, weights.seed) == (1000, 5, 42)
    assert (weights.candidates, weights.pairing) == ("per-modality", "all")


def test_topk() -> None:
    sae = preset("topk.yaml").sae
    assert (sae.architecture, sae.k, sae.aux_coefficient) == ("topk", 32, 1 / 32)
    assert sae.peak_lr == pytest.approx(1e-4)
    assert sae != builtin_sae()


def test_dpo() -> None:
    tuning = preset("dpo-sae-v.yaml", FinetuneJobSettings).finetune
    assert (tuning.lr, tuning.scheduler, tuning.warmup_steps) == (1e-6, "cosine", 10)
    assert (tuning.global_batch, tuning.max_steps, tuning.epochs) == (32, 0, 3)
    assert (tuning.beta, tuning.freeze_vision, tuning.zero_stage) == (0.1, True, 3)
    assert (tuning.max_tokens, tuning.dtype, tuning.eval_fraction) == (4096, "bfloat16", 0.1)


def test_the_paper_preset_adds_to_the_others() -> None:
    names = ("sae-v-llava-next.yaml", "paper.yaml")
    configs = [("--config", str(files("raysae").joinpath("presets", name))) for name in names]
    argv = [word for pair in configs for word in pair]
    both = parse_settings(ChainSettings, argv, "jobs/x.py", "Does things.")
    assert (both.model.image_mode, both.model.layer, both.sae.d_sae) == ("paper-336", 16, 65_536)
    assert (both.weights.candidates, both.weights.min_tokens) == ("joint-top-30", 5)
    assert both.weights.bos_is_text
    assert both.score.bos_is_text
    assert both.score.threshold == 1.0
