"""How well a model names and verifies drawings, through transformers' own processor and forward."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from builtin_llava.drawings import Drawing, load_rgba
from builtin_llava.tokens import TILE

NAMING = "USER: \n<image> what is shown in this image?\nASSISTANT: this is {}.</s>"
VERIFYING = "USER: \n<image> is this {}?\nASSISTANT:"
BATCH = 32


@dataclass(frozen=True)
class Gauges:
    """`right_name`: share of drawings whose name is likelier than a random other drawing's.

    `verify_auc`: area under the ROC curve of logit("yes") - logit("no"), true against false names.
    """

    count: int
    right_name: float
    verify_auc: float


def picture(drawing: Drawing) -> Image.Image:
    """The drawing at 64 pixels on white."""
    flat = Image.new("RGBA", (TILE, TILE), (255, 255, 255, 255))
    flat.alpha_composite(Image.fromarray(load_rgba(drawing, TILE)))
    return flat.convert("RGB")


def pick(drawings: Sequence[Drawing], count: int, seed: int) -> list[tuple[Drawing, Drawing]]:
    """`count` drawings, each with a random other whose name shares no word with it."""
    rng = random.Random(seed)
    pairs = []
    for drawing in rng.sample(list(drawings), min(count, len(drawings))):
        words = set(drawing.name.split())
        other = drawing
        while words & set(other.name.split()):
            other = rng.choice(list(drawings))
        pairs.append((drawing, other))
    return pairs


def auc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Probability that a positive is above a negative, ties counting half."""
    above = positive[:, None] - negative[None, :]
    return ((above > 0).float() + 0.5 * (above == 0).float()).mean().item()


@torch.inference_mode()
def measure(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    drawings: Sequence[Drawing],
    count: int,
    seed: int = 0,
) -> Gauges:
    """Both gauges on `count` of the drawings."""
    pairs = pick(drawings, count, seed)
    named, verified = [], []
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        pictures = [picture(drawing) for drawing, _ in part]
        for place in (0, 1):
            names = [pair[place].article_name for pair in part]
            named.append(_answer_likelihood(model, processor, pictures, names))
            verified.append(_verdict(model, processor, pictures, names))
    right, wrong = torch.cat(named[0::2]), torch.cat(named[1::2])
    yes, no = torch.cat(verified[0::2]), torch.cat(verified[1::2])
    return Gauges(len(pairs), (right > wrong).float().mean().item(), auc(yes, no))


def _answer_likelihood(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    pictures: list[Image.Image],
    names: list[str],
) -> torch.Tensor:
    """Mean log-likelihood of the answer's tokens: names differ in length."""
    texts = [NAMING.format(name) for name in names]
    inputs = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
    logits = model(**inputs).logits[:, :-1].float().log_softmax(-1)
    ids = inputs["input_ids"][:, 1:]
    likelihood = logits.gather(-1, ids[..., None])[..., 0]
    # The answer follows the prompt's colon, the last one of the row.
    colon = processor.tokenizer.convert_tokens_to_ids(":")
    after = (ids == colon).flip(1).cumsum(1).flip(1) == 0
    return (likelihood * after).sum(1) / after.sum(1)


def _verdict(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    pictures: list[Image.Image],
    names: list[str],
) -> torch.Tensor:
    """Logit of "yes" minus logit of "no" after "is this a name?"."""
    texts = [VERIFYING.format(name) for name in names]
    inputs = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
    logits = model(**inputs).logits[:, -1].float()
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Ġyes", "Ġno"])
    return logits[:, yes] - logits[:, no]
