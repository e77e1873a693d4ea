"""The two JSON files that let `datasets.load_from_disk` open a cache, for a look at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raysae.activations.format import numpy_type, tokens_schema
from raysae.artifacts import FileRecord, Publication, content_id
from raysae.errors import DataError
from raysae.storage import Directory, to_json


def write_dataset_index(
    directory: Directory, data_files: Sequence[str], d_in: int, dtype: str
) -> list[FileRecord]:
    """Write `state.json` and `dataset_info.json` beside the shards of a cache.

    They list the token files that count; a cache without them is still complete for `CacheReader`.
    bfloat16 appears to `datasets` as uint16.

    Args:
        directory: The cache.
        data_files: Names of its token files, in the order in which rows are numbered.
        d_in: Width of the hidden states.
        dtype: Their dtype.

    Returns:
        The two files.

    Raises:
        DataError: No file.
    """
    if not data_files:
        raise DataError(f"{directory}: the cache has no shard; check what its job rejected.")
    schema = tokens_schema(d_in, dtype)
    features: dict[str, Any] = {
        field.name: _value(np.dtype(field.type.to_pandas_dtype()).name)
        for field in schema
        if field.name != "activation"
    }
    item = _value(np.dtype(numpy_type(dtype)).name)
    features["activation"] = {"feature": item, "length": d_in, "_type": "List"}
    index = Publication(directory)
    index.put_bytes("dataset_info.json", to_json({"features": features}))
    index.put_bytes(
        "state.json",
        to_json(
            {
                "_data_files": [{"filename": name} for name in data_files],
                "_fingerprint": content_id(list(data_files)),
                "_format_columns": None,
                "_format_kwargs": {},
                "_format_type": None,
                "_output_all_columns": False,
                "_split": None,
            }
        ),
    )
    return index.records


def _value(dtype: str) -> Mapping[str, str]:
    return {"dtype": dtype, "_type": "Value"}
