"""Storage in an object store: s3, gs, abfs.

A file is finished on this machine first and then sent in one request, or in parts that the store
joins in the last one; nothing is ever streamed into its name, and nothing renamed.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar

from raysae.errors import StorageError
from raysae.storage.backend import Entry, Upload
from raysae.storage.checksums import fits_its_name, other_bytes
from raysae.storage.filesystems import object_filesystem
from raysae.storage.node_cache import full_cache, open_cached
from raysae.storage.retry import retrying
from raysae.storage.s3_requests import S3Requests
from raysae.storage.scratch import FULL
from raysae.storage.temporaries import is_temporary, temporary_name, writer_is_dead
from raysae.storage.uris import ObjectUri

Result = TypeVar("Result")

LISTED_AT_ONCE = 3
"""Sizes of more keys than these are taken from a listing of what their names have in common."""

READ_AT_ONCE = 256
"""Small objects read at the same time by `read_many`, so that memory is bounded."""

PARTS_AT_ONCE = 4
"""Parts of a large file that are sent to S3 at the same time, each of them in memory meanwhile."""

FETCHES = 2
"""How often an object is fetched whose bytes are not those that its name says."""

RANGES_AT_ONCE = 8
"""Ranges of an object that are read at the same time, each of them in memory meanwhile."""

PIECE_BYTES = 16 << 20
"""Bytes of one request of `stream`, and of a large object's copy."""

_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
"""Under which name a listing tells when an object was written, by client."""


