"""The processor as training needs it: the right template, and tokens counted without pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raysae.errors import RejectedSampleError, SettingsError
from raysae.finetune.data import PreferenceRow, RowRules

IMAGE_BACKEND = "torchvision"
"""PIL's and torchvision's pixels differ by up to 0.03, so one of them is always used."""


def load_processor(directory: Path) -> Any:
    """Load a model's processor, as it is, from its directory.

    Raises:
        SettingsError: The directory has no processor or no chat template.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(
            directory, backend=IMAGE_BACKEND, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"finetune.model: {directory} has no usable processor ({error}); name a directory with "
            "processor and tokenizer files."
        ) from error
    if not getattr(processor, "chat_template", None):
        raise SettingsError(
            f"finetune.model: the processor in {directory} has no chat template; add "
            "chat_template.jinja to the model's directory."
        )
    return processor


def training_processor(directory: Path) -> Any:
    """Load a processor whose chat template starts with BOS exactly once.

    TRL's collators tokenize rendered text with `add_special_tokens=False`, which silently drops the
    BOS of a model whose template leaves it to the tokenizer, as LLaVA-NeXT's does. Such a template
    is prefixed. The model's own processor is what is saved with the tuned model, since there the
    tokenizer adds BOS and a prefixed template would double it.

    Raises:
        SettingsError: See `load_processor`.
    """
    processor = load_processor(directory)
    tokenizer = processor.tokenizer
    if not _adds_bos(tokenizer):
        return processor
    rendered = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}], tokenize=False
    )
    if not rendered.startswith(tokenizer.bos_token):
        processor.chat_template = "{{ bos_token }}" + processor.chat_template
    return processor


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer itself puts a BOS in front of a text."""
    if tokenizer.bos_token is None:
        return False
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def row_rules(processor: Any, max_tokens: int) -> RowRules:
    """Return what rows a model can take.

    Args:
        processor: From `training_processor`.
        max_tokens: See `FinetuneSettings`.
    """
    special = [token.content for token in processor.tokenizer.added_tokens_decoder.values()]
    tokens = {*special, *processor.tokenizer.all_special_tokens, processor.image_token}
    return RowRules(tuple(sorted(tokens)), _token_counter(processor), max_tokens)


def _token_counter(
    processor: Any,
) -> Callable[[PreferenceRow, Sequence[tuple[int, int]]], int]:
    """Return a function that counts the tokens of a row's longer conversation, images included."""

    def count(row: PreferenceRow, sizes: Sequence[tuple[int, int]]) -> int:
        longest = 0
        for answer in (row["chosen"], row["rejected"]):
            ids = processor.tokenizer(_render(processor, row, answer), add_special_tokens=False)
            longest = max(longest, len(ids["input_ids"]))
        # The processor's own count; it has no public name in transformers 5.
        images = processor._get_num_multimodal_tokens(  # noqa: SLF001
            image_sizes=[list(size) for size in sizes]
        )
        return longest - len(sizes) + int(sum(images["num_image_tokens"]))

    return count


def _render(processor: Any, row: PreferenceRow, answer: Sequence[dict[str, str]]) -> str:
    """Render prompt and answer with the template.

    Raises:
        RejectedSampleError: `chat-template`: the template refuses the conversation.
    """
    parts = [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
        for turn in answer
    ]
    try:
        text = processor.apply_chat_template([*row["prompt"], *parts], tokenize=False)
    except Exception as error:
        # Templates are programs of the model's authors: they raise what they like.
        raise RejectedSampleError("chat-template", f"{type(error).__name__}: {error}") from error
    return str(text)
