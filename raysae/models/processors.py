"""transformers' tokenizers and image processors, loaded without surprises."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from raysae.errors import RejectedSampleError, SettingsError
from raysae.models.settings import ModelSettings

_IMAGE_PROCESSORS = {
    ("llava_next", "torchvision"): ("image_processing_llava_next", "LlavaNextImageProcessor"),
    ("llava_next", "pil"): ("image_processing_pil_llava_next", "LlavaNextImageProcessorPil"),
}


def load_processor(processor_class: Any, directory: Path) -> Any:
    """Load a transformers processor: tokenizer, chat template and image processor.

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
        raise SettingsError(
            f"model.path: {directory} has no usable tokenizer and image processor ({said}); copy "
            "the model again, with its tokenizer and preprocessor files."
        ) from error


def load_image_processor(architecture: str, settings: ModelSettings, directory: Path) -> Any:
    """Load the image processor of the backend asked for.

    transformers' own choice falls back to the other backend with a warning, but their pixels
    differ.

    Raises:
        SettingsError: The backend is not installed, or the directory configures none.
    """
    module, name = _IMAGE_PROCESSORS[architecture, settings.image_backend]
    try:
        processor_class = getattr(
            import_module(f"transformers.models.{architecture}.{module}"), name
        )
        return processor_class.from_pretrained(directory, local_files_only=True)
    except (ImportError, RuntimeError, OSError) as error:
        raise SettingsError(
            f"model.image_backend: {settings.image_backend!r} cannot be used ({error}); install "
            "it, or choose the other of torchvision and pil."
        ) from error


class Tokenizer:
    """A tokenizer that adds BOS once and keeps to one placeholder per image.

    Attributes:
        image_token: What stands for an image in a prompt.
        image_id: Its id.
        special_ids: Ids of BOS, EOS, padding and their like; the image's is not among them.
        control_tokens: Every string that the tokenizer takes for a special token.
    """

    def __init__(self, tokenizer: Any, image_token: str) -> None:
        self._tokenizer = tokenizer
        self.image_token = image_token
        self.image_id = int(tokenizer.convert_tokens_to_ids(image_token))
        added = {
            token_id: str(token)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        special = {**added, **named}
        special.pop(self.image_id, None)
        self.special_ids: list[int] = sorted(special)
        self.control_tokens: list[str] = sorted({*special.values(), image_token})

    def encode(self, prompt: str, n_images: int) -> list[int]:
        """Return the prompt's ids, with BOS at most once at its start.

        Chat templates may write BOS themselves, and most tokenizers add their own.

        Raises:
            RejectedSampleError: `control-token-in-text`: the ids show another number of images.
        """
        ids: list[int] = self._tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
        bos = self._tokenizer.bos_token_id
        while len(ids) > 1 and ids[0] == ids[1] == bos:
            ids = ids[1:]
        if ids.count(self.image_id) != n_images:
            detail = f"the prompt shows {ids.count(self.image_id)} images instead of {n_images}"
            raise RejectedSampleError("control-token-in-text", detail)
        return ids
