"""transformers' tokenizers and image processors, loaded without surprises."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from raysae.errors import RejectedSampleError, SettingsError
from raysae.models.prompts import Conversation
from raysae.models.settings import ModelSettings

_IMAGE_PROCESSORS = {
    "CLIPImageProcessor": "clip",
    "LlavaImageProcessor": "llava",
    "LlavaNextImageProcessor": "llava_next",
}
"""Class → transformers' package of it and of its twin for the other backend."""


def load_processor(processor_class: Any, directory: Path) -> Any:
    """Load a transformers processor (tokenizer, chat template, image processor) or a tokenizer.

    Raises:
        SettingsError: The directory has none that transformers can read without remote code.
    """
    try:
        return processor_class.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        # transformers goes on with advice about its hub.
        said = str(error).split(". ", maxsplit=1)[0].splitlines()[0] if str(error) else repr(error)
        what = processor_class.__name__
        raise SettingsError(
            f"model.path: {directory} has no usable {what} ({said}); copy the model again, with "
            "its tokenizer and preprocessor files."
        ) from error


def load_image_processor(configured: Any, settings: ModelSettings, directory: Path) -> Any:
    """Load the image processor of the backend asked for.

    transformers' own choice falls back to the other backend with a warning, but their pixels
    differ.

    Args:
        configured: The image processor that transformers chose; its class counts.
        settings: `image_backend` counts.
        directory: The model.

    Raises:
        SettingsError: The backend is not installed, or the directory configures another kind.
    """
    kind = type(configured).__name__.removesuffix("Pil")
    if kind not in _IMAGE_PROCESSORS:
        known = ", ".join(sorted(_IMAGE_PROCESSORS))
        raise SettingsError(
            f"model.path: {directory} cuts images with {kind}, but raysae reads {known}; name "
            "another model."
        )
    package = _IMAGE_PROCESSORS[kind]
    suffix, name = ("_pil", f"{kind}Pil") if settings.image_backend == "pil" else ("", kind)
    module = f"transformers.models.{package}.image_processing{suffix}_{package}"
    try:
        processor_class = getattr(import_module(module), name)
        return processor_class.from_pretrained(directory, local_files_only=True)
    except (ImportError, RuntimeError, OSError) as error:
        raise SettingsError(
            f"model.image_backend: {settings.image_backend!r} cannot be used ({error}); install "
            "it, or choose the other of torchvision and pil."
        ) from error


def chat_template(
    owner: Any, settings: ModelSettings, directory: Path
) -> Callable[[Conversation, bool], str]:
    """Return the model's chat template: (conversation, add_generation_prompt) → text.

    Args:
        owner: The processor or tokenizer that has it.
        settings: `template` counts.
        directory: The model.

    Raises:
        SettingsError: The template is asked for, and there is none.
    """
    if settings.template == "chat" and not owner.chat_template:
        raise SettingsError(
            f"model.template: {directory} has no chat template; choose paper, or add a "
            "chat_template.jinja."
        )

    def apply(conversation: Conversation, add_generation_prompt: bool) -> str:
        return str(
            owner.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )

    return apply


class Tokenizer:
    """A tokenizer that adds BOS once and keeps to one placeholder per image.

    Attributes:
        raw: transformers' tokenizer.
        image_token: What stands for an image in a prompt; None for a text-only model.
        image_id: Its id, or -1.
        special_ids: Ids of BOS, EOS, padding and their like; the image's is not among them.
        control_tokens: Every string that the tokenizer takes for a special token.
    """

    def __init__(self, tokenizer: Any, image_token: str | None = None) -> None:
        self.raw = tokenizer
        self.image_token = image_token
        self.image_id = -1
        added = {
            token_id: str(token)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        special = {**added, **named}
        control = set(special.values())
        if image_token is not None:
            self.image_id = int(tokenizer.convert_tokens_to_ids(image_token))
            special.pop(self.image_id, None)
            control.add(image_token)
        self.special_ids: list[int] = sorted(special)
        self.control_tokens: list[str] = sorted(control)

    def encode(self, prompt: str, n_images: int) -> list[int]:
        """Return the prompt's ids, with BOS at most once at its start.

        Chat templates may write BOS themselves, and most tokenizers add their own.

        Raises:
            RejectedSampleError: `control-token-in-text`: the ids show another number of images.
        """
        ids: list[int] = self.raw(prompt, truncation=False, verbose=False)["input_ids"]
        bos = self.raw.bos_token_id
        while len(ids) > 1 and ids[0] == ids[1] == bos:
            ids = ids[1:]
        if ids.count(self.image_id) != n_images:
            detail = f"the prompt shows {ids.count(self.image_id)} images instead of {n_images}"
            raise RejectedSampleError("control-token-in-text", detail)
        return ids
