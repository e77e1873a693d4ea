"""Storage in a directory of a file system that every node sees.

A file is written under a temporary name in the directory where it belongs, synced, and moved; then
the directory is synced.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from raysae.errors import StorageError
from raysae.storage.backend import Entry, Upload
from raysae.storage.posix import Posix
from raysae.storage.removal import is_inside, prune, remove_inside
from raysae.storage.scratch import explained
from raysae.storage.temporaries import temporary_name

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_PRUNED_AT_MOST = 200
_PIECE_BYTES = 4 << 20
_NO_LINKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def _one_sentence(
    call: Callable[Concatenate[LocalBackend, Arguments], Result],
) -> Callable[Concatenate[LocalBackend, Arguments], Result]:
    """Turn what the system says into one sentence; a missing file stays a `FileNotFoundError`."""

    @wraps(call)
    def checked(
        backend: LocalBackend, /, *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        try:
            return call(backend, *arguments, **named)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise explained(error, backend.root) from error

    return checked


def _again_if_pruned(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Call again where a directory that was there or just made is gone: `prune` was faster."""

    @wraps(call)
    def persistent(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        for _ in range(_PRUNED_AT_MOST):
            with suppress(FileNotFoundError):
                return call(*arguments, **named)
        return call(*arguments, **named)

    return persistent


@contextmanager
def _no_file(key: str) -> Iterator[None]:
    """A directory, or what would lie below a file, is no file: as in object stores."""
    try:
        yield
    except (NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(key) from error


class LocalBackend:
    """A directory, by `raysae.storage.backend.Backend`.

    Args:
        root: Absolute.
        posix: The system calls.
    """

    is_local = True

    def __init__(self, root: Path, posix: Posix | None = None) -> None:
        self.root = root
        self._posix = posix or Posix()
        self._durable: set[Path] = set()

    def __str__(self) -> str:
        return str(self.root)

    def describe(self, key: str) -> str:
        """Return a key's path."""
        return str(self.root / key)

    @_one_sentence
    @_again_if_pruned
    def scratch(self, key: str) -> Path:
        """Return a temporary path beside `key`, on the same file system."""
        directory = (self.root / key).parent
        self._make_directory(directory)
        return directory / temporary_name()

    def _make_directory(self, directory: Path) -> None:
        """Create a directory and its parents, if they are not there, and make their names durable.

        Those below the root too that are there: another process may have created them just now.
        """
        there = self._posix.is_directory(directory)
        if there and directory in self._durable:
            return
        if there and self.root not in directory.parents:
            self._sync_above(directory)
            return
        self._make_directory(directory.parent)
        if not there:
            self._posix.make_directory(directory)
        self._posix.sync_directory(directory.parent)
        self._durable.add(directory)

    def _sync_above(self, directory: Path) -> None:
        """Make a directory's own name durable as far as this user may, and those above it.

        They may be a killed run's, which came to making them, but not to syncing them.
        """
        for parent in directory.parents:
            with suppress(OSError):
                self._posix.sync_directory(parent)
        self._durable.add(directory)

    @_one_sentence
    def put_file(self, local: Path, key: str) -> None:
        """Publish a finished file."""
        final = self.root / key
        try:
            self._posix.sync_file(local)
            self._posix.replace(local, final)
        except OSError:
            self._posix.unlink(local)
            raise
        self._posix.sync_directory(final.parent)

    @_one_sentence
    @_again_if_pruned
    def put_bytes(self, key: str, data: bytes) -> None:
        """Publish some bytes."""
        temporary = self.scratch(key)
        try:
            self._posix.write(temporary, data)
            self._posix.sync_file(temporary)
            self._posix.replace(temporary, self.root / key)
        except BaseException:
            self._posix.unlink(temporary)
            raise
        self._posix.sync_directory(temporary.parent)

    @_one_sentence
    @_again_if_pruned
    def copy(self, source: str, key: str) -> None:
        """Publish a file under a second name."""
        temporary = self.scratch(key)
        try:
            self._posix.link(self.root / source, temporary)
            self._posix.replace(temporary, self.root / key)
        finally:
            # Two names of one file are not replaced by each other.
            self._posix.unlink(temporary)
        self._posix.sync_directory(temporary.parent)

    @_one_sentence
    @_again_if_pruned
    def create(self, key: str, data: bytes) -> bool:
        """Publish some bytes unless the name is taken: a hard link fails then, in one step."""
        temporary = self.scratch(key)
        try:
            self._posix.write(temporary, data)
            self._posix.sync_file(temporary)
            created = self._link(temporary, self.root / key)
        finally:
            self._posix.unlink(temporary)
        # Of another process' file too: what it says must not be undone by a loss of power.
        self._posix.sync_directory(temporary.parent)
        return created or self._holds(key, data)

    def _link(self, source: Path, target: Path) -> bool:
        """Give a file a second name; False if it is taken."""
        try:
            self._posix.link(source, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise StorageError(
                    f"storage: the file system of {self.root} has no hard links, which keep two "
                    "runs apart; name a storage on another file system, or an object store."
                ) from error
            raise
        return True

    def _holds(self, key: str, data: bytes) -> bool:
        """Whether a file, if it is still there, has this content."""
        try:
            return self._posix.read(self.root / key) == data
        except (FileNotFoundError, IsADirectoryError):
            return False

    @_one_sentence
    def settle(self, prefix: str) -> None:
        """Make the names in a directory durable; a file's content is before it has its name."""
        with suppress(FileNotFoundError):
            self._posix.sync_directory(self.root / prefix)

    @_one_sentence
    def read(self, key: str) -> bytes:
        """Return a file's bytes."""
        with _no_file(key):
            return self._posix.read(self.root / key)

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Yield files' bytes in order, None where there is no file."""
        for key in keys:
            try:
                yield self.read(key)
            except FileNotFoundError:
                yield None

    @_one_sentence
    def size(self, key: str) -> int | None:
        """Return a file's size."""
        found = self._posix.stat(self.root / key)
        return None if found is None else found.size

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return the sizes of many files."""
        return [self.size(key) for key in keys]

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield all files below a directory."""
        try:
            start = len(str(self.root).rstrip("/")) + 1
            for path, size, modified in self._posix.files(self.root / prefix):
                yield Entry(str(path)[start:], size, modified)
        except OSError as error:
            raise explained(error, self.root) from error

    @_one_sentence
    def directories(self, prefix: str) -> list[str]:
        """Return the names of the directories in one."""
        return self._posix.directories(self.root / prefix)

    def delete(self, key: str) -> None:
        """Remove a file, if it is there, but not through a symbolic link."""
        self.remove([key])

    @_one_sentence
    def remove(self, keys: Sequence[str]) -> None:
        """Remove many files, none of them through a symbolic link."""
        for key in keys:
            remove_inside(self.root, key)

    def is_inside(self, prefix: str) -> bool:
        """Whether no part of a directory's name below the root is a symbolic link."""
        return is_inside(self.root, prefix)

    def prune(self, prefix: str) -> None:
        """Remove empty directories; those that just came to hold something stay."""
        prune(self.root, prefix)

    def unfinished_uploads(self, prefix: str) -> Iterator[Upload]:  # noqa: ARG002
        """Yield nothing: unfinished files are temporaries here, which `entries` lists."""
        return iter(())

    def abort_upload(self, upload: Upload) -> None:
        """Do nothing: there are none."""

    def stream(self, key: str) -> Iterator[memoryview]:
        """Yield a file's bytes, all in one buffer that each piece overwrites."""
        descriptor = self.open_copy(key)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            # Not larger than the file: a buffer is filled with zeros first.
            size = os.fstat(descriptor).st_size
            buffer = memoryview(bytearray(max(1, min(size, _PIECE_BYTES))))
            while count := self._next_piece(file, buffer):
                yield buffer[:count]

    @_one_sentence
    def _next_piece(self, file: io.FileIO, buffer: memoryview) -> int:
        return file.readinto(buffer) or 0

    @_one_sentence
    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a file."""
        with _no_file(key), (self.root / key).open("rb") as file:
            parts = [os.pread(file.fileno(), stop - start, start) for start, stop in ranges]
        for part, (start, stop) in zip(parts, ranges, strict=True):
            if len(part) != stop - start:
                raise StorageError(
                    f"storage: {self.root / key} ends before byte {stop}; delete it and run the "
                    "job again, which makes it anew."
                )
        return parts

    @_one_sentence
    def open_copy(self, key: str) -> int:
        """Open the file itself."""
        with _no_file(key), (self.root / key).open("rb") as file:
            return os.dup(file.fileno())

    @_one_sentence
    def fetch(self, key: str, target: Path) -> None:
        """Give a file a second name, or a link to it on another file system."""
        source = self.root / key
        with _no_file(key):
            if not source.is_file():
                raise FileNotFoundError(key)
            try:
                # The file itself: a link may lead on from its own directory only.
                os.link(source.resolve(), target)
            except FileNotFoundError:
                raise
            except OSError:
                target.symlink_to(source)

    @_one_sentence
    def free_bytes(self) -> int | None:
        """Return the free bytes of the file system, on which the root need not have been made."""
        there = next(path for path in (self.root, *self.root.parents) if path.exists())
        return shutil.disk_usage(there).free
