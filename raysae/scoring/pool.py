"""Hidden states of the tokens that some feature retains, each stored once.

Letters: p tokens in the pool, d `d_in`.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from raysae.errors import DataError
from raysae.scoring.tokens import Int64Array

_POSITION_BITS = 24
_ORDINAL_LIMIT = 1 << (63 - _POSITION_BITS)

_CHUNK_BYTES = 64 << 20
"""Of hidden states in a chunk that `take` makes: what is released at a time when it is next taken
from."""

_BLOCK_BYTES = 16 << 20
"""Of hidden states that `take` copies at a time."""


def token_keys(ordinals_n: Int64Array, position_n: npt.NDArray[np.int32]) -> Int64Array:
    """Pack (ordinal, position) into one int64 that sorts as the pair does.

    Raises:
        DataError: An ordinal is negative or ≥ 2³⁹, or a position negative or ≥ 2²⁴.
    """
    for name, values, limit in (
        ("ordinal", ordinals_n, _ORDINAL_LIMIT),
        ("position", position_n, 1 << _POSITION_BITS),
    ):
        if len(values) and (int(values.min()) < 0 or int(values.max()) >= limit):
            raise DataError(
                f"Token {name}s must lie in [0, {limit}), got {values.min()} to {values.max()}."
            )
    return (ordinals_n.astype(np.int64) << _POSITION_BITS) | position_n.astype(np.int64)


def key_ordinals(key_p: Int64Array) -> Int64Array:
    """Return the ordinals packed into token keys, int64."""
    return key_p >> _POSITION_BITS


def key_positions(key_p: Int64Array) -> npt.NDArray[np.int32]:
    """Return the positions packed into token keys, int32."""
    return (key_p & ((1 << _POSITION_BITS) - 1)).astype(np.int32)


class TopToken(NamedTuple):
    """A token that a feature retains."""

    ordinal: int
    position: int
    token_id: int
    value: float


class TokenPool:
    """A growing table of tokens whose rows are referred to by number.

    Hidden states come in chunks, in the dtype in which they arrive, and are never changed in place,
    so that two pools may share a chunk.

    Attributes:
        key_p: int64 (p,), see `token_keys`.
        token_id_p: int32 (p,).
        side_p: uint8 (p,), text (0) or image (1).
    """

    def __init__(self, d_in: int) -> None:
        self.d_in = d_in
        self.key_p: Int64Array = np.empty(0, dtype=np.int64)
        self.token_id_p: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self.side_p: npt.NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._chunks: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self.key_p)

    @property
    def dtype(self) -> torch.dtype | None:
        """The hidden states' dtype; None before the first token."""
        return self._chunks[0].dtype if self._chunks else None

    def append(
        self,
        key_p: Int64Array,
        token_id_p: npt.NDArray[np.int32],
        side_p: npt.NDArray[np.uint8],
        acts_pd: torch.Tensor,
    ) -> None:
        """Add rows at the end; `acts_pd` (p, d_in) is kept as it is, without a copy.

        Raises:
            DataError: The hidden states have another width or dtype than those before.
        """
        if acts_pd.shape != (len(key_p), self.d_in):
            raise DataError(
                f"Hidden states must have shape ({len(key_p)}, {self.d_in}), "
                f"got {tuple(acts_pd.shape)}."
            )
        if len(key_p) == 0:
            return
        if self.dtype not in (None, acts_pd.dtype):
            raise DataError(
                f"Hidden states are {acts_pd.dtype} here and {self.dtype} before; "
                "run all shards with one dtype."
            )
        self.key_p = np.concatenate([self.key_p, key_p])
        self.token_id_p = np.concatenate([self.token_id_p, token_id_p])
        self.side_p = np.concatenate([self.side_p, side_p])
        self._chunks.append(acts_pd)

    def absorb(self, other: TokenPool) -> None:
        """Add the rows of another pool at the end, sharing its chunks."""
        start = 0
        for chunk in other._chunks:
            rows = slice(start, start + len(chunk))
            self.append(other.key_p[rows], other.token_id_p[rows], other.side_p[rows], chunk)
            start = rows.stop

    def take(self, rows: Int64Array, *, as_one: bool = False) -> None:
        """Keep the given rows, in the given order, and forget the others.

        Old chunks are released while new ones fill, so that memory stays near that of the larger of
        the two; only a single large chunk (`as_one`) stands beside what is taken from it.

        Args:
            rows: Distinct row numbers.
            as_one: Put all hidden states into one chunk, for `acts_pd`.
        """
        whole = len(rows) == len(self) and bool((np.diff(rows) == 1).all())
        if whole and (len(self._chunks) < 2 or not as_one):
            return
        size = max(1, len(rows)) if as_one else self._rows_per(_CHUNK_BYTES)
        taken = [
            torch.empty((min(size, len(rows) - start), self.d_in), dtype=self.dtype)
            for start in range(0, len(rows), size)
        ]
        starts = list(accumulate((len(chunk) for chunk in self._chunks), initial=0))
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], starts)
        self._chunks.reverse()
        for start, low, high in zip(starts, bounds, bounds[1:], strict=False):
            chunk = self._chunks.pop()
            for block in range(low, high, self._rows_per(_BLOCK_BYTES)):
                place = order[block : min(block + self._rows_per(_BLOCK_BYTES), high)]
                for number in np.unique(place // size).tolist():
                    here = place[place // size == number]
                    source = torch.from_numpy(rows[here] - start)
                    taken[number][torch.from_numpy(here - number * size)] = chunk[source]
        self.key_p = self.key_p[rows]
        self.token_id_p = self.token_id_p[rows]
        self.side_p = self.side_p[rows]
        self._chunks = taken

    def _rows_per(self, n_bytes: int) -> int:
        """Return how many hidden states fill so many bytes, at least one."""
        itemsize = self.dtype.itemsize if self.dtype else torch.float32.itemsize
        return max(1, n_bytes // max(1, self.d_in * itemsize))

    def acts_pd(self) -> torch.Tensor:
        """Return all hidden states (p, d_in) as one tensor.

        Right after `take(…, as_one=True)` nothing is copied.
        """
        if not self._chunks:
            return torch.empty((0, self.d_in))
        return self._chunks[0] if len(self._chunks) == 1 else torch.cat(self._chunks)

    def describe(self, rows: Int64Array, values: npt.NDArray[np.float32]) -> list[TopToken]:
        """Return some rows, with an activation each, for a person to read."""
        key = self.key_p[rows]
        columns = (key_ordinals(key), key_positions(key), self.token_id_p[rows], values)
        return [TopToken(*token) for token in zip(*(c.tolist() for c in columns), strict=True)]