class ObjectBackend:
    """A prefix in a bucket, by `raysae.storage.backend.Backend`.

    Args:
        uri: Where.
        filesystem: An fsspec file system; that of the URI's scheme if None.
    """

    is_local = False

    def __init__(self, uri: ObjectUri, filesystem: Any = None) -> None:
        self.uri = uri
        self._given = filesystem

    @property
    def _fs(self) -> Any:
        return self._given or object_filesystem(self.uri.scheme, account=self.uri.account)

    def __str__(self) -> str:
        return str(self.uri)

    def describe(self, key: str) -> str:
        """Return a key's URI."""
        return f"{self.uri}/{key}"

    def _path(self, key: str) -> str:
        return f"{self.uri.path}/{key}" if key else self.uri.path

    def _do(self, what: str, key: str, call: Callable[[], Result]) -> Result:
        return retrying(f"{self.describe(key)} cannot be {what}", call)

    def scratch(self, key: str) -> Path:  # noqa: ARG002 - it need not lie beside the object
        """Return a path in this machine's temporary directory (`TMPDIR`)."""
        try:
            directory = Path(tempfile.gettempdir()) / f"raysae-scratch-{os.getuid()}"
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"storage: files cannot be written before they are sent ({error}); free some "
                "space, or name another directory with TMPDIR, on every node and run again."
            ) from error
        for path in directory.iterdir():
            if is_temporary(path.name) and writer_is_dead(path.name):
                path.unlink(missing_ok=True)
        return directory / temporary_name()

    def put_file(self, local: Path, key: str) -> None:
        """Send a finished file: in one request, or in parts if it is large."""
        size = local.stat().st_size

        def send() -> None:
            try:
                self._fs.put_file(str(local), self._path(key), **self._few)
            except FileNotFoundError as error:
                # So s3fs reports an upload in parts whose last answer was lost. What lies there
                # may just as well be an older file of the same size, so it is sent again.
                raise OSError(f"the upload is not there: {error}") from error
            stored = self.size(key)
            if stored != size:
                raise OSError(f"{stored or 0} bytes arrived of {size}")

        try:
            self._do("written", key, send)
        finally:
            local.unlink(missing_ok=True)

    @property
    def _few(self) -> dict[str, Any]:
        """What makes S3's client hold few of a file's parts, of 50 MiB each, in memory at once."""
        return {"max_concurrency": PARTS_AT_ONCE} if self.uri.scheme == "s3" else {}

    def put_bytes(self, key: str, data: bytes) -> None:
        """Send some bytes in one request."""
        self._do("written", key, lambda: self._fs.pipe_file(self._path(key), data))

    def copy(self, source: str, key: str) -> None:
        """Let the store copy an object; Azure's copies may go on after the answer, so send it."""
        if self.uri.scheme == "abfs":
            local = self.scratch(key)
            self.fetch(source, local)
            self.put_file(local, key)
        else:
            self._do("copied", source, lambda: self._copy_inside(source, key))

    def _copy_inside(self, source: str, key: str) -> None:
        try:
            self._fs.cp_file(self._path(source), self._path(key))
        except FileNotFoundError as error:
            if self.size(source) is None:
                raise
            # So s3fs reports a copy in parts whose last answer was lost.
            raise OSError(f"the copy is not there: {error}") from error

    def create(self, key: str, data: bytes) -> bool:
        """Send some bytes on condition that the key is free.

        A request that was carried out, but whose answer was lost, is repeated and then finds the
        key taken by itself: so the content decides.
        """
        path = self._path(key)
        try:
            self._do("created", key, lambda: self._fs.pipe_file(path, data, mode="create"))
        except FileExistsError:
            try:
                return self.read(key) == data
            except FileNotFoundError:  # It was deleted just now.
                return False
        return True

    def settle(self, prefix: str) -> None:
        """Do nothing: an object that can be seen is there to stay."""

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        data: bytes = self._do("read", key, lambda: self._fs.cat_file(self._path(key), **self._one))
        return data

    @property
    def _one(self) -> dict[str, Any]:
        """What makes a client read in one request, without asking for the size first."""
        return {"max_concurrency": 1} if self.uri.scheme == "s3" else {}

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Yield objects' bytes in order, None where there is none; many are read at once."""
        for start in range(0, len(keys), READ_AT_ONCE):
            part = keys[start : start + READ_AT_ONCE]
            found = self._read_at_once(part)
            for key in part:
                data = found.get(self._path(key))
                yield data if isinstance(data, bytes) else self._read_if_there(key)

    def _read_at_once(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return bytes or errors by path, but for keys that clients take for patterns."""
        paths = [path for path in map(self._path, keys) if not has_magic(path)]
        if not paths:
            return {}
        found = self._do(
            "read", keys[0], lambda: self._fs.cat(paths, on_error="return", **self._one)
        )
        return found if isinstance(found, dict) else {paths[0]: found}

    def _read_if_there(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except FileNotFoundError:
            return None

    def size(self, key: str) -> int | None:
        """Return an object's size."""
        found = self._about(key)
        return None if found is None else int(found["size"])

    def _about(self, key: str) -> dict[str, Any] | None:
        """Return what the store tells of an object; None if it is not there."""
        try:
            found = self._do("looked up", key, lambda: self._fs.info(self._path(key)))
        except FileNotFoundError:
            return None
        return found if found["type"] == "file" else None

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return the sizes of many objects, by one listing of what begins as all of them do."""
        if len(keys) <= LISTED_AT_ONCE:
            return [self.size(key) for key in keys]
        common = os.path.commonprefix(list(keys))  # noqa: RUF071 - of characters
        directory, _, start = common.rpartition("/")
        found = {entry.key: entry.size for entry in self._find(directory, start)}
        return [found.get(key) for key in keys]

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield all objects below a prefix, from S3 page by page."""
        if (s3 := self._s3) is None:
            return iter(sorted(self._find(prefix, "")))
        return (Entry(*one) for one in s3.listed(f"{prefix}/" if prefix else ""))

    @property
    def _s3(self) -> S3Requests | None:
        """What only S3 is asked, if this is s3fs' client."""
        return S3Requests(self.uri, self._fs) if hasattr(self._fs, "call_s3") else None

    def _find(self, directory: str, start: str) -> list[Entry]:
        """List the objects below a directory, of which only those whose names begin so."""
        path = self._path(directory)
        narrowed = {"prefix": start} if start else {}

        try:
            listed = self._do(
                "listed", directory, lambda: self._fs.find(path, detail=True, **narrowed)
            )
        except FileNotFoundError:
            return []
        if not isinstance(listed, dict):  # What adlfs says of a path that is a file.
            return []
        root = f"{self.uri.path}/"
        return [
            Entry(name.removeprefix(root), int(about["size"]), _modified(about))
            for name, about in listed.items()
            if about["type"] == "file" and name.startswith(f"{path}/")
        ]

    def directories(self, prefix: str) -> list[str]:
        """Return the names of the common prefixes in one."""
        path = self._path(prefix)
        try:
            listed = self._do("listed", prefix, lambda: self._fs.ls(path, detail=True))
        except FileNotFoundError:
            return []
        names = (one["name"].rstrip("/") for one in listed if one["type"] == "directory")
        return sorted(name.rsplit("/", 1)[-1] for name in names)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        try:
            self._do("deleted", key, lambda: self._fs.rm_file(self._path(key)))
        except FileNotFoundError:
            return

    def remove(self, keys: Sequence[str]) -> None:
        """Remove many objects, those that are there; S3 takes a thousand in a request."""
        if (s3 := self._s3) is not None:
            s3.delete(keys)
        else:
            for key in keys:
                self.delete(key)

    def is_inside(self, prefix: str) -> bool:  # noqa: ARG002
        """Object stores have no symbolic links."""
        return True

    def prune(self, prefix: str) -> None:
        """Do nothing: there are no directories."""

    def unfinished_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield what was sent in parts and never ended; only S3 keeps such parts for good."""
        if (s3 := self._s3) is not None:
            yield from s3.unfinished_uploads(f"{prefix}/" if prefix else "")

    def abort_upload(self, upload: Upload) -> None:
        """Give an unfinished upload up."""
        if (s3 := self._s3) is not None:
            s3.abort_upload(upload)

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes, a range in each request, so that any of them can be repeated."""
        size = self.size(key)
        if size is None:
            raise FileNotFoundError(self.describe(key))
        for start in range(0, size, PIECE_BYTES):
            yield self._read_range(key, start, min(start + PIECE_BYTES, size))

    def open_copy(self, key: str) -> int:
        """Open a copy in this machine's cache, which is made if there is none.

        Another write of the object, with another entity tag or time, has a copy of its own.
        """
        about = self._about(key)
        if about is None:
            raise FileNotFoundError(self.describe(key))
        version = f"{self.describe(key)}\0{_tag(about)}\0{_modified(about)}"
        return open_cached(version, int(about["size"]), partial(self.fetch, key))

    def fetch(self, key: str, target: Path) -> None:
        """Copy an object to a new local path, and see that all of it arrived.

        Raises:
            FileNotFoundError: It is not there.
            FullDiskError: The local disk is full (`raysae.storage.node_cache`).
            StorageError: What arrived, twice, is not what the name's checksum says.
        """
        try:
            self._fetch_checked(key, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _fetch_checked(self, key: str, target: Path) -> None:
        for _ in range(FETCHES):
            self._do("read", key, partial(self._get, key, target))
            if fits_its_name(target, key):
                return
        raise other_bytes(self.describe(key))

    def _get(self, key: str, target: Path) -> None:
        """Copy an object in one try."""
        path = self._path(key)
        about = self._fs.info(path)
        size = int(about["size"])
        try:
            if size > PIECE_BYTES:
                self._get_in_ranges(key, target, about)
            else:
                self._fs.get_file(path, str(target))
        except OSError as error:
            if error.errno in FULL:
                raise full_cache(target, error.errno) from error
            raise
        arrived = target.stat().st_size
        if arrived != size:
            raise OSError(f"{arrived} bytes arrived of {size}")

    def _get_in_ranges(self, key: str, target: Path, about: dict[str, Any]) -> None:
        """Copy a large object by many requests at once: one alone gets a part of the network."""
        size = int(about["size"])
        ranges = [(at, min(at + PIECE_BYTES, size)) for at in range(0, size, PIECE_BYTES)]
        with (
            target.open("wb") as file,
            ThreadPoolExecutor(RANGES_AT_ONCE, thread_name_prefix="ranges") as pool,
        ):

            def copy(start: int, stop: int) -> None:
                piece = self._read_range(key, start, stop)
                if len(piece) != stop - start:
                    raise OSError(f"it ended before byte {stop}")
                # A disk that is nearly full takes a part without a word.
                while start < stop:
                    start += os.pwrite(file.fileno(), piece[start - stop :], start)

            copies = [pool.submit(copy, *one) for one in ranges]
            try:
                for one in copies:
                    one.result()
            finally:
                pool.shutdown(cancel_futures=True)
        if _tag(self._fs.info(self._path(key))) != _tag(about):
            raise OSError("it was written again meanwhile")

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of an object, many of them read at once."""
        with ThreadPoolExecutor(RANGES_AT_ONCE, thread_name_prefix="ranges") as pool:
            parts = list(pool.map(lambda one: self._read_range(key, *one), ranges))
        for part, (start, stop) in zip(parts, ranges, strict=True):
            if len(part) != stop - start:
                raise StorageError(
                    f"storage: {self.describe(key)} ends before byte {stop}; delete it and run the "
                    "job again, which makes it anew."
                )
        return parts

    def _read_range(self, key: str, start: int, stop: int) -> bytes:
        path = self._path(key)
        piece: bytes = self._do(
            "read", key, partial(self._fs.cat_file, path, start=start, end=stop)
        )
        return piece

    def free_bytes(self) -> int | None:
        """Object stores tell of no bound."""
        return None


def _tag(about: dict[str, Any]) -> object:
    """Return what another write of an object changes; None if the store tells of nothing."""
    return about.get("ETag") or about.get("etag")


def _modified(about: dict[str, Any]) -> float:
    """Return when an object was written, in seconds by the store's clock; NaN if it is not told."""
    for name in _TIMES:
        value = about.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return math.nan
