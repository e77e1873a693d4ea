"""What was learned of corpus files, kept between jobs in one small file for each user.

An entry is found by the hash of everything that a listing tells of a file. For an object that
includes its entity tag, for a file on Hugging Face the hash of its content, so that an entry cannot
be stale. For a local file it is path, size, mtime, ctime and inode, and staleness needs thought.

**When stamps can lie.** Any write sets a file's ctime, which no program can set back, to the file
server's time, cut to its granularity (nanoseconds in name, milliseconds in truth, a second or two
on old and on network file systems). So other content has other stamps, unless both writes fall
into one tick: somebody may write, we look at the stamps and read the file, and he writes again, all
in one tick. An entry made of that reading would be stale for ever, and nothing would show it.

**Why no clock is asked.** The usual way out, to trust only stamps that lie some seconds back,
compares the file server's clock with ours. Where one of them is an hour wrong, a file written just
now looks an hour old. So times are not compared at all. We *wait*: the stamps are looked at, then
at least `SETTLE_S` pass on this machine's monotonic clock, then the file is read, and the stamps
that the opened file has before and after reading must still be the same ones. Let w be the last
write before the first look. A write at m with w's stamps is in w's tick, so it comes before
w + `SETTLE_S`, hence before the reading began, hence the reading saw it; and whoever writes later
leaves other stamps. How wrong any clock is, and in which direction, does not occur in this.

**What it rests on:** that a tick is shorter than `SETTLE_S`; that the file server's clock is not
set back by just so much that a later write of equal size falls into the very tick of the earlier
one; that writes set stamps (a program that writes through a memory map may leave that to the kernel
for a while). A network file system's client may show stamps that are some seconds old; a job then
sees the file as it was these seconds ago, as if it had begun earlier.

The wait is worth it only where there is much to read. Otherwise reading begins at once, and what is
read in the first seconds is not remembered: each job spends these seconds again, and no more. See
`raysae.corpora.taking`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raysae.corpora.learned import Learned, Schemas
from raysae.corpora.listing import KEY_BYTES

SETTLE_S = 3.0
"""Seconds between looking at stamps and reading; the coarsest stamps in use have two seconds."""

MAX_ENTRIES = 2**18
MAX_BYTES = 64 * 2**20
"""The least recently used entries beyond either bound are dropped."""

USED_AGAIN_S = 86_400
"""An entry's last use is noted to the day, so that a job that learns nothing writes nothing."""

_MAGIC = b"raysae known files 1\n"
"""Another layout, another number: an unknown one counts as missing."""

_TABLE = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("fingerprint", pa.string()),
        ("rows", pa.int64()),
        ("schema", pa.dictionary(pa.int32(), pa.binary())),
        ("used", pa.int64()),
    ]
)


