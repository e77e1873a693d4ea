"""The cache's format, version 2, as docs/activation-cache.md lays it down: schemas and limits."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysae.errors import DataError, SettingsError

CACHE_FORMAT_VERSION = "2"

MAX_SHARD_BYTES = 1 << 30
"""Bound on a shard's activations, which the writer holds in memory: 1 GiB."""

MAX_BATCH_BYTES = 64 << 20
"""Bound on a record batch's activations: 64 MiB."""

DTYPE_KEY = b"dtype"
"""Key in the `activation` field's metadata under which the dtype's name stands."""

VERSION_KEY = b"raysae_activation_cache"
"""Key in the schema's metadata under which the format version stands."""

COMPRESSION_KEY = b"compression"
"""Key in a token file's schema under which stands how its buffers are compressed, if they are."""

COMPRESSED_SUFFIX = ".zstd.arrow"
"""How the names of compressed token files end."""

Compression = Literal["none", "zstd"]
"""How the buffers of a token file are stored."""

TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""The dtypes that a cache can hold, by name."""

_ARROW_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "bfloat16": pa.uint16()}
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_NUMPY_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}

ROW_BYTES_WITHOUT_ACTIVATION = 4 + 4 + 4 + 1 + 4
"""Of a token's sample, position, id, modality and norm."""

SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("ordinal", pa.int64()),
        pa.field("tokens", pa.int32()),
        pa.field("text_tokens", pa.int32()),
        pa.field("image_tokens", pa.int32()),
        pa.field("kept_tokens", pa.int32()),
        pa.field("kept_positions", pa.list_(pa.int32())),
        pa.field("kept_rows", pa.list_(pa.int32())),
    ],
    metadata={VERSION_KEY: CACHE_FORMAT_VERSION},
)
"""One row per sample of a shard."""


def tokens_schema(d_in: int, dtype: str, compression: Compression = "none") -> pa.Schema:
    """Return the schema of a shard's token file.

    Args:
        d_in: Width of the hidden states.
        dtype: A key of `TORCH_DTYPES`.
        compression: Of the file's buffers.

    Raises:
        SettingsError: Another dtype.
    """
    metadata = {VERSION_KEY: CACHE_FORMAT_VERSION}
    if compression != "none":
        metadata[COMPRESSION_KEY] = compression
    item = pa.field("item", _ARROW_TYPES[known_dtype(dtype)])
    return pa.schema(
        [
            pa.field("sample", pa.int32()),
            pa.field("position", pa.int32()),
            pa.field("token_id", pa.int32()),
            pa.field("modality", pa.uint8()),
            pa.field("norm", pa.float32()),
            pa.field("activation", pa.list_(item, d_in), metadata={DTYPE_KEY: dtype}),
        ],
        metadata=metadata,
    )


class TokenFormat(NamedTuple):
    """What a token file's schema says.

    Attributes:
        d_in: Width of the hidden states.
        dtype: A key of `TORCH_DTYPES`.
        compression: Of the file's buffers.
    """

    d_in: int
    dtype: str
    compression: Compression


def read_tokens_schema(schema: pa.Schema, file: str) -> TokenFormat:
    """Return what the schema of a token file says.

    Raises:
        DataError: The schema is not this format's.
    """
    metadata = schema.metadata or {}
    version = metadata.get(VERSION_KEY, b"").decode()
    if version != CACHE_FORMAT_VERSION:
        raise DataError(
            f"{file} is no activation cache of version {CACHE_FORMAT_VERSION} (it says "
            f"{version or 'nothing'}); run the job that makes it again."
        )
    d_in, dtype = 0, ""
    if "activation" in schema.names:
        field = schema.field("activation")
        dtype = (field.metadata or {}).get(DTYPE_KEY, b"").decode()
        d_in = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 0
    compression: Compression = "zstd" if metadata.get(COMPRESSION_KEY) == b"zstd" else "none"
    if not (
        dtype in TORCH_DTYPES
        and d_in
        and schema.equals(tokens_schema(d_in, dtype, compression), check_metadata=True)
    ):
        raise DataError(f"{file} has other columns than the activation cache's:\n{schema}")
    return TokenFormat(d_in, dtype, compression)


def is_whole(content: pa.Buffer) -> bool:
    """Whether an Arrow IPC stream has its end; one cut between batches reads without an error."""
    end: bytes = content.slice(max(0, content.size - len(_END_OF_STREAM))).to_pybytes()
    return end == _END_OF_STREAM


def known_dtype(dtype: str) -> str:
    """Return `dtype` if a cache can hold it, else raise SettingsError."""
    if dtype not in TORCH_DTYPES:
        raise SettingsError(
            f"model.dtype: a cache holds {', '.join(TORCH_DTYPES)}, got {dtype!r}; choose one of "
            "them."
        )
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a torch dtype, as the format spells it.

    Raises:
        SettingsError: A cache cannot hold it.
    """
    return known_dtype(str(dtype).removeprefix("torch."))


def row_bytes(d_in: int, dtype: str) -> int:
    """Return the bytes that a token takes in a token file, without the framing."""
    return d_in * TORCH_DTYPES[known_dtype(dtype)].itemsize + ROW_BYTES_WITHOUT_ACTIVATION


def as_numpy(acts_nd: torch.Tensor) -> npt.NDArray[Any]:
    """View a CPU tensor as the numbers that are stored, without a copy; bfloat16 as uint16."""
    bits_nd = acts_nd.view(torch.uint16) if acts_nd.dtype == torch.bfloat16 else acts_nd
    array: npt.NDArray[Any] = bits_nd.numpy()
    return array


def as_torch(acts_nd: npt.NDArray[Any], dtype: str) -> torch.Tensor:
    """View stored numbers as a tensor, without a copy; the array must be writable."""
    tensor = torch.from_numpy(acts_nd)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def numpy_type(dtype: str) -> npt.DTypeLike:
    """Return the numpy type of the stored numbers."""
    return _NUMPY_TYPES[known_dtype(dtype)]


def activation_array(flat: npt.NDArray[Any], d_in: int, dtype: str) -> pa.FixedSizeListArray:
    """Wrap contiguous stored numbers (n · d_in,) as the `activation` column, without a copy."""
    type_ = tokens_schema(d_in, dtype).field("activation").type
    values = pa.Array.from_buffers(type_.value_type, len(flat), [None, pa.py_buffer(flat)])
    return pa.FixedSizeListArray.from_arrays(values, type=type_)
