"""The model's tokenizer, processor and chat template."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.llava_next.image_processing_llava_next import LlavaNextImageProcessor
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

SPECIALS = ("<pad>", "<s>", "</s>", "<image>")
IMAGE_ID = SPECIALS.index("<image>")
MERGES = 500
TILE = 64
PATCH = 16
# Heights and widths, each a multiple of the tile; the first is for pictures of one tile.
PINPOINTS = [[64, 64], [64, 128], [128, 64], [128, 128], [64, 192], [192, 64]]
# After a line break no space precedes these, so that they need tokens of their own.
BARE_WORDS = ("USER", "ASSISTANT", "ĠĊ", "ĠUSER", "ĠASSISTANT")

# The form of the paper's prompts: "USER: \n<image> question\nASSISTANT: answer".
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT:' }}"
    "{% else %}{{ 'SYSTEM: ' }}{% endif %}"
    "{% if message['content'] is string %}"
    "{% if message['role'] == 'assistant' %}{{ ' ' }}"
    "{% elif message['role'] == 'user' %}{{ '\n' }}{% endif %}"
    "{{ message['content'] }}"
    "{% else %}"
    "{% if message['role'] == 'user' %}{{ '\n' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% elif part['type'] == 'text' %}{{ ' ' + part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which each of `words` is one token; any other text falls to pieces.

    Whole words let a drawing's name be one direction of the embedding; bytes below them make
    every string encode and decode.
    """
    words = sorted(set(words))
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + MERGES, initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(words, trainer)
    trained = _bpe_state(pieces)
    ordered = [*SPECIALS, *sorted(trained["vocab"], key=trained["vocab"].__getitem__)]
    ordered += [*BARE_WORDS, *("Ġ" + word for word in words)]
    vocab: dict[str, int] = {}
    for token in ordered:
        vocab.setdefault(token, len(vocab))
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _bpe_state(tokenizer: Tokenizer) -> dict:
    """Vocabulary and merges of a BPE tokenizer."""
    return json.loads(tokenizer.to_str())["model"]


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaNextProcessor:
    """The LLaVA-NeXT processor for tiles of 64 pixels in patches of 16."""
    image_processor = LlavaNextImageProcessor(
        size={"height": TILE, "width": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=PINPOINTS,
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
