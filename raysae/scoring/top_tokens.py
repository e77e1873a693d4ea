"""Each feature's highest-activation text and image tokens, as a state that merges exactly.

Letters: n tokens, m active (token, feature) entries, f features, s sides (text 0, image 1), g
groups (what competes for places: a feature's tokens of one side, or with `joint-top-30` of both), k
places of a group, p tokens in the pool, d `d_in`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from raysae.errors import DataError, SettingsError
from raysae.sample import TokenBatch
from raysae.scoring.pool import TokenPool, TopToken, key_ordinals, key_positions, token_keys
from raysae.scoring.rank_table import RankTable
from raysae.scoring.ranking import per_token_top, split_sides
from raysae.scoring.settings import JOINT_CANDIDATES, WeightSettings
from raysae.scoring.tokens import IMAGE, NEITHER, TEXT, Int64Array, check_codes, token_sides
from raysae.scoring.weights import FeatureWeights, cross_modal_weights

if TYPE_CHECKING:
    from raysae.sae import Codes

Float32Array = npt.NDArray[np.float32]


class FeatureTokens(NamedTuple):
    """A feature's retained tokens, highest activation first."""

    text: list[TopToken]
    image: list[TopToken]


class TopTokens:
    """Collects, over any number of batches, what the feature weights are measured on.

    Tokens are ordered by activation (highest first), then ordinal, then position, so that neither
    the order of updates and merges nor the sharding changes the result by a bit. Memory is bounded
    by the retained tokens: 1.5 times their hidden states and a few blocks, plus those of one batch
    or of one merged state. To serialise a state or to measure weights they are put into one tensor
    while the old ones are released.

    A token must be given once. `weights` and `top_tokens_to_arrow` refuse a state in which one was
    retained twice.

    Attributes:
        n_features: `d_sae`.
        d_in: Width of the hidden states.
        settings: What is collected.
        fired_fs: int64 (f, 2), tokens of each side on which the feature exceeds δ.
        tokens_s: int64 (2,), text and image tokens seen.
        pool: The retained tokens.
        table: Which of them each group retains.
    """

    def __init__(self, n_features: int, d_in: int, settings: WeightSettings) -> None:
        self.n_features = n_features
        self.d_in = d_in
        self.settings = settings
        self.fired_fs: Int64Array = np.zeros((n_features, 2), dtype=np.int64)
        self.tokens_s: Int64Array = np.zeros(2, dtype=np.int64)
        self.pool = TokenPool(d_in)
        self._joint = settings.candidates == "joint-top-30"
        if self._joint:
            self.table = RankTable(n_features, JOINT_CANDIDATES)
        else:
            self.table = RankTable(2 * n_features, settings.top_k)

    def update(self, codes: Codes, batch: TokenBatch, ordinals_n: Int64Array) -> None:
        """Offer a batch of tokens.

        Args:
            codes: The batch's sparse codes; `token_m` indexes the batch. Any device.
            batch: The tokens, with hidden states (n, d_in). Any device.
            ordinals_n: int64 (n,), the corpus ordinal of each token's sample.

        Raises:
            DataError: Lengths, widths or feature numbers do not fit, or the hidden states' dtype
                changed between batches.
        """
        self._check(codes, batch, ordinals_n)
        bos_is_text = self.settings.bos_is_text
        side_n = token_sides(batch.modality_n, batch.position_n, bos_is_text=bos_is_text)
        key_n = token_keys(ordinals_n, batch.position_n)
        self.tokens_s += np.bincount(side_n, minlength=3)[:NEITHER]
        token_m, group_m, value_m = self._candidates(codes, side_n)
        if len(token_m) == 0:
            return
        # Tokens get provisional rows past the pool's end, and real ones if some group retains them.
        end = len(self.pool)
        ranked = self.table.rank(group_m, value_m, key_n[token_m], end + token_m, self.pool.key_p)
        new_gk = ranked.row_gk >= end
        wins_n = np.zeros(len(batch), dtype=bool)
        wins_n[ranked.row_gk[new_gk] - end] = True
        retained = np.flatnonzero(wins_n)
        row_n = np.empty(len(batch), dtype=np.int32)
        row_n[retained] = np.arange(end, end + len(retained), dtype=np.int32)
        ranked.row_gk[new_gk] = row_n[ranked.row_gk[new_gk] - end]
        retained_on_device = torch.from_numpy(retained).to(batch.acts_nd.device)
        acts_pd = batch.acts_nd.detach()[retained_on_device].cpu()
        self.pool.append(key_n[retained], batch.token_id_n[retained], side_n[retained], acts_pd)
        self.table.write(ranked)
        self._maybe_compact()

    def merge(self, other: TopTokens) -> None:
        """Add what another state has seen; the other stays as it is.

        Raises:
            SettingsError: The two were collected under different settings or for different SAEs.
            DataError: Their hidden states have different dtypes.
        """
        mine = (self.n_features, self.d_in, self.settings)
        theirs = (other.n_features, other.d_in, other.settings)
        if mine != theirs:
            raise SettingsError(f"Top tokens of {theirs} cannot be merged into those of {mine}.")
        end = len(self.pool)
        group_m, value_m, row_m = other.table.entries()
        self.pool.absorb(other.pool)
        self.fired_fs += other.fired_fs
        self.tokens_s += other.tokens_s
        self._insert(group_m, value_m, row_m + end)

    def retained(self) -> tuple[Int64Array, Float32Array, Int64Array]:
        """Return feature, activation and pool row of all retained entries."""
        group_m, value_m, row_m = self.table.entries()
        return group_m if self._joint else group_m // 2, value_m, row_m

    def restore(
        self, pool: TokenPool, feature_m: Int64Array, value_m: Float32Array, row_m: Int64Array
    ) -> None:
        """Fill an empty state with what `retained` returned and the pool that it refers to."""
        assert len(self.pool) == 0, "restore fills an empty state"
        self.pool = pool
        side_m = pool.side_p[row_m].astype(np.int64)
        self._insert(feature_m if self._joint else 2 * feature_m + side_m, value_m, row_m)

    def canonicalize(self) -> None:
        """Drop what no feature retains and put the pool in token order.

        Raises:
            DataError: A token was given twice.
        """
        rows = self.table.live_rows()
        self._take(rows[np.argsort(self.pool.key_p[rows], kind="stable")], as_one=True)
        key_p = self.pool.key_p
        repeats = np.flatnonzero(key_p[1:] == key_p[:-1])
        if len(repeats):
            key = key_p[repeats[:1]]
            raise DataError(
                f"Token {key_positions(key)[0]} of sample ordinal {key_ordinals(key)[0]} was given "
                "twice; merge each shard once."
            )

    def weights(self) -> FeatureWeights:
        """Measure the feature weights (SAE-V, Eq. 7).

        Raises:
            DataError: A token was given twice, or a hidden state holds NaN or infinity.
        """
        self.canonicalize()
        _, row_fsk = self._selected(0, self.n_features)
        n_fs = (row_fsk >= 0).sum(axis=2, dtype=np.int32)
        weight_f = cross_modal_weights(
            self.pool.acts_pd(),
            row_fsk,
            min_tokens=self.settings.min_tokens,
            pairing=self.settings.pairing,
        )
        return FeatureWeights(
            weight_f,
            n_text_f=np.ascontiguousarray(n_fs[:, TEXT]),
            n_image_f=np.ascontiguousarray(n_fs[:, IMAGE]),
            fired_text_f=self.fired_fs[:, TEXT].copy(),
            fired_image_f=self.fired_fs[:, IMAGE].copy(),
        )

    def top_tokens(self, feature: int) -> FeatureTokens:
        """Return the tokens that a feature's weight is measured on.

        Raises:
            DataError: There is no such feature.
        """
        if not 0 <= feature < self.n_features:
            raise DataError(f"Feature must lie in [0, {self.n_features}), got {feature}.")
        value_fsk, row_fsk = self._selected(feature, feature + 1)
        text, image = (
            self.pool.describe(row_k[row_k >= 0], value_k[row_k >= 0])
            for value_k, row_k in zip(value_fsk[0], row_fsk[0], strict=True)
        )
        return FeatureTokens(text, image)

    def _candidates(
        self, codes: Codes, side_n: npt.NDArray[np.uint8]
    ) -> tuple[Int64Array, Int64Array, Float32Array]:
        """Count firings; return token, group and value of the codes that may win a place."""
        device = codes.value_m.device
        side_t = torch.from_numpy(side_n).to(device)
        token_m, feature_m, value_m = codes.token_m, codes.feature_m, codes.value_m.detach()
        counted = (side_t[token_m] != NEITHER) & (value_m > self.settings.threshold)
        token_m, feature_m, value_m = token_m[counted], feature_m[counted], value_m[counted]
        slot_m = 2 * feature_m.long() + side_t[token_m]
        fired = torch.bincount(slot_m, minlength=2 * self.n_features)
        self.fired_fs += fired.cpu().numpy().reshape(-1, 2)
        group_m = feature_m.long() if self._joint else slot_m
        # An equal value may still win by its token; a lower one cannot.
        hopeful = value_m >= torch.from_numpy(self.table.floor_g()).to(device)[group_m]
        if self.settings.features_per_token:
            hopeful &= per_token_top(token_m, value_m, self.settings.features_per_token)
        columns = (column[hopeful].cpu().numpy() for column in (token_m, group_m, value_m))
        token, group, value = columns
        return token.astype(np.int64), group, value

    def _insert(self, group_m: Int64Array, value_m: Float32Array, row_m: Int64Array) -> None:
        key_p = self.pool.key_p
        self.table.write(self.table.rank(group_m, value_m, key_p[row_m], row_m, key_p))
        self._maybe_compact()

    def _maybe_compact(self) -> None:
        rows = self.table.live_rows()
        if 3 * len(rows) < 2 * len(self.pool):
            self._take(rows)

    def _take(self, rows: Int64Array, *, as_one: bool = False) -> None:
        self.table.renumber(rows, len(self.pool))
        self.pool.take(rows, as_one=as_one)

    def _selected(self, start: int, stop: int) -> tuple[Float32Array, Int64Array]:
        """Return activations (f, 2, K) and pool rows (f, 2, K), -1 where there is none."""
        if self._joint:
            value_fk, row_fk = self.table.value_gk[start:stop], self.table.row_gk[start:stop]
            return split_sides(value_fk, row_fk, self.pool.side_p, self.settings.top_k)
        groups = slice(2 * start, 2 * stop)
        shape = (stop - start, 2, self.settings.top_k)
        row_fsk = self.table.row_gk[groups].reshape(shape).astype(np.int64)
        return self.table.value_gk[groups].reshape(shape), row_fsk

    def _check(self, codes: Codes, batch: TokenBatch, ordinals_n: Int64Array) -> None:
        if tuple(batch.acts_nd.shape) != (len(batch), self.d_in) or len(ordinals_n) != len(batch):
            raise DataError(
                f"A batch of {len(batch)} tokens needs as many ordinals and hidden states of shape "
                f"({len(batch)}, {self.d_in}), got {len(ordinals_n)} and "
                f"{tuple(batch.acts_nd.shape)}."
            )
        check_codes(codes, len(batch), self.n_features)
