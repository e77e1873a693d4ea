"""Rows of `builtin` for copies of public data sets, and how a file of them is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.corpora.builtin import builtin_directory

ROWS = 30
OTHER_ROWS = 20
"""Rows of each further split or left-over, from elsewhere in `builtin`."""

Rows = list[dict[str, Any]]

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How `datasets` stores its Image feature."""


class Pair(NamedTuple):
    """A row of `builtin`."""

    number: int
    question: str
    image: bytes
    chosen: str
    rejected: str


class Good(NamedTuple):
    """What a good row of a copy holds."""

    question: str
    images: tuple[bytes, ...]
    chosen: str | None
    rejected: str | None


@lru_cache(1)
def _builtin() -> list[Pair]:
    rows = pq.read_table(builtin_directory("builtin")).slice(0, 400).to_pylist()
    pairs = []
    for number, row in enumerate(rows):
        answers = [row["response_1"], row["response_2"]]
        if row["overall_response"] == 2:
            answers.reverse()
        pairs.append(Pair(number, row["question"], row["image"]["bytes"], *answers))
    return pairs


def pairs(start: int = 0, rows: int = ROWS) -> list[Pair]:
    """Return some rows of `builtin`."""
    return _builtin()[start : start + rows]


def preference_of(pair: Pair) -> int:
    """Return which of a row's two answers is the better one, as the copies write it."""
    return 1 + pair.number % 2


def answers_of(pair: Pair) -> tuple[str, str]:
    first = preference_of(pair) == 1
    return (pair.chosen, pair.rejected) if first else (pair.rejected, pair.chosen)


def pair_of(ordinal: int) -> Good:
    """Return a row with an image and two answers."""
    pair = pairs()[ordinal]
    return Good(pair.question, (pair.image,), pair.chosen, pair.rejected)


def without_images(ordinal: int) -> Good:
    return pair_of(ordinal)._replace(images=())


def cell(image: bytes, path: str | None = None) -> dict[str, Any]:
    return {"bytes": image, "path": path}


def truncated(image: bytes) -> bytes:
    return image[: len(image) // 2]


def described(schema: pa.Schema) -> pa.Schema:
    """Add the metadata by which `datasets` knows its features."""
    features = {
        field.name: {"_type": "Image"}
        if field.type == IMAGE
        else {"dtype": str(field.type), "_type": "Value"}
        for field in schema
    }
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path: Path, rows: Rows, schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=10)


def write_by_datasets(path: Path, rows: Rows, features: Any) -> None:
    """Write a file as `push_to_hub` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset_of(rows, features).to_parquet(path)


def dataset_of(rows: Rows, features: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def changed(rows: Rows, changes: Mapping[int, dict[str, Any]]) -> Rows:
    return [{**row, **changes.get(number, {})} for number, row in enumerate(rows)]
