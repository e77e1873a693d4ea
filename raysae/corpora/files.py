"""Lists of corpus files in columns: 100,000 of them cross to a worker as a few arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysae.errors import DataError

_CONTENT = pa.schema(
    [
        ("name", pa.string()),
        ("size", pa.int64()),
        ("fingerprint", pa.string()),
        ("rows", pa.int64()),
    ]
)
_SCHEMA = pa.schema(
    [*_CONTENT, ("mtime_ns", pa.int64()), ("ctime_ns", pa.int64()), ("places", pa.large_binary())]
)


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file of a corpus.

    Attributes:
        uri: Where it lies: an absolute local path, or a URI with its scheme; no part of the
            content. Every character stands for itself, nothing is percent-encoded.
        name: Path below the corpus directory, with forward slashes.
        size: Bytes.
        fingerprint: Says what it holds, see `raysae.corpora.fingerprints`.
        rows: Rows that are used: all of them, unless `max_rows` cut the corpus here.
        mtime_ns: When a local file was last written, in nanoseconds; 0 elsewhere. No part of the
            content: it tells that a file stayed as it was, see `raysae.corpora.local_files`.
        ctime_ns: The same of the file's last change of any kind, which no program can set back.
        places: Where its rows are, see `raysae.corpora.learned.Contents`; follows from the content.
    """

    uri: str
    name: str
    size: int
    fingerprint: str
    rows: int
    mtime_ns: int = field(compare=False)
    ctime_ns: int = field(compare=False)
    places: bytes = field(compare=False, repr=False, default=b"")

    @property
    def is_local(self) -> bool:
        """Whether `uri` is a path of this machine's file systems."""
        return self.uri.startswith("/")


class CorpusFiles(Sequence[CorpusFile]):
    """Files below one directory or prefix, in order of their names.

    It holds columns and makes a `CorpusFile` when asked for one. Pickled it has about 100 bytes and
    a name for each file, and with pickle's protocol 5 a process on the same node shares the arrays.
    """

    def __init__(self, root: str, columns: pa.RecordBatch) -> None:
        """Wrap columns in the order and types of `of`."""
        self._root = root
        self._columns = columns

    @classmethod
    def of(
        cls,
        root: str,
        names: Iterable[str],
        sizes: Iterable[int],
        fingerprints: Iterable[str],
        rows: Iterable[int],
        *,
        mtimes_ns: Iterable[int],
        ctimes_ns: Iterable[int],
        places: Iterable[bytes],
    ) -> CorpusFiles:
        """Build the list from its columns.

        Args:
            root: What the URIs begin with, without a slash at its end.
            names: Paths below `root`.
            sizes: Bytes of each file.
            fingerprints: Of each file.
            rows: Rows used of each file.
            mtimes_ns: When each local file was last written; 0 elsewhere.
            ctimes_ns: When each local file was last changed; 0 elsewhere.
            places: Where the rows of each file are.
        """
        values = (names, sizes, fingerprints, rows, mtimes_ns, ctimes_ns, places)
        columns = [
            pa.array(column, field.type) for column, field in zip(values, _SCHEMA, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
        # Parquet files have none, and there may be very many of them.
        has_places = pc.any(pc.greater(pc.binary_length(columns[-1]), 0)).as_py()
        return cls(root, batch if has_places else batch.drop_columns("places"))

    @property
    def rows_n(self) -> np.ndarray:
        """Rows used of each file, int64."""
        return np.asarray(self._columns.column("rows"))

    def fingerprint(self, index: int) -> str:
        """Return a file's fingerprint alone: every row asks for it, and places may be megabytes."""
        return str(self._columns.column("fingerprint")[index])

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    @overload
    def __getitem__(self, index: int) -> CorpusFile: ...
    @overload
    def __getitem__(self, index: slice) -> CorpusFiles: ...
    def __getitem__(self, index: int | slice) -> CorpusFile | CorpusFiles:
        """Return one file, or the list of some."""
        if isinstance(index, slice):
            kept = pa.array(range(*index.indices(len(self))), pa.int64())
            return CorpusFiles(self._root, self._columns.take(kept))
        position = range(len(self))[index]
        return self._file(*(column[position].as_py() for column in self._columns.columns))

    def __iter__(self) -> Iterator[CorpusFile]:
        for values in zip(*(column.to_pylist() for column in self._columns.columns), strict=True):
            yield self._file(*values)

    def _file(self, name: str, *values: Any) -> CorpusFile:
        return CorpusFile(below(self._root, name), name, *values)

    @property
    def _content(self) -> pa.RecordBatch:
        return self._columns.select(_CONTENT.names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CorpusFiles):
            return NotImplemented
        return self._root == other._root and bool(self._content.equals(other._content))

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> list[dict[str, Any]]:
        """Return what is content: name, size, fingerprint and rows of each file."""
        rows: list[dict[str, Any]] = self._content.to_pylist()
        return rows


def below(root: str, name: str) -> str:
    """Return the URI or path of a file below a root."""
    return f"/{name}" if root == "/" else f"{root}/{name}"


def changed(uri: str) -> DataError:
    """Return the error of a file that is another than when the snapshot was taken."""
    return DataError(f"{uri} changed since the job began; run the job again.")
