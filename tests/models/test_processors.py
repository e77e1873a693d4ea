from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raysae.errors import RejectedSampleError, SettingsError
from raysae.models import ModelSettings
from raysae.models.processors import Tokenizer, load_image_processor, load_processor
from tests.models.tiny import build_processor, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(build_tokenizer(), "<image>")


def test_special_ids_and_control_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.image_id == 3
    assert tokenizer.special_ids == [0, 1, 2, 4]
    assert tokenizer.control_tokens == sorted(["<unk>", "<s>", "</s>", "<image>", "<pad>"])


def test_text_tokenizer_has_no_image() -> None:
    text = Tokenizer(build_tokenizer())
    assert (text.image_token, text.image_id) == (None, -1)
    assert text.special_ids == [0, 1, 2, 3, 4]
    assert text.encode("a cat", n_images=0)[0] == 1


@pytest.mark.parametrize("prompt", ["USER", "<s>USER", "<s><s>USER"])
def test_bos_stands_once(tokenizer: Tokenizer, prompt: str) -> None:
    ids = tokenizer.encode(prompt, n_images=0)
    assert ids[0] == 1
    assert ids.count(1) == 1


def test_unexpected_image_is_rejected(tokenizer: Tokenizer) -> None:
    with pytest.raises(RejectedSampleError, match="2 images instead of 1"):
        tokenizer.encode("<image><image>", n_images=1)


@pytest.mark.parametrize(
    ("backend", "name"),
    [("torchvision", "LlavaNextImageProcessor"), ("pil", "LlavaNextImageProcessorPil")],
)
def test_backend_is_the_one_asked_for(model_directory: Path, backend: Any, name: str) -> None:
    settings = ModelSettings(image_backend=backend)
    processor = load_image_processor(build_processor().image_processor, settings, model_directory)
    assert type(processor).__name__ == name
    assert processor.crop_size["height"] == 28


def test_directory_without_processors(tmp_path: Path) -> None:
    from transformers import LlavaNextProcessor

    with pytest.raises(SettingsError, match="tokenizer"):
        load_processor(LlavaNextProcessor, tmp_path)
    with pytest.raises(SettingsError, match="image_backend"):
        load_image_processor(build_processor().image_processor, ModelSettings(), tmp_path)
