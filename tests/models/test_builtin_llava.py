"""The shipped VLM opens with transformers' own classes and knows what it was shown."""

from __future__ import annotations

import io
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, LlavaNextForConditionalGeneration, LlavaNextProcessor

import raysae

PACKAGE = Path(raysae.__file__).parent
MODEL = PACKAGE / "models" / "data" / "builtin-llava-next"
CORPUS = PACKAGE / "corpora" / "data" / "builtin"
DRAWINGS = 60
NAMED = re.compile(r"(?:this is|the image shows) (an? [a-z ]+)\.")


@pytest.fixture(scope="module")
def model() -> Any:
    return LlavaNextForConditionalGeneration.from_pretrained(MODEL).eval()


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(MODEL)


@cache
def named_pictures() -> list[tuple[Image.Image, str]]:
    """Pictures of the corpus whose better answer is a name, with that name."""
    found = []
    for file in sorted(CORPUS.glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            name = NAMED.fullmatch(row[f"response_{row['overall_response']}"])
            if name and row["question"].startswith("what"):
                picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA")
                flat = Image.new("RGBA", picture.size, "white")
                flat.alpha_composite(picture)
                found.append((flat.convert("RGB"), name[1]))
    return found[:DRAWINGS]


def test_files_are_small_and_weights_load_as_float32(model: Any) -> None:
    assert (MODEL / "model.safetensors").stat().st_size <= 15_000_000
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_nothing_is_missing_or_left_over() -> None:
    _, info = LlavaNextForConditionalGeneration.from_pretrained(MODEL, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]


def test_image_newline_is_the_trained_one(model: Any) -> None:
    with safe_open(MODEL / "model.safetensors", "pt") as file:
        (key,) = [key for key in file.keys() if key.endswith("image_newline")]  # noqa: SIM118
        stored = file.get_tensor(key)
    assert stored.norm() > 0
    assert torch.equal(model.model.image_newline, stored.float())


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (64, 128), (128, 128), (192, 64), (90, 70)])
def test_logits_are_finite_at_any_resolution(
    model: Any, processor: Any, size: tuple[int, int]
) -> None:
    picture = Image.new("RGB", size, (200, 30, 30))
    inputs = processor(images=picture, text="<image> what is this?", return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits
    assert torch.isfinite(logits).all()


def test_processor_places_as_many_image_tokens_as_the_model_makes(processor: Any) -> None:
    assert isinstance(processor, LlavaNextProcessor)
    picture = Image.new("RGB", (128, 64))
    inputs = processor(images=picture, text="<image>", return_tensors="pt")
    # 16 of the squeezed picture, then 4 rows of 8 patches and a newline.
    assert (inputs["input_ids"] == 3).sum() == 16 + 4 * 9
    assert inputs["pixel_values"].shape == (1, 3, 3, 64, 64)


def test_chat_template_begins_with_bos_and_places_the_image(processor: Any) -> None:
    user = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}],
    }
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a dog."}]}
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
    whole = processor.apply_chat_template([user, answer])
    assert prompt == "<s>USER: \n<image> what is this?\nASSISTANT:"
    assert whole == f"{prompt} a dog.</s>"
    plain = {"role": "assistant", "content": "a dog."}
    assert processor.apply_chat_template([user, plain]) == whole


def test_prompt_has_one_bos(processor: Any) -> None:
    ids = processor.tokenizer("USER: \n<image> what is this?\nASSISTANT: ")["input_ids"]
    assert ids.count(processor.tokenizer.bos_token_id) == 1
    assert ids.count(3) == 1


@pytest.mark.parametrize(
    "text",
    [
        "is this a dog?",
        "Ünïcödé, 漢字, العربية, 🦊🇨🇭 and\ttabs\n\nlines",
        "two  blanks and one at the end ",
        "Capital LETTERS and 12345 \x00\x7f",
    ],
)
def test_any_text_encodes_and_decodes(processor: Any, text: str) -> None:
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_right_name_is_likelier_than_another(model: Any, processor: Any) -> None:
    assert len(named_pictures()) == DRAWINGS
    rng = random.Random(0)
    names = [name for _, name in named_pictures()]
    others = [rng.choice([other for other in names if other != name]) for name in names]
    right = _likelihood(model, processor, names)
    wrong = _likelihood(model, processor, others)
    # A model that guesses reaches this once in some ten thousand times.
    assert (right > wrong).float().mean() >= 0.75


def _likelihood(model: Any, processor: Any, names: list[str]) -> torch.Tensor:
    """Mean log-likelihood of each name's answer about the picture of its place."""
    texts = [
        f"USER: \n<image> what is shown in this image?\nASSISTANT: this is {n}." for n in names
    ]
    colon = processor.tokenizer.convert_tokens_to_ids(":")
    found = []
    for start in range(0, len(names), 20):
        inputs = processor(
            images=[picture for picture, _ in named_pictures()[start : start + 20]],
            text=texts[start : start + 20],
            return_tensors="pt",
            padding=True,
        )
        with torch.inference_mode():
            logits = model(**inputs).logits[:, :-1].log_softmax(-1)
        ids = inputs["input_ids"][:, 1:]
        likelihood = logits.gather(-1, ids[..., None])[..., 0]
        # The answer is what follows the row's last colon.
        after = (ids == colon).flip(1).cumsum(1).flip(1) == 0
        found.append((likelihood * after).sum(1) / after.sum(1))
    return torch.cat(found)
