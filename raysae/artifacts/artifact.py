"""Artifacts: what determines one, and its directory from the first shard to the last file.

An artifact lives in `<storage>/<kind>/<id>/`. The id is a hash over everything that determines the
content, so that an artifact is found again by recomputing its id. `spec.json` records what was
hashed; `<shard>.done.json` says that one shard is complete; `metadata.json`, written last, says
that the artifact is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from raysae.artifacts.attempts import ATTEMPTS, Attempts
from raysae.artifacts.files import (
    FileRecord,
    all_there,
    records_from_json,
    records_to_json,
)
from raysae.artifacts.ids import content_id, plain
from raysae.artifacts.marks import Mark, ShardState, mark_name, read_marks, write_mark
from raysae.artifacts.shard_list import shard_files, write_shard_list
from raysae.artifacts.shards import ShardSpec
from raysae.artifacts.versions import package_versions
from raysae.errors import DataError, StorageError
from raysae.storage import FORMAT_VERSION, Directory, is_temporary, to_json

SPEC_FILE = "spec.json"
METADATA_FILE = "metadata.json"

WORK = "work"
"""Directory, in the artifact's own, of all that is needed until the artifact is finished."""

OUTCOME_FILE = "outcome.json"
"""In the work directory: says which files are to be the artifact's own."""

_LOOKED_AT_ONCE = 4096


@dataclass(frozen=True)
class ArtifactSpec:
    """Everything that determines an artifact's content.

    Attributes:
        kind: Directory under the storage: `activations`, `saes`, `weights`, …
        code_version: A number that a change of the stage's results bumps.
        settings: The stage's content settings (never its run settings).
        inputs: Ids and fingerprints of what it is made from, by role.
    """

    kind: str
    code_version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the hashed content as plain JSON values."""
        whole = plain({**asdict(self), "format_version": FORMAT_VERSION})
        assert isinstance(whole, dict)
        return whole

    @cached_property
    def id(self) -> str:
        """The artifact's id: 96 bits over `to_json()`."""
        return content_id(self.to_json())


class Missing(NamedTuple):
    """The shards that are still to be done.

    Attributes:
        shards: In order.
        problems: One sentence for each of them that was complete once and is not any more.
    """

    shards: list[ShardSpec]
    problems: list[str]


