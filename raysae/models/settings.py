"""The settings that decide what hidden states come out of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

DTypeName = Literal["float32", "bfloat16", "float16"]
"""Number formats of weights and hidden states, by torch's names."""

UNNAMED = -1
"""`ModelSettings.layer` where none was given."""

_USUAL_LAYERS = {"builtin-llava-next": 4}


@dataclass(frozen=True)
class ModelSettings:
    r"""Which model is read, where its hidden states are taken, and what it is shown.

    All of these are content settings: each changes the hidden states, so each is part of every id
    (the path is replaced there by `model_fingerprint`).

    Attributes:
        path: Name of a shipped model (`builtin-llava-next`) or a directory in Hugging Face format
            with safetensors. Nothing is downloaded.
        layer: Block L, counted from 0, whose output (`resid_post`) is taken, before any final norm;
            to be named for every model but the shipped one. SAE-V takes 16 of LLaVA-NeXT 7B's 32;
            4 of the shipped model's 6 is the first whose last token knows whether the question's
            name fits the picture.
        dtype: Format of weights and activations.
        attention: transformers' attention implementation. `eager` holds the whole attention matrix.
        image_backend: Which of transformers' two image processors; their pixels differ by up to
            0.03.
        template: `paper` is SAE-V's prompt, `USER: \n<image> {question}\nASSISTANT: `; `chat` is
            the model's own chat template.
        text: Whether the tokens of `Sample.chosen` follow the question.
        newline: Modality of LLaVA-NeXT's newline tokens; other models have none. The paper's code
            counts them as image.
        image_mode: `native` is the model's own processing at any resolution; `paper-336` first
            forces each image to a square of the vision tower's size, as SAE-V's released code does.
        images: `drop` leaves the images out of every prompt: for SAEs of text alone, and the only
            way to show samples with images to a text-only model, which rejects them otherwise.
    """

    path: str = "builtin-llava-next"
    layer: int = UNNAMED
    dtype: DTypeName = "float32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    image_backend: Literal["torchvision", "pil"] = "torchvision"
    template: Literal["paper", "chat"] = "paper"
    text: Literal["question", "question+answer"] = "question"
    newline: Literal["image", "special"] = "image"
    image_mode: Literal["native", "paper-336"] = "native"
    images: Literal["show", "drop"] = "show"

    @property
    def with_layer(self) -> ModelSettings:
        """The same with the shipped model's usual block, if none is named; others stay without."""
        if self.layer == UNNAMED and self.path in _USUAL_LAYERS:
            return replace(self, layer=_USUAL_LAYERS[self.path])
        return self
