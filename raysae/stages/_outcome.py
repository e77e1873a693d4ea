"""Files with fixed names, out of whichever try came first.

Other tools look for `sae_weights.safetensors` or `model.safetensors`, so these names can carry no
checksum, and two tries that computed other bits would mix their files. So each try puts its files
under a name of its own in the artifact's work directory; the first to say so in `outcome.json`
counts; and its files are then copied to their places, by whoever gets there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from raysae.artifacts import (
    OUTCOME_FILE,
    WORK,
    Artifact,
    FileRecord,
    Publication,
    ShardSpec,
    all_there,
    records_from_json,
    records_to_json,
)
from raysae.errors import DataError, StorageError
from raysae.storage import Directory, to_json


@dataclass(frozen=True)
class Outcome:
    """The result of a stage whose artifact is not finished yet.

    Attributes:
        artifact: What is being made.
    """

    artifact: Artifact

    @property
    def work(self) -> Directory:
        """Where checkpoints, tries and the outcome are."""
        return self.artifact.directory / WORK

    def new_try(self) -> Publication:
        """Return where a try can put its files."""
        return Publication(self.work / f"try-{uuid.uuid4().hex}")

    def claim(self, files: Publication, about: Mapping[str, Any]) -> None:
        """Say that a try is complete, unless another one has said so before.

        Args:
            files: What `new_try` returned, with all files in it.
            about: What else is known of the result; JSON.
        """
        content = {
            "try": files.directory.path.rsplit("/", 1)[-1],
            "files": records_to_json(files.records),
            "about": dict(about),
        }
        self.work.create(OUTCOME_FILE, to_json(content))

    def read(self) -> dict[str, Any] | None:
        """Return what the try that counts said of its result; None if there is none yet.

        Raises:
            DataError: What is there is no outcome.
        """
        try:
            about: dict[str, Any] = self._stored()["about"]
        except FileNotFoundError:
            return None
        return about

    def _stored(self) -> dict[str, Any]:
        stored = self.work.read_json(OUTCOME_FILE)
        try:
            files = records_from_json(stored["files"])
            return {"try": str(stored["try"]), "files": files, "about": dict(stored["about"])}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.work.describe(OUTCOME_FILE)} is damaged ({error!r}); delete it and run "
                "again."
            ) from error

    def is_there(self) -> bool:
        """Whether nobody needs to try any more: a try is complete, or even the artifact is."""
        return self.work.exists(OUTCOME_FILE) or self.artifact.is_finished()

    def publish(self) -> Sequence[FileRecord]:
        """Copy the files of the try that counts to their places, and return them.

        Raises:
            DataError: They are not there any more.
        """
        outcome = self._stored()
        records: list[FileRecord] = outcome["files"]
        source = self.work / outcome["try"]
        if not all_there(source, records):
            raise DataError(
                f"{source} lacks files that {self.work.describe(OUTCOME_FILE)} lists; delete that "
                "file and run again."
            )
        for record in records:
            source.copy_to(record.name, self.artifact.directory)
        return records

    def finish(
        self, tell: Callable[[dict[str, Any]], Mapping[str, Any]], shards: Iterable[ShardSpec] = ()
    ) -> None:
        """Put the files of the try that counts in their places, and finish the artifact with them.

        Where a run beside this one has finished it, the try that counts may be a later one, and is
        left alone; but only when its `metadata.json` is known to survive a loss of power the work
        can be removed.

        Args:
            tell: Makes the metadata's content of what the try said of its result.
            shards: The artifact's shards, all of them complete.

        Raises:
            DataError: The try's files are not there any more, or a shard is not complete.
        """
        if self.artifact.is_finished():
            self.artifact.settle()
            return
        about = self.read()
        assert about is not None, "whoever ends the work leaves an outcome"
        self.artifact.finish(tell(about), self.publish(), shards)

    def remove(self) -> None:
        """Remove the work directory's files: the artifact is finished."""
        with suppress(StorageError):
            self.work.remove([entry.key for entry in self.work.entries()])
            self.work.prune()


@contextmanager
def finishing(artifact: Artifact) -> Iterator[Outcome]:
    """Give an artifact's outcome, for a block that finishes it, and remove the work afterwards.

    A run beside this one may be the first, and clear the work of both away: then no error in the
    block counts.
    """
    outcome = Outcome(artifact)
    try:
        yield outcome
    except Exception:
        if not artifact.is_finished():
            raise
    else:
        if not artifact.is_finished():
            raise StorageError(
                f"storage: {artifact.directory} lacks files that were just put there; run again: "
                "the result is kept."
            )
    outcome.remove()


def finish_once(
    artifact: Artifact,
    make: Callable[[Publication], Mapping[str, Any]],
    shards: Iterable[ShardSpec] = (),
) -> dict[str, Any]:
    """Finish an artifact with the files of one try, whoever else makes it at this moment.

    Args:
        artifact: What is made; `begin` was called.
        make: Puts the files into a try, and returns what the metadata tells of them; it is not
            called where a run before or beside this one has come so far.
        shards: The artifact's shards, all of them complete.

    Returns:
        The artifact's metadata.

    Raises:
        DataError: The try's files are not there any more, or a shard is not complete.
    """
    with finishing(artifact) as outcome:
        if not outcome.is_there():
            files = outcome.new_try()
            outcome.claim(files, make(files))
        outcome.finish(dict, shards)
    return artifact.metadata()
