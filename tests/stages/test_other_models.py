"""Models other than LLaVA-NeXT through the whole chain: hidden states, SAE, scores, subset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raysae.models import decode_image
from raysae.pipeline import make
from raysae.sample import Sample
from raysae.scoring import SelectionSettings
from raysae.settings import RunSettings
from raysae.stages.chain import Chain
from tests.corpora.published import FIXTURES
from tests.models import language_models
from tests.models.tiny import build_llava, build_llava_processor, build_tokenizer, save_model
from tests.stages.chains import cached_sample, reader_of, small_settings

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

LAYER = 2


def filtered(directory: Path, data_set: str, root: Path) -> tuple[Chain, list[Sample]]:
    """Send a published data set through the chain; return it and the rows that can be used."""
    settings = small_settings(root / "storage", directory)
    corpus = FIXTURES[data_set].written(root / "corpus")
    chain = Chain(
        replace(
            settings,
            sae_corpus=corpus,
            corpus=corpus,
            model=replace(settings.model, layer=LAYER),
            run=RunSettings(max_rejected_fraction=0.5),
            select=SelectionSettings(scorer="l0", fraction=0.5),
        )
    )
    result = make(chain, "subsets")
    assert result is not None
    good = [row for row in chain.corpus.all_samples() if isinstance(row, Sample)]
    assert result.rows in (len(good) // 2, len(good) - len(good) // 2)
    return chain, good


def check_cache(
    chain: Chain, good: list[Sample], inputs_of: Callable[[Sample], Any], model: Any
) -> None:
    """Compare the cached hidden states of a few rows with those of the whole model."""
    reader = reader_of(chain)
    for index in (0, len(good) - 1):
        tokens = cached_sample(reader, 0, index)
        inputs = inputs_of(good[index])
        with torch.no_grad():
            whole = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        assert tokens.token_id_n.tolist() == inputs["input_ids"][0].tolist()
        torch.testing.assert_close(tokens.acts_nd, whole[LAYER + 1][0], atol=1e-4, rtol=1e-4)


def test_a_language_model_filters_texts(tmp_path: Path) -> None:
    model = language_models.build("llama")
    directory = language_models.save(model, tmp_path / "llama")
    chain, good = filtered(directory, "ultrafeedback", tmp_path)
    tokenizer = build_tokenizer()

    def inputs_of(sample: Sample) -> Any:
        prompt = f"USER: \n{sample.messages[0].text}\nASSISTANT: "
        return tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)

    check_cache(chain, good, inputs_of, model.model)


def test_llava_1_5_filters_pictures(tmp_path: Path) -> None:
    model, processor = build_llava(), build_llava_processor()
    directory = save_model(model, tmp_path / "llava", processor)
    chain, good = filtered(directory, "align-anything", tmp_path)

    def inputs_of(sample: Sample) -> Any:
        prompt = f"USER: \n<image> {sample.messages[0].text}\nASSISTANT: "
        images = [decode_image(image) for image in sample.images]
        return processor(images=images, text=prompt, return_tensors="pt")

    check_cache(chain, good, inputs_of, model.model)
