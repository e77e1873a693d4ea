"""The corpora shipped with the package, in Align-Anything's columns: no network is needed.

`builtin` holds matched rows; in `builtin-noisy` some rows are corrupted on purpose. Which ones
stands in a table of its own that no scorer sees, so that a report can say whether a filter found
them.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.errors import DataError

_DATA = Path(__file__).parent / "data"


def builtin_directory(name: str) -> Path:
    """Return the directory of Parquet files of the corpus `builtin` or `builtin-noisy`.

    Raises:
        DataError: The installation lacks it.
    """
    directory = _DATA / name
    if not directory.is_dir():
        raise DataError(f"{directory} is missing; install raysae again, with its package data.")
    return directory


def builtin_noisy_truth() -> pa.Table:
    """Return what was done to each row of `builtin-noisy`.

    For reports and tests only: nothing that scores or selects may look at it.

    Raises:
        DataError: The installation lacks it.
    """
    return pq.read_table(builtin_directory("builtin-noisy-truth"))


def known_corruption(corpus: str) -> dict[int, str]:
    """Return how rows of a corpus were corrupted on purpose: ordinal → kind, intact rows left out.

    Empty for every corpus but `builtin-noisy`. For reports and tests only, as above.
    """
    if corpus != "builtin-noisy":
        return {}
    truth = builtin_noisy_truth()
    rows = zip(truth["row"].to_pylist(), truth["kind"].to_pylist(), strict=True)
    return {row: kind for row, kind in rows if kind != "clean"}
