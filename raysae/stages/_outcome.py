"""What a training leaves: files with fixed names, out of whichever try of the ranks came first.

Other tools look for `sae_weights.safetensors` or `model.safetensors`, so these names can carry no
checksum, and two tries that computed other bits would mix their files. So each try puts its files
under a name of its own in the artifact's work directory; the first to say so in `outcome.json`
counts; and its files are then copied to their places, by whoever gets there.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raysae.artifacts import (
    Artifact,
    FileRecord,
    Publication,
    all_there,
    records_from_json,
    records_to_json,
)
from raysae.errors import DataError, StorageError
from raysae.storage import Directory, to_json

WORK = "work"
"""Directory, in the artifact's own, of all that is needed until the artifact is finished."""

OUTCOME_FILE = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """The result of a training whose artifact is not finished yet.

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
        """Return what the try that counts said of its result; None if there is none yet."""
        try:
            about: dict[str, Any] = self.work.read_json(OUTCOME_FILE)["about"]
        except FileNotFoundError:
            return None
        return about

    def is_there(self) -> bool:
        """Whether nobody needs to train any more: a try is complete, or even the artifact is."""
        return self.work.exists(OUTCOME_FILE) or self.artifact.is_finished()

    def publish(self) -> Sequence[FileRecord]:
        """Copy the files of the try that counts to their places, and return them.

        Raises:
            DataError: They are not there any more.
        """
        outcome = self.work.read_json(OUTCOME_FILE)
        records = records_from_json(outcome["files"])
        source = self.work / outcome["try"]
        if not all_there(source, records):
            raise DataError(
                f"{source} lacks files that {self.work.describe(OUTCOME_FILE)} lists; delete that "
                "file and run again to go on from the last checkpoint."
            )
        for record in records:
            source.copy_to(record.name, self.artifact.directory)
        return records

    def remove(self) -> None:
        """Remove the work directory's files: the artifact is finished."""
        with suppress(StorageError):
            self.work.remove([entry.key for entry in self.work.entries()])
            self.work.prune()
