"""What every architecture offers to the stages: samples in, hidden states with modality out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raysae.models.batches import length_batches
from raysae.sample import Modality, Sample, TokenBatch


@dataclass(frozen=True)
class PreparedImage:
    """One image of a prompt, as the model sees it.

    Attributes:
        index: Which of `Sample.images`.
        height: Pixels of the upright image that the image processor was given.
        width: Likewise.
        n_tokens: Tokens that it occupies in the prompt, newlines included.
        n_tiles: Squares that the vision tower sees of it.
    """

    index: int
    height: int
    width: int
    n_tokens: int
    n_tiles: int


@dataclass(frozen=True)
class PreparedSample:
    """A sample made ready on the CPU for the forward pass; can be pickled.

    Attributes:
        sample_id: As in `Sample`.
        token_id_n: int32 (n,), the prompt's ids, each image expanded to its placeholders.
        modality_n: uint8 (n,), a `Modality` per token.
        images: The prompt's images in order of appearance.
        tensors: What the image processor made of them, in the model's dtype; none before
            `HiddenStateModel.fill`.
    """

    sample_id: str
    token_id_n: npt.NDArray[np.int32]
    modality_n: npt.NDArray[np.uint8]
    images: tuple[PreparedImage, ...] = ()
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Length of the prompt in tokens."""
        return len(self.token_id_n)


@dataclass(frozen=True)
class PatchBox:
    """The part of an image that one image token stands for.

    Attributes:
        position: The token's position in the prompt.
        image: Which of `Sample.images`.
        left: Edges as fractions [0, 1] of the upright original image (after EXIF rotation; see
            `decode_image`), the origin at the top left.
        top: Likewise.
        right: Likewise.
        bottom: Likewise.
    """

    position: int
    image: int
    left: float
    top: float
    right: float
    bottom: float


class HiddenStateModel(ABC):
    """A model cut after block L that turns prompts into hidden states.

    Attributes:
        d_in: Width of a hidden state.
        layer: Block L, counted from 0, the last one that is there.
        device: Where the weights are.
        dtype: Format of weights and hidden states.
    """

    d_in: int
    layer: int
    device: torch.device
    dtype: torch.dtype
    _tokenizer: Any

    @abstractmethod
    def outline(self, sample: Sample) -> PreparedSample:
        """Render the prompt and tokenise it; of the images only the headers are read.

        The result says how long the prompt is, so that batches can be formed before any pixel is
        decoded. Runs on the CPU, in one thread at a time.

        Raises:
            RejectedSampleError: This sample cannot be shown to the model.
        """

    @abstractmethod
    def fill(self, sample: Sample, outlined: PreparedSample) -> PreparedSample:
        """Decode and process the images of an outlined sample. Runs on the CPU, in any thread.

        Args:
            sample: As it was given to `outline`.
            outlined: What `outline` returned.

        Returns:
            `outlined` with its tensors, in pinned memory where the model is on a GPU.

        Raises:
            RejectedSampleError: An image cannot be decoded or processed.
        """

    def prepare(self, sample: Sample) -> PreparedSample:
        """Make a sample ready for the forward pass: `outline`, then `fill`.

        Raises:
            RejectedSampleError: This sample cannot be shown to the model.
        """
        return self.fill(sample, self.outline(sample))

    def hidden_states(self, prepared: Sequence[PreparedSample]) -> TokenBatch:
        """Run one forward pass for block L alone; see `hidden_states_at`."""
        return self.hidden_states_at(prepared, [self.layer])[self.layer]

    @abstractmethod
    def hidden_states_at(
        self, prepared: Sequence[PreparedSample], layers: Sequence[int]
    ) -> dict[int, TokenBatch]:
        """Run one padded forward pass and return the outputs of blocks without the padding.

        Args:
            prepared: At least one sample. Which others are in the batch changes a sample's hidden
                states by rounding alone (1e-5 in float32).
            layers: Blocks up to L; a block's output is the same to the bit in a model that ends
                with it.

        Returns:
            By block: the tokens of all samples in the order given; `sample_n` indexes `prepared`.

        Raises:
            DataError: The images' features and their placeholders differ in number.
        """

    @abstractmethod
    def image_boxes(self, sample: Sample, prepared: PreparedSample) -> list[PatchBox]:
        """Return the box of every image token that has one, in order of position.

        Newlines and class tokens have none. A patch at the border of a padded image ends at the
        image's edge. A model that is shown no images has no boxes.

        Raises:
            ValueError: `prepared` was made of another sample.
        """

    def batches(self, prepared: Sequence[PreparedSample], token_budget: int) -> list[list[int]]:
        """Group samples of like length; see `length_batches`."""
        return length_batches([sample.n_tokens for sample in prepared], token_budget)

    def decode_token(self, token_id: int) -> str:
        """Return one token as text, special tokens included."""
        return self.decode_tokens([token_id])

    def decode_tokens(self, token_ids: Sequence[int] | npt.NDArray[np.int32]) -> str:
        """Return a run of tokens as text, special tokens included."""
        ids = [int(token_id) for token_id in token_ids]
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def token_batch(prepared: Sequence[PreparedSample], acts_nd: torch.Tensor) -> TokenBatch:
    """Put the tokens of several samples beside their hidden states.

    Args:
        prepared: The samples, in the order of the rows of `acts_nd`.
        acts_nd: (n, d_in), one row per token.
    """
    lengths = [sample.n_tokens for sample in prepared]
    return TokenBatch(
        sample_n=np.repeat(np.arange(len(prepared), dtype=np.int32), lengths),
        position_n=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        token_id_n=np.concatenate([sample.token_id_n for sample in prepared]),
        modality_n=np.concatenate([sample.modality_n for sample in prepared]),
        acts_nd=acts_nd,
    )


def special_modality(
    token_id_n: npt.NDArray[np.int32], special_ids: Sequence[int], image_id: int
) -> npt.NDArray[np.uint8]:
    """Return each token's modality by its id alone: image placeholder, special, else text."""
    modality_n = np.full(len(token_id_n), Modality.TEXT, np.uint8)
    modality_n[np.isin(token_id_n, np.asarray(special_ids, np.int32))] = Modality.SPECIAL
    modality_n[token_id_n == image_id] = Modality.IMAGE
    return modality_n
