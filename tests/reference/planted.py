"""Planted features: hidden states whose features, and whose corruption, are known.

A dictionary of random unit directions is the SAE. Some directions are *concepts*, which fire on
text and on image tokens, the others belong to one modality. Every row is about a few concepts of
its own: its text and its image show them. A *swapped* row keeps its text and takes the image tokens
of another row. Image tokens precede the text, as in the models at hand.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from raysae.sae import Codes
from raysae.sample import Modality, TokenBatch


@dataclass(frozen=True)
class PlantedSettings:
    """Sizes of a planted corpus; the defaults take a second on one core."""

    rows: int = 400
    concepts: int = 60
    concepts_per_row: int = 6
    concepts_per_token: int = 2
    own_features: int = 40
    own_per_token: int = 2
    image_tokens: int = 24
    text_tokens: int = 10
    d_in: int = 256
    noise: float = 0.05
    swapped: float = 0.5
    seed: int = 0

    @property
    def n_features(self) -> int:
        return self.concepts + 2 * self.own_features


@dataclass(frozen=True)
class PlantedCorpus:
    """Hidden states of all rows, their codes, and which rows were swapped."""

    settings: PlantedSettings
    dictionary_fd: torch.Tensor
    batch: TokenBatch
    codes: Codes
    is_swapped: npt.NDArray[np.bool_]

    @property
    def ordinals_n(self) -> npt.NDArray[np.int64]:
        return self.batch.sample_n.astype(np.int64)

    @property
    def sample_ids(self) -> list[str]:
        return [f"row-{row:05d}" for row in range(self.settings.rows)]


def planted_corpus(settings: PlantedSettings) -> PlantedCorpus:
    """Draw a corpus; features are the concepts, then the text's own, then the image's own."""
    rng = np.random.default_rng(settings.seed)
    dictionary_fd = rng.standard_normal((settings.n_features, settings.d_in))
    dictionary_fd /= np.linalg.norm(dictionary_fd, axis=1, keepdims=True)
    about = [
        rng.choice(settings.concepts, settings.concepts_per_row, replace=False)
        for _ in range(settings.rows)
    ]
    is_swapped = rng.random(settings.rows) < settings.swapped
    shown = list(range(settings.rows))
    for row in np.flatnonzero(is_swapped):
        shown[row] = int(rng.choice([other for other in range(settings.rows) if other != row]))

    first_text = settings.concepts
    first_image = settings.concepts + settings.own_features
    blocks = []
    for row in range(settings.rows):
        image = _tokens(rng, settings, about[shown[row]], first_image, settings.image_tokens)
        text = _tokens(rng, settings, about[row], first_text, settings.text_tokens)
        blocks += [image, text]
    z_nf = np.concatenate(blocks)
    noise_nd = settings.noise * rng.standard_normal((len(z_nf), settings.d_in))
    acts_nd = torch.from_numpy((z_nf @ dictionary_fd + noise_nd).astype(np.float32))
    length = settings.image_tokens + settings.text_tokens
    modality = [Modality.IMAGE] * settings.image_tokens + [Modality.TEXT] * settings.text_tokens
    batch = TokenBatch(
        np.repeat(np.arange(settings.rows, dtype=np.int32), length),
        np.tile(np.arange(length, dtype=np.int32), settings.rows),
        np.zeros(settings.rows * length, dtype=np.int32),
        np.tile(np.array(modality, dtype=np.uint8), settings.rows),
        acts_nd,
    )
    dictionary = torch.from_numpy(dictionary_fd.astype(np.float32))
    return PlantedCorpus(settings, dictionary, batch, encode(acts_nd, dictionary), is_swapped)


def encode(acts_nd: torch.Tensor, dictionary_fd: torch.Tensor, bias: float = 0.5) -> Codes:
    """Encode with the dictionary as a ReLU SAE: z = ReLU(D h - bias)."""
    z_nf = torch.relu(acts_nd @ dictionary_fd.T - bias)
    token_m, feature_m = z_nf.nonzero(as_tuple=True)
    return Codes(token_m.int(), feature_m.int(), z_nf[token_m, feature_m])


def _tokens(
    rng: np.random.Generator,
    settings: PlantedSettings,
    about: npt.NDArray[np.int64],
    first_own: int,
    n_tokens: int,
) -> npt.NDArray[np.float64]:
    """Draw a row's tokens of one modality: some of its concepts, some features of the modality."""
    z_nf = np.zeros((n_tokens, settings.n_features))
    own = first_own + np.arange(settings.own_features)
    for z_f in z_nf:
        on = [
            *rng.choice(about, settings.concepts_per_token, replace=False),
            *rng.choice(own, settings.own_per_token, replace=False),
        ]
        z_f[on] = rng.uniform(2.5, 4.0, len(on))
    return z_nf
