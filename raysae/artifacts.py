"""Artifact ids, shards, done marks and metadata.

An artifact lives in `<storage>/<kind>/<id>/`. The id is a hash over everything that determines the
content, so that an artifact is found again by recomputing its id. `spec.json` records what was
hashed; `<shard>.done.json` says that one shard is complete; `metadata.json`, written last, says
that the artifact is.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from raysae.errors import DataError
from raysae.storage import put_json

FORMAT_VERSION = 1
"""Version of the layout described here; part of every id."""

ID_HEX_DIGITS = 24
"""96 bits: collisions are out of reach for any number of artifacts."""


def content_id(content: Any) -> str:
    """Hash any JSON-like value (dataclasses included) to 24 hex digits.

    Dictionary order does not matter; list order does.
    """
    canonical = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:ID_HEX_DIGITS]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """Turn dataclasses and tuples into what JSON holds, so that equal content compares equal."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class ShardSpec:
    """A row range of one corpus file: the unit of work, of retry and of completion.

    Attributes:
        name: Unique in the artifact and sortable: `shard-00000`.
        file_index: Which file of the snapshot.
        start: First row in that file.
        stop: One past the last row.
        first_ordinal: Number of `start` in the whole snapshot.
    """

    name: str
    file_index: int
    start: int
    stop: int
    first_ordinal: int

    @property
    def rows(self) -> int:
        """Number of rows in the shard."""
        return self.stop - self.start


def plan_shards(file_rows: Sequence[int], rows_per_shard: int) -> list[ShardSpec]:
    """Cut a snapshot into shards: a pure function of the rows per file and the bound.

    Args:
        file_rows: Rows of each file, in snapshot order.
        rows_per_shard: Bound from worst-case output bytes; no shard spans two files.
    """
    shards: list[ShardSpec] = []
    first_ordinal = 0
    for file_index, rows in enumerate(file_rows):
        for start in range(0, rows, rows_per_shard):
            stop = min(start + rows_per_shard, rows)
            name = f"shard-{len(shards):05d}"
            shards.append(ShardSpec(name, file_index, start, stop, first_ordinal + start))
        first_ordinal += rows
    return shards


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
        plain = _plain({**asdict(self), "format_version": FORMAT_VERSION})
        assert isinstance(plain, dict)
        return plain

    @property
    def id(self) -> str:
        """The artifact's id: 96 bits over `to_json()`."""
        return content_id(self.to_json())


class Artifact:
    """One artifact's directory: its marks, its metadata, and whether it is finished."""

    def __init__(self, root: Path, spec: ArtifactSpec) -> None:
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

    def begin(self) -> None:
        """Create the directory, or check that the one there is of this very specification.

        Raises:
            DataError: The directory holds another specification.
        """
        path = self.directory / "spec.json"
        if not path.exists():
            put_json(path, self.spec.to_json())
            return
        self._compare(path, read_json(path))

    def is_finished(self) -> bool:
        """Whether `metadata.json` is there and fits this specification; writes nothing.

        Raises:
            DataError: It is there, but for another specification.
        """
        path = self.directory / "metadata.json"
        if not path.exists():
            return False
        self._compare(path, read_json(path).get("spec"))
        return True

    def _compare(self, path: Path, stored: Any) -> None:
        """Raise DataError if what a file holds is not this specification."""
        if stored != self.spec.to_json():
            raise DataError(
                f"{path} was written for other settings than this run's, although the id is the "
                "same; move the directory away and run again."
            )

    def metadata(self) -> dict[str, Any]:
        """Return the finished artifact's metadata.

        Raises:
            DataError: The artifact is not finished.
        """
        path = self.directory / "metadata.json"
        if not path.exists():
            raise DataError(f"{self.directory} is not finished; run the job that makes it again.")
        return read_json(path)

    def mark_shard(self, shard: str, files: Sequence[str], content: Mapping[str, Any]) -> None:
        """Write a shard's done mark, after its files: from here on it is complete.

        Args:
            shard: The shard's name.
            files: Names of its data files, already published in the directory.
            content: Counts, rejected rows, timings.
        """
        listed = [
            {"name": name, "size": path.stat().st_size, "sha256": file_sha256(path)}
            for name in files
            for path in [self.directory / name]
        ]
        put_json(self.directory / f"{shard}.done.json", {"files": listed, **content})

    def shard_mark(self, shard: str) -> dict[str, Any] | None:
        """Return a shard's done mark if it is complete, else None.

        A mark whose file is missing or of another size is no mark: the shard is done again.
        """
        path = self.directory / f"{shard}.done.json"
        if not path.exists():
            return None
        mark = read_json(path)
        for file in mark["files"]:
            data = self.directory / file["name"]
            if not data.exists() or data.stat().st_size != file["size"]:
                return None
        return mark

    def missing_shards(self, shards: Sequence[ShardSpec]) -> list[ShardSpec]:
        """Return the shards that have no valid done mark, in order."""
        return [shard for shard in shards if self.shard_mark(shard.name) is None]

    def finish(self, content: Mapping[str, Any]) -> None:
        """Write `metadata.json`, the last file: the artifact is finished.

        Args:
            content: Resolved settings of the run, counts, timings.
        """
        put_json(
            self.directory / "metadata.json",
            {
                "id": self.id,
                "spec": self.spec.to_json(),
                "packages": package_versions(),
                "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **_plain(content),
            },
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: The file is no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run again.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no JSON object; delete it and run again.")
    return value


def as_number(value: float | None) -> float:
    """Return a number that `put_json` wrote: NaN where it wrote null."""
    return math.nan if value is None else float(value)


def package_versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    names = ("raysae", "torch", "torchvision", "transformers", "pyarrow", "numpy", "ray", "pillow")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