def cache_directory() -> Path:
    """Return `$RAYSAE_CACHE_DIR`, or `raysae` in `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("RAYSAE_CACHE_DIR", "")
    if own:
        return Path(own).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the standard says that a relative one is to be ignored
        base = Path.home() / ".cache"
    return base / "raysae"


class KnownFiles:
    """The entries of one user's file, read when made; what goes wrong leaves it empty.

    Args:
        schemas: Where schemas are shared.
    """

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._table = _load()

    def find(self, keys: Sequence[bytes]) -> list[Learned | None]:
        """Return what is known of each file.

        Args:
            keys: `ListedFile.key` of each.
        """
        if len(self._table) == 0:
            return [None] * len(keys)
        wanted = pa.array(keys, pa.binary(KEY_BYTES))
        places = pc.index_in(wanted, value_set=self._table["key"].combine_chunks())
        found = self._table.select(["fingerprint", "rows", "schema"]).take(places)
        schemas = found["schema"].combine_chunks()
        shared = [self._schemas.read(data) for data in schemas.dictionary.to_pylist()]
        return [
            None if rows is None else Learned(fingerprint, rows, shared[index])
            for fingerprint, rows, index in zip(
                found["fingerprint"].to_pylist(),
                found["rows"].to_pylist(),
                schemas.indices.to_pylist(),
                strict=True,
            )
        ]

    def remember(self, learned: Mapping[bytes, Learned], used: Sequence[bytes]) -> None:
        """Keep entries, and note which were used; a file that cannot be written changes nothing.

        Of two jobs that write at once the later wins; what the other learned is learned again.

        Args:
            learned: Key → what is new.
            used: Keys of entries that were found.
        """
        now = int(time.time())
        again = pc.is_in(self._table["key"], value_set=pa.array(used, pa.binary(KEY_BYTES)))
        stale = pc.greater(pc.abs(pc.subtract(now, self._table["used"])), USED_AGAIN_S)
        if not learned and not pc.any(pc.and_(again, stale)).as_py():
            return
        # What others wrote meanwhile is kept.
        old = _load()
        again = pc.is_in(old["key"], value_set=pa.array(used, pa.binary(KEY_BYTES)))
        old = old.set_column(
            _TABLE.get_field_index("used"), "used", pc.if_else(again, now, old["used"])
        )
        new = _table_of(learned, now)
        old = old.filter(pc.invert(pc.is_in(old["key"], value_set=new["key"].combine_chunks())))
        with suppress(OSError, RuntimeError):
            _save(_bounded(pa.concat_tables([old, new])))


def _table_of(learned: Mapping[bytes, Learned], now: int) -> pa.Table:
    numbers: dict[int, int] = {}
    schemas: list[bytes] = []
    for entry in learned.values():
        if id(entry.schema) not in numbers:
            numbers[id(entry.schema)] = len(schemas)
            schemas.append(entry.schema.serialize().to_pybytes())
    indices = pa.array([numbers[id(entry.schema)] for entry in learned.values()], pa.int32())
    columns = [
        pa.array(learned, pa.binary(KEY_BYTES)),
        pa.array([entry.fingerprint for entry in learned.values()], pa.string()),
        pa.array([entry.rows for entry in learned.values()], pa.int64()),
        pa.DictionaryArray.from_arrays(indices, pa.array(schemas, pa.binary())),
        pa.array([now] * len(learned), pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=_TABLE)


def _bounded(table: pa.Table) -> pa.Table:
    """Drop the least recently used entries beyond the bounds, and schemas that none has."""
    table = table.sort_by([("used", "descending")]).unify_dictionaries().combine_chunks()
    entries = MAX_ENTRIES
    while True:
        kept = table.slice(0, entries)
        encoded = kept["schema"].combine_chunks()
        present = pc.unique(encoded.indices)
        schemas = encoded.dictionary.take(present)
        indices = pc.index_in(encoded.indices, value_set=present)
        if kept.drop_columns("schema").nbytes + schemas.nbytes <= MAX_BYTES:
            break
        entries //= 2
    encoded = pa.DictionaryArray.from_arrays(indices, schemas)
    return kept.set_column(_TABLE.get_field_index("schema"), _TABLE.field("schema"), encoded)


def _path() -> Path:
    return cache_directory() / "known-files.arrow"


def _load() -> pa.Table:
    """Read the file: a line with its layout, the SHA-256 of the rest, an Arrow stream.

    The hash catches damage of any kind, which Arrow's format does not.
    """
    try:
        data = memoryview(_path().read_bytes())
        start = len(_MAGIC) + 32
        body = data[start:]
        if data[:start] == _MAGIC + hashlib.sha256(body).digest():
            table = pa.ipc.open_stream(pa.py_buffer(body)).read_all()
            if table.schema == _TABLE:
                return table
    except (OSError, RuntimeError, pa.ArrowException):
        pass
    return _TABLE.empty_table()


def _save(table: pa.Table) -> None:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue()
    descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_MAGIC + hashlib.sha256(body).digest())
            file.write(body)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