class Artifact:
    """One artifact's directory: its marks, its metadata, and whether it is finished.

    Args:
        root: The storage.
        spec: What determines the artifact.
    """

    def __init__(self, root: Directory, spec: ArtifactSpec) -> None:
        self.spec = spec
        self.directory = root / spec.kind / spec.id

    @property
    def id(self) -> str:
        """The artifact's id."""
        return self.spec.id

    @property
    def name(self) -> str:
        """`<kind>/<id>`, as printed and stored."""
        return f"{self.spec.kind}/{self.id}"

    def begin(self, shards: int = 0) -> None:
        """Say what will be made here, or check that this very thing is being made here.

        A run that goes on with what another one left writes `spec.json` again, so that whoever
        removes what nobody works on (`raysae.upkeep.collect`) sees that somebody does.

        Args:
            shards: How many shards there will be, for those who look at a half-done artifact.

        Raises:
            DataError: The directory holds another specification.
        """
        content = to_json({"spec": self.spec.to_json(), "shards": shards})
        try:
            stored = self.directory.read_json(SPEC_FILE)
        except FileNotFoundError:
            if self.directory.create(SPEC_FILE, content):
                return
            stored = self.directory.read_json(SPEC_FILE)
        self._compare(SPEC_FILE, stored)
        self.directory.put_bytes(SPEC_FILE, content)

    def is_begun(self) -> bool:
        """Whether anything of it may be there: `begin` was called."""
        return self.directory.exists(SPEC_FILE)

    def is_finished(self) -> bool:
        """Whether all of it is there: `metadata.json`, what it lists, its shards' files and marks.

        Raises:
            DataError: It is there, but for another specification, or cannot be read.
        """
        files = self._listed()
        return files is not None and self._is_there(files)

    def _listed(self) -> list[FileRecord] | None:
        """Return the files that `metadata.json` lists; None if it is not there."""
        try:
            metadata = self.directory.read_json(METADATA_FILE)
        except FileNotFoundError:
            return None
        self._compare(METADATA_FILE, metadata)
        try:
            return records_from_json(metadata["files"])
        except (KeyError, TypeError) as error:
            where = self.directory.describe(METADATA_FILE)
            raise DataError(f"{where} lists no files; delete it and run again.") from error

    def _is_there(self, files: Sequence[FileRecord]) -> bool:
        """Whether files that `metadata.json` lists are there, and what their table lists."""
        if not all_there(self.directory, files):
            return False
        listed = shard_files(self.directory, files)
        while part := list(islice(listed, _LOOKED_AT_ONCE)):
            marks = [mark_name(shard) for shard in dict.fromkeys(one.shard for one in part)]
            if None in self.directory.sizes(marks):
                return False
            if not all_there(self.directory, (one.file for one in part)):
                return False
        return True

    def _compare(self, name: str, stored: Mapping[str, Any]) -> None:
        """Raise DataError if what a file holds is not this specification."""
        told = stored.get("spec"), stored.get("id", self.id)
        if told != (self.spec.to_json(), self.id):
            raise DataError(
                f"{self.directory.describe(name)} was written for other settings than this run's, "
                "although the id is the same; move the directory away and run again."
            )

    def metadata(self) -> dict[str, Any]:
        """Return the finished artifact's metadata.

        Raises:
            DataError: The artifact is not finished.
        """
        try:
            return self.directory.read_json(METADATA_FILE)
        except FileNotFoundError as error:
            raise DataError(
                f"{self.directory} is not finished; run the job that makes it again."
            ) from error

    def attempts(self, role: str) -> Attempts:
        """Return the attempts at this artifact's shards by one kind of process."""
        return Attempts(self.directory / ATTEMPTS, role)

    def mark_shard(
        self, shard: str, files: Sequence[FileRecord], content: Mapping[str, Any]
    ) -> Mark:
        """Say that a shard is complete, and return the mark that counts; see `marks.write_mark`."""
        return write_mark(self.directory, shard, files, content)

    def states(self, shards: Iterable[ShardSpec]) -> Iterator[ShardState]:
        """Yield what is known of every shard, in order."""
        return read_marks(self.directory, (shard.name for shard in shards))

    def marks(self, shards: Iterable[ShardSpec]) -> Iterator[Mark]:
        """Yield the mark of every shard, in order, in memory that does not grow with them.

        Raises:
            DataError: A shard is not complete, although its stage has ended.
        """
        for state in self.states(shards):
            if state.mark is None:
                why = f" ({state.problem})" if state.problem else ""
                raise DataError(
                    f"{self.directory}: {state.shard} is not complete{why}; run the job again."
                )
            yield state.mark

    def missing(self, shards: Sequence[ShardSpec]) -> Missing:
        """Return the shards that are still to be done, and those whose files were lost."""
        found = Missing([], [])
        for shard, state in zip(shards, self.states(shards), strict=True):
            if state.mark is None:
                found.shards.append(shard)
                if state.problem:
                    found.problems.append(f"{shard.name}: {state.problem}")
        return found

    def finish(
        self,
        content: Mapping[str, Any],
        files: Sequence[FileRecord] = (),
        shards: Iterable[ShardSpec] = (),
    ) -> None:
        """Write `metadata.json`, the last file: the artifact is finished.

        Of two runs at once the first one's stays, unless it lists other files than are there now.

        Args:
            content: Resolved settings of the run, counts, timings.
            files: What was published beside the shards' files.
            shards: The shards, all of them complete; their files are listed in one table, so that
                nobody has to open the marks again.

        Raises:
            DataError: A shard is not complete.
        """
        own = list(files)
        plan = list(shards)
        if plan:
            own.append(write_shard_list(self.directory, plan, self.marks(plan)))
        metadata = {
            "id": self.id,
            "spec": self.spec.to_json(),
            "packages": package_versions(),
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": records_to_json(own),
            **plain(content),
        }
        data = to_json(metadata)
        if not self.directory.create(METADATA_FILE, data) and (
            self._listed() != own or not self._is_there(own)
        ):
            self.directory.put_bytes(METADATA_FILE, data)
        self._forget_attempts()

    def settle(self) -> None:
        """See to it that the `metadata.json` that another run wrote survives a loss of power."""
        self.directory.settle()

    def _forget_attempts(self) -> None:
        """Remove the marks of attempts that did not end: all shards are done."""
        attempts = self.directory / ATTEMPTS
        with suppress(StorageError):
            # A temporary is what another run is about to give its name.
            marks = [entry.key for entry in attempts.entries() if not is_temporary(entry.key)]
            attempts.remove(marks)
            attempts.prune()
