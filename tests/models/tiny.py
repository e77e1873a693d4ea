"""Random models of some 60 thousand numbers, in the published file layouts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
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
TEXT_CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] + ': ' + message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
TEXT: dict[str, Any] = {
    "vocab_size": 420,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


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


def build_vision_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=TILE,
        patch_size=PATCH,
    )


def build_config() -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=build_vision_config(),
        text_config=MistralConfig(**TEXT, sliding_window=None),
        image_token_index=3,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(TILE // PATCH) ** 2,
    )


def build_llava_config(**changes: Any) -> LlavaConfig:
    return LlavaConfig(
        vision_config=build_vision_config(),
        text_config=LlamaConfig(**TEXT),
        image_token_index=3,
        image_seq_length=(TILE // PATCH) ** 2,
        **changes,
    )


def randomised(build: Callable[[], Any], seed: int = 0) -> Any:
    """A model whose numbers are all random, norms and newlines too."""
    torch.manual_seed(seed)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def build_model(seed: int = 0) -> Any:
    return randomised(lambda: LlavaNextForConditionalGeneration(build_config()), seed)


def build_llava(**changes: Any) -> Any:
    return randomised(lambda: LlavaForConditionalGeneration(build_llava_config(**changes)))


def save_model(model: Any, directory: Path, processor: Any = None, **kwargs: Any) -> Path:
    """Write a model and its processor (LLaVA-NeXT's); shards of 40 KB unless told otherwise."""
    model.save_pretrained(directory, **{"max_shard_size": "40KB", **kwargs})
    (processor or build_processor()).save_pretrained(directory)
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


def build_llava_processor(
    padding_side: str = "right",
    image_processor: Any = None,
    vision_feature_select_strategy: str = "default",
) -> LlavaProcessor:
    if image_processor is None:
        image_processor = CLIPImageProcessor(
            size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}
        )
    return LlavaProcessor(
        image_processor,
        build_tokenizer(padding_side=padding_side),
        patch_size=PATCH,
        vision_feature_select_strategy=vision_feature_select_strategy,
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
