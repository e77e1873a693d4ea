"""A random LLaVA-NeXT of 60 thousand numbers, in the published file layout."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from raysae.sample import ImagePart, Message, Sample, TextPart

TILE, PATCH, BLOCKS = 28, 7, 6
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
SPECIAL = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} [/INST]"
    "{% elif message['role'] == 'assistant' %} {{ message['content'][0]['text'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('no system messages') }}{% endif %}{% endfor %}"
)


def build_tokenizer(vocabulary: int = 400, padding_side: str = "right") -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["USER: \n What is in the picture?\nASSISTANT: a cat"] * 4, trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side=padding_side,
        extra_special_tokens={"image_token": "<image>"},
    )


def build_config() -> LlavaNextConfig:
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=TILE,
        patch_size=PATCH,
    )
    text = MistralConfig(
        vocab_size=420,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        sliding_window=None,
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=3,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(TILE // PATCH) ** 2,
    )


def build_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(build_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def save_model(model: Any, directory: Path, **kwargs: Any) -> Path:
    """Write the model, its tokenizer and its processor; shards of 40 KB unless told otherwise."""
    model.save_pretrained(directory, **{"max_shard_size": "40KB", **kwargs})
    build_processor().save_pretrained(directory)
    return directory


def build_processor(padding_side: str = "right") -> LlavaNextProcessor:
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=PINPOINTS,
    )
    return LlavaNextProcessor(
        image_processor,
        build_tokenizer(padding_side=padding_side),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "PNG", **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def sample(
    sizes: tuple[tuple[int, int], ...] = ((40, 30),),
    text: str = "What is in the picture?",
    chosen: str | None = None,
    name: str = "a",
) -> Sample:
    """A question about images of the given (width, height)."""
    parts = [ImagePart(i) for i in range(len(sizes))] + [TextPart(text)]
    images = tuple(encode(picture(*size, seed=i)) for i, size in enumerate(sizes))
    return Sample(name, 0, (Message("user", tuple(parts)),), images, chosen)
