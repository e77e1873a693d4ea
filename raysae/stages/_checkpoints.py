"""Checkpoints of a training, in any storage: complete under their name, or under no name at all.

Layout of the directory: `<token>/…` holds the files of one checkpoint, which all ranks put there;
`step-<steps>.json` names the token and the files with their sizes, and is written when all of them
are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from raysae.errors import DataError, StorageError
from raysae.storage import Directory, to_json

KEPT_CHECKPOINTS = 2
"""The newest may be looked for by a run beside this one while a newer one is published."""

_RECORD = "step-"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        directory: Where they are kept.
    """

    directory: Directory

    def newest(self) -> str | None:
        """Return the name of the complete checkpoint of the latest step, or None.

        One whose files were lost since is passed over: the one before it costs some steps again.
        """
        return next((name for name in reversed(self._records()) if self._is_whole(name)), None)

    def _is_whole(self, name: str) -> bool:
        """Whether a record can be read and its files are there with their sizes."""
        try:
            record = self.directory.read_json(name)
            files: dict[str, int] = dict(record["files"])
            sizes = (self.directory / str(record["token"])).sizes(list(files))
        except (FileNotFoundError, DataError, KeyError, TypeError, ValueError):
            return False
        return sizes == list(files.values())

    def put(self, token: str, files: Path) -> None:
        """Add the files below a local directory to a checkpoint; other ranks may add theirs.

        Args:
            token: The checkpoint's, the same for all ranks and new for each checkpoint.
            files: They are taken away from there.
        """
        for file in sorted(path for path in files.rglob("*") if path.is_file()):
            self.directory.upload(file, f"{token}/{file.relative_to(files).as_posix()}")
            file.unlink()

    def publish(self, token: str, step: int) -> None:
        """Give a checkpoint its name, when all ranks have put their files, and drop old ones.

        One of which files were lost is dropped, too: it would take the place of a whole one.

        Args:
            token: The checkpoint's.
            step: Steps that are behind it.
        """
        files = {entry.key: entry.size for entry in (self.directory / token).entries()}
        name = f"{_RECORD}{step:010d}.json"
        record = to_json({"token": token, "files": files})
        first = self.directory.create(name, record)
        if not first and not self._is_whole(name):
            self.directory.put_bytes(name, record)
            first = True
        with suppress(StorageError):  # Where nothing can be deleted, all of them stay.
            if not first:
                # A run beside this one has saved the same step: either is as good.
                self._delete(token, files)
            records = self._records()
            kept = [name for name in records if self._is_whole(name)][-KEPT_CHECKPOINTS:]
            for old in records:
                if old not in kept:
                    self._drop(old)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Give a local directory with a checkpoint's files, for as long as the block lasts.

        Args:
            name: As `newest` returned it.

        Raises:
            FileNotFoundError: A run beside this one has dropped it meanwhile.
        """
        record = self.directory.read_json(name)
        with (self.directory / record["token"]).fetched(list(record["files"])) as files:
            yield files

    def _records(self) -> list[str]:
        """Return the names of the complete ones, the newest last."""
        names = (entry.key for entry in self.directory.entries())
        return sorted(name for name in names if name.startswith(_RECORD))

    def _drop(self, name: str) -> None:
        """Remove a checkpoint, its name first."""
        try:
            record = self.directory.read_json(name)
        except FileNotFoundError:
            return  # a run beside this one has dropped it
        except DataError:
            record = {}  # whose files it named is not known any more
        self.directory.delete(name)
        self._delete(str(record.get("token")), record.get("files", ()))

    def _delete(self, token: str, files: Iterable[str]) -> None:
        for file in files:
            (self.directory / token).delete(file)
