"""Which SAE features are active in which samples, without anything dense that outlives a block.

Letters: n tokens, m active (token, feature) entries, e active (sample, feature) entries,
f features, s samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from raysae.scoring.tokens import IMAGE, NEITHER, TEXT, Int64Array

if TYPE_CHECKING:
    from raysae.sae import Codes

_FLAGS_AT_ONCE = 1 << 26
"""Bound on (samples × features) flags held at once: 64 MiB twice."""


class ActiveFeatures(NamedTuple):
    """Which features are active in which samples, ascending by (sample, feature)."""

    sample_e: Int64Array
    feature_e: Int64Array
    shared_e: npt.NDArray[np.bool_]


def active_features(
    codes: Codes,
    sample_n: npt.NDArray[np.int32],
    side_n: npt.NDArray[np.uint8],
    *,
    n_samples: int,
    n_features: int,
    threshold: float,
) -> ActiveFeatures:
    """Find each sample's active features, and whether text and image share them.

    Args:
        codes: Sparse codes of the n tokens, any device.
        sample_n: int32 (n,), the sample of each token.
        side_n: uint8 (n,), see `token_sides`.
        n_samples: s.
        n_features: f.
        threshold: δ, exclusive.

    Returns:
        Entries with `shared_e` where the feature is active on text and on image tokens.
    """
    device = codes.value_m.device
    side_t = torch.from_numpy(side_n).to(device)
    sample_t = torch.from_numpy(sample_n).to(device)
    active = (codes.value_m > threshold) & (side_t[codes.token_m] != NEITHER)
    token_m, feature_m = codes.token_m[active], codes.feature_m[active].long()
    sample_m, side_m = sample_t[token_m].long(), side_t[token_m]
    block = max(1, _FLAGS_AT_ONCE // max(1, n_features))
    # An empty part first, so that no samples give empty columns.
    none = torch.empty(0, dtype=torch.int64, device=device)
    parts = [(none, none, none.bool())]
    for start in range(0, n_samples, block):
        rows = min(block, n_samples - start)
        here = (sample_m >= start) & (sample_m < start + rows)
        flags = torch.zeros((2, rows, n_features), dtype=torch.bool, device=device)
        flags[side_m[here].long(), sample_m[here] - start, feature_m[here]] = True
        sample_e, feature_e = (flags[TEXT] | flags[IMAGE]).nonzero(as_tuple=True)
        shared_e = (flags[TEXT] & flags[IMAGE])[sample_e, feature_e]
        parts.append((sample_e + start, feature_e, shared_e))
    columns = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return ActiveFeatures(*columns)
