"""Feature weights ω: how alike a feature's text and image tokens are (SAE-V, Eq. 7).

Letters: f features, s sides (text 0, image 1), k retained tokens, p tokens in the pool, d `d_in`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional

from raysae.errors import DataError
from raysae.scoring.settings import Pairing
from raysae.scoring.tokens import IMAGE, TEXT, Int64Array

Int32Array = npt.NDArray[np.int32]

WEIGHTS_SCHEMA = pa.schema(
    [
        pa.field("feature", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("n_text", pa.int32(), nullable=False),
        pa.field("n_image", pa.int32(), nullable=False),
        pa.field("fired_text", pa.int64(), nullable=False),
        pa.field("fired_image", pa.int64(), nullable=False),
    ]
)
"""One row per SAE feature, in order; the meaning of the columns is that of `FeatureWeights`."""

_BLOCK_VALUES = 1 << 24
"""Hidden-state values converted to float32 at once: 64 MiB."""


@dataclass(frozen=True)
class FeatureWeights:
    """One weight per SAE feature, with what it rests on.

    Attributes:
        weight_f: float32 (f,), ω in [-1, 1]; 0 where there are too few pairs.
        n_text_f: int32 (f,), text tokens that the weight was measured on, at most K.
        n_image_f: int32 (f,), image tokens likewise.
        fired_text_f: int64 (f,), text tokens of the drawn samples on which the feature exceeds δ.
        fired_image_f: int64 (f,), image tokens likewise.
    """

    weight_f: npt.NDArray[np.float32]
    n_text_f: Int32Array
    n_image_f: Int32Array
    fired_text_f: Int64Array
    fired_image_f: Int64Array

    def __len__(self) -> int:
        return len(self.weight_f)

    def to_table(self) -> Any:
        """Return the `pyarrow.Table` with `WEIGHTS_SCHEMA`, ready for Parquet."""
        columns = [
            np.arange(len(self), dtype=np.int32),
            self.weight_f,
            self.n_text_f,
            self.n_image_f,
            self.fired_text_f,
            self.fired_image_f,
        ]
        return pa.table([pa.array(column) for column in columns], schema=WEIGHTS_SCHEMA)

    @classmethod
    def from_table(cls, table: Any) -> FeatureWeights:
        """Read what `to_table` made, in any row order.

        Raises:
            DataError: A column is missing, or the features are not 0, 1, … without gaps.
        """
        missing = set(WEIGHTS_SCHEMA.names) - set(table.column_names)
        if missing:
            raise DataError(f"Feature weights lack the column(s) {', '.join(sorted(missing))}.")
        table = table.select(WEIGHTS_SCHEMA.names).cast(WEIGHTS_SCHEMA).sort_by("feature")
        feature, *columns = (column.to_numpy() for column in table.columns)
        if not np.array_equal(feature, np.arange(len(feature))):
            raise DataError("Feature weights must hold each feature from 0 on exactly once.")
        return cls(*columns)

    def summary(self) -> dict[str, float | int]:
        """Return how many features have a weight, and its mean and range over those."""
        weights = self.weight_f[self.weight_f != 0]
        return {
            "features": len(self),
            "weighted": len(weights),
            "mean": float(weights.mean(dtype=np.float64)) if len(weights) else 0.0,
            "min": float(weights.min()) if len(weights) else 0.0,
            "max": float(weights.max()) if len(weights) else 0.0,
            "fired_text": int((self.fired_text_f > 0).sum()),
            "fired_image": int((self.fired_image_f > 0).sum()),
            "fired_both": int(((self.fired_text_f > 0) & (self.fired_image_f > 0)).sum()),
        }


def cross_modal_weights(
    acts_pd: torch.Tensor, rows_fsk: Int64Array, *, min_tokens: int, pairing: Pairing
) -> npt.NDArray[np.float32]:
    """Average, per feature, the cosines between its text and its image tokens (SAE-V, Eq. 7).

    With pairing `all` the mean over all pairs of cos(h_i, h_j) is the dot product of the mean text
    unit vector and the mean image unit vector, so that no pair is ever formed. With `ith` the i-th
    text token meets the i-th image token, as far as the shorter list goes. A hidden state of zero
    length has cosine 0 with everything.

    Args:
        acts_pd: (p, d_in), any float dtype; computed in float32.
        rows_fsk: int (f, 2, k), rows of `acts_pd`, highest activation first, -1 where there
            is none.
        min_tokens: Below this many tokens on either side the weight is 0.
        pairing: `all` or `ith`.

    Returns:
        float32 (f,).

    Raises:
        DataError: A hidden state that a weight needs holds NaN or infinity.
    """
    count_fs = torch.from_numpy((rows_fsk >= 0).sum(axis=2))
    paired = (count_fs >= min_tokens).all(dim=1).nonzero()[:, 0]
    # A free place reads the row of zeros past the pool's end.
    rows_fsk = np.where(rows_fsk >= 0, rows_fsk, len(acts_pd))
    total_f = _summed_dots(acts_pd, torch.from_numpy(rows_fsk)[paired], pairing)
    count_fs = count_fs[paired]
    cosine_f = total_f / (count_fs.prod(dim=1) if pairing == "all" else count_fs.amin(dim=1))
    bad = paired[~torch.isfinite(cosine_f)]
    if len(bad):
        raise DataError(
            f"The hidden states of feature {int(bad[0])} hold NaN or infinity; run the model in "
            "bfloat16 or float32."
        )
    weight_f = np.zeros(len(rows_fsk), dtype=np.float32)
    weight_f[paired.numpy()] = cosine_f.clamp_(-1, 1).numpy()
    return weight_f


def _summed_dots(acts_pd: torch.Tensor, rows_fsk: torch.Tensor, pairing: Pairing) -> torch.Tensor:
    """Sum each feature's cosines over the pairs, float32 (f,); row p stands for no token.

    Goes through a few columns of the hidden states at a time, for blocks of features.
    """
    n_features, _, depth = rows_fsk.shape
    n_tokens, d_in = acts_pd.shape
    width = max(1, _BLOCK_VALUES // (n_tokens + 1))
    block = max(1, _BLOCK_VALUES // (2 * depth * min(width, max(1, d_in))))
    inverse_p = _inverse_lengths(acts_pd)
    total_f = torch.zeros(n_features)
    for left in range(0, d_in, width):
        unit_pw = acts_pd[:, left : left + width].float() * inverse_p.unsqueeze(1)
        unit_pw = torch.cat([unit_pw, torch.zeros(1, unit_pw.shape[1])])
        for start in range(0, n_features, block):
            rows = rows_fsk[start : start + block]
            if pairing == "ith":
                dots = (unit_pw[rows[:, TEXT]] * unit_pw[rows[:, IMAGE]]).sum((1, 2))
            else:
                sums = functional.embedding_bag(rows.flatten(0, 1), unit_pw, mode="sum")
                dots = (sums[0::2] * sums[1::2]).sum(1)
            total_f[start : start + block] += dots
    return total_f


def _inverse_lengths(acts_pd: torch.Tensor) -> torch.Tensor:
    """Return 1/‖h‖ of every row, float32 (p,), 0 for a row of zeros."""
    rows = max(1, _BLOCK_VALUES // max(1, acts_pd.shape[1]))
    length_p = torch.empty(len(acts_pd))
    for start in range(0, len(acts_pd), rows):
        length_p[start : start + rows] = acts_pd[start : start + rows].float().norm(dim=1)
    return torch.where(length_p == 0, 0.0, 1 / length_p)
