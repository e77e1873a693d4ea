"""Top tokens to and from Arrow: what a shard leaves for the merge.

Two tables. `tokens` has one row per retained token (`TOKEN_FIELDS` plus the hidden state), by
ordinal and position, and carries settings and counts as JSON in its schema's metadata; `features`
has one row per feature that fired. Equal states have equal tables, however they came about.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from raysae.errors import DataError
from raysae.scoring.pool import TokenPool, key_ordinals, key_positions, token_keys
from raysae.scoring.settings import WeightSettings
from raysae.scoring.tokens import IMAGE, TEXT
from raysae.scoring.top_tokens import TopTokens

STATE_VERSION = 1

TOKEN_FIELDS = [
    pa.field("ordinal", pa.int64(), nullable=False),
    pa.field("position", pa.int32(), nullable=False),
    pa.field("token_id", pa.int32(), nullable=False),
    pa.field("side", pa.uint8(), nullable=False),
    pa.field("features", pa.list_(pa.int32()), nullable=False),
    pa.field("values", pa.list_(pa.float32()), nullable=False),
]
"""Columns before `activation`; `features` retain the token, `values` are their activations."""

FEATURES_SCHEMA = pa.schema(
    [
        pa.field("feature", pa.int32(), nullable=False),
        pa.field("fired_text", pa.int64(), nullable=False),
        pa.field("fired_image", pa.int64(), nullable=False),
    ]
)

_METADATA_KEY = b"raysae.top_tokens"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_STORED = {"float32": pa.float32(), "float16": pa.float16(), "bfloat16": pa.uint16()}
_ROWS_PER_BATCH = 8192


class TopTokensTables(NamedTuple):
    """A state as two `pyarrow.Table`s."""

    tokens: Any
    features: Any


def top_tokens_to_arrow(top: TopTokens) -> TopTokensTables:
    """Return a state as tables; bfloat16 is stored as uint16, its name in the metadata.

    Raises:
        DataError: A token was given twice.
    """
    top.canonicalize()
    pool = top.pool
    dtype = str(pool.dtype or torch.float32).removeprefix("torch.")
    feature_m, value_m, row_m = top.retained()
    order = np.lexsort((feature_m, row_m))
    ends = np.cumsum(np.bincount(row_m, minlength=len(pool)), dtype=np.int32)
    offsets = np.concatenate([np.zeros(1, dtype=np.int32), ends[: len(pool)]])
    columns = [
        key_ordinals(pool.key_p),
        key_positions(pool.key_p),
        pool.token_id_p,
        pool.side_p,
        pa.ListArray.from_arrays(offsets, pa.array(feature_m[order].astype(np.int32))),
        pa.ListArray.from_arrays(offsets, pa.array(value_m[order])),
        _acts_to_arrow(pool.acts_pd(), dtype),
    ]
    header = {
        "version": STATE_VERSION,
        "n_features": top.n_features,
        "d_in": top.d_in,
        "dtype": dtype,
        "settings": asdict(top.settings),
        "tokens": top.tokens_s.tolist(),
    }
    activation = pa.field("activation", pa.list_(_STORED[dtype], top.d_in), nullable=False)
    metadata = {_METADATA_KEY: json.dumps(header, sort_keys=True).encode()}
    schema = pa.schema([*TOKEN_FIELDS, activation], metadata=metadata)
    fired = np.flatnonzero(top.fired_fs.any(axis=1))
    counts = [top.fired_fs[fired, side] for side in (TEXT, IMAGE)]
    return TopTokensTables(
        pa.table([pa.array(column) for column in columns], schema=schema),
        pa.table([fired.astype(np.int32), *counts], schema=FEATURES_SCHEMA),
    )


def top_tokens_from_arrow(tables: TopTokensTables) -> TopTokens:
    """Read what `top_tokens_to_arrow` made.

    Raises:
        DataError: The tables are something else, or of another version.
    """
    header = json.loads((tables.tokens.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if header.get("version") != STATE_VERSION:
        raise DataError(
            f"Top tokens have version {header.get('version')}, this code reads {STATE_VERSION}; "
            "collect them again."
        )
    top = TopTokens(header["n_features"], header["d_in"], WeightSettings(**header["settings"]))
    top.tokens_s[:] = header["tokens"]
    feature, text, image = (column.to_numpy() for column in tables.features.columns)
    top.fired_fs[feature] = np.stack([text, image], axis=1)
    tokens = tables.tokens.combine_chunks()
    if len(tokens) == 0:
        return top
    pool = TokenPool(top.d_in)
    pool.append(
        token_keys(tokens["ordinal"].to_numpy(), tokens["position"].to_numpy()),
        tokens["token_id"].to_numpy(),
        tokens["side"].to_numpy(),
        _acts_from_arrow(tokens["activation"], header["dtype"], top.d_in),
    )
    features = tokens["features"].combine_chunks()
    row_m = np.repeat(np.arange(len(tokens)), features.value_lengths().to_numpy())
    feature_m = features.flatten().to_numpy().astype(np.int64)
    value_m = tokens["values"].combine_chunks().flatten().to_numpy()
    top.restore(pool, feature_m, value_m, row_m)
    return top


def write_top_tokens(top: TopTokens, sink: BinaryIO) -> None:
    """Write a state as two Arrow IPC streams, one after the other, into an open binary file.

    Raises:
        DataError: A token was given twice.
    """
    for table in top_tokens_to_arrow(top):
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=_ROWS_PER_BATCH)


def read_top_tokens(source: BinaryIO) -> TopTokens:
    """Read what `write_top_tokens` wrote.

    Raises:
        DataError: The file is cut off, something else, or of another version.
    """
    try:
        tokens, features = (pa.ipc.open_stream(source).read_all() for _ in range(2))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"The top tokens cannot be read ({error}); collect them again.") from error
    return top_tokens_from_arrow(TopTokensTables(tokens, features))


def _acts_to_arrow(acts_pd: torch.Tensor, dtype: str) -> Any:
    """Return a FixedSizeList array over the tensor's memory."""
    stored = acts_pd.view(torch.uint16) if dtype == "bfloat16" else acts_pd
    return pa.FixedSizeListArray.from_arrays(pa.array(stored.numpy().ravel()), acts_pd.shape[1])


def _acts_from_arrow(column: Any, dtype: str, d_in: int) -> torch.Tensor:
    """Return hidden states (p, d_in) in memory of their own."""
    values = column.combine_chunks().flatten().to_numpy()
    acts_pd = torch.from_numpy(values.copy()).reshape(-1, d_in)
    return acts_pd.view(_DTYPES[dtype]) if dtype == "bfloat16" else acts_pd
