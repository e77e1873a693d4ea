"""What lies in a storage: kinds, artifacts, and what each says of itself.

Everything here only reads, and nothing that it finds stops it: what cannot be read is a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from raysae.artifacts import METADATA_FILE, SPEC_FILE, FileRecord, content_id
from raysae.artifacts.files import records_from_json
from raysae.artifacts.ids import ID_HEX_DIGITS
from raysae.artifacts.score_table import SCORES
from raysae.artifacts.uses import USES
from raysae.errors import DataError, RaysaeError, StorageError
from raysae.settings import resolved_storage
from raysae.storage import Directory, check_format, check_name, storage_at
from raysae.upkeep.text import printable

KINDS = ("snapshots", "activations", "saes", "weights", "subsets", "tuned", "reports")
"""Kinds of artifacts that this code knows; other directories are looked at, and left alone."""

PROBES = ".probes"
"""Where jobs try out whether they can write."""

_NO_KINDS = {SCORES, USES, PROBES}


class Problem(NamedTuple):
    """Why one of an artifact's two files cannot be used.

    Attributes:
        file: Its name.
        sentence: What is wrong.
        certain: Whether it is damaged for sure, and not out of reach for now.
    """

    file: str
    sentence: str
    certain: bool


@dataclass(frozen=True)
class Found:
    """An artifact's directory, and what its own two files say.

    Attributes:
        kind: The directory's kind.
        id: The directory's name.
        directory: Where it is.
        spec: What determines it; None if that cannot be read, is another artifact's, or was never
            written.
        planned: How many shards there will be; 0 if it has none.
        metadata: Of a finished one.
        problems: Why something of this cannot be used.
        linked: Whether it lies behind a symbolic link.
        own_files: What its metadata lists.
    """

    kind: str
    id: str
    directory: Directory
    spec: Mapping[str, Any] | None = None
    planned: int = 0
    metadata: Mapping[str, Any] | None = None
    problems: tuple[Problem, ...] = ()
    linked: bool = False
    own_files: tuple[FileRecord, ...] = ()

    @property
    def name(self) -> str:
        """`<kind>/<id>`."""
        return f"{self.kind}/{self.id}"

    @property
    def finished_at(self) -> str:
        """When it was finished, by the clock of the run that did it; empty if it is not."""
        return str((self.metadata or {}).get("finished_at", ""))

    @property
    def inputs(self) -> frozenset[str] | None:
        """All texts in the inputs of its specification; None if those cannot be known."""
        if self.spec is None:
            return None if self.problems else frozenset()
        return frozenset(_texts(self.spec.get("inputs", {})))


def open_for_upkeep(uri: str) -> Directory:
    """Return the root of a storage that is there already; nothing is written.

    Raises:
        SettingsError: It is no URI of a storage.
        DataError: It is no storage of raysae's, or one of another format.
    """
    root = storage_at(resolved_storage(uri))
    check_format(root)
    return root


def kinds_there(root: Directory) -> list[str]:
    """Return the directories that may hold artifacts: known kinds first, in the chain's order."""
    there = [name for name in root.directories() if name not in _NO_KINDS and is_name(name)]
    known = [kind for kind in KINDS if kind in there]
    return known + [name for name in there if name not in KINDS]


def artifacts(root: Directory, kind: str = "", name: str = "") -> Iterator[Found]:
    """Yield the artifacts of a storage, by kind and id; of unknown kinds those with a `spec.json`.

    A directory that cannot be listed is one with an empty id, and a problem.

    Args:
        root: The storage.
        kind: Only this kind; all if empty.
        name: Only this one, as `<kind>/<id>`; all if empty.
    """
    for there in kinds_there(root):
        if kind not in {"", there}:
            continue
        try:
            ids = (root / there).directories()
        except RaysaeError as error:
            yield Found(there, "", root / there, problems=(_problem("", error),))
            continue
        for id_ in ids:
            if name in {"", f"{there}/{id_}"} and _may_be_artifact(there, id_):
                found = look_at(root, there, id_)
                if there in KINDS or found.spec is not None or found.problems:
                    yield found


def strangers(root: Directory) -> list[str]:
    """Return the directories that are no part of a storage, which are left alone.

    Of directories whose kind is not known, those below them are not told one by one. What of a name
    cannot be printed is escaped.
    """
    found = [name for name in root.directories() if not is_name(name)]
    for kind in kinds_there(root):
        if kind not in KINDS:
            found.append(kind)
            continue
        with suppress(RaysaeError):  # `artifacts` tells of it
            ids = (root / kind).directories()
            found += [f"{kind}/{id_}" for id_ in ids if not _may_be_artifact(kind, id_)]
    return [printable(name) for name in found]


def links(found: Iterable[Found]) -> dict[str, set[str]]:
    """Return what each artifact was made from, as far as that is here, both as `<kind>/<id>`."""
    there = list(found)
    names = {one.id: one.name for one in there} | {one.name: one.name for one in there}
    return {
        one.name: {names[text] for text in one.inputs or () if text in names} - {one.name}
        for one in there
    }


def look_at(root: Directory, kind: str, id_: str) -> Found:
    """Read what an artifact says of itself."""
    directory = root / kind / id_
    problems: list[Problem] = []
    written = _read(directory, SPEC_FILE, problems) or {}
    metadata = _read(directory, METADATA_FILE, problems)
    own: tuple[FileRecord, ...] = ()
    if metadata is not None:
        try:
            own = tuple(records_from_json(metadata["files"]))
            for record in own:
                check_name(record.name)
        except (KeyError, TypeError, StorageError) as error:
            problems.append(Problem(METADATA_FILE, f"it lists no files ({error!r})", certain=True))
            metadata, own = None, ()
    spec = written.get("spec", (metadata or {}).get("spec"))
    if spec is not None and not _determines(spec, id_):
        sentence = "it is another artifact's: the id differs"
        problems.append(Problem(SPEC_FILE, sentence, certain=False))
        spec = None
    if metadata is not None and spec is not None:
        told = metadata.get("id"), metadata.get("spec")
        if told != (id_, spec):
            sentence = "it tells of another artifact: the id or the settings differ"
            problems.append(Problem(METADATA_FILE, sentence, certain=False))
    planned = written.get("shards")
    return Found(
        kind=kind,
        id=id_,
        directory=directory,
        spec=spec if isinstance(spec, Mapping) else None,
        planned=planned if isinstance(planned, int) else 0,
        metadata=metadata,
        problems=tuple(problems),
        linked=not root.backend.is_inside(directory.path),
        own_files=own,
    )


def _determines(spec: Any, id_: str) -> bool:
    """Whether a specification is the one that an id was computed from."""
    try:
        return content_id(spec) == id_
    except ValueError:  # numbers that are not finite, which nobody wrote
        return False


def _may_be_artifact(kind: str, id_: str) -> bool:
    """Whether a directory's name is an id, or could be one of a kind that is not known."""
    if kind in KINDS:
        return len(id_) == ID_HEX_DIGITS and set(id_) <= set("0123456789abcdef")
    return is_name(id_)


def is_name(name: str) -> bool:
    """Whether a directory's or file's name is one that raysae can have given."""
    try:
        check_name(name)
    except StorageError:
        return False
    return True


def _read(directory: Directory, name: str, problems: list[Problem]) -> dict[str, Any] | None:
    try:
        return directory.read_json(name)
    except FileNotFoundError:
        return None
    except RaysaeError as error:
        problems.append(_problem(name, error))
        return None


def _problem(name: str, error: RaysaeError) -> Problem:
    return Problem(name, str(error).rstrip("."), certain=isinstance(error, DataError))


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a JSON value, wherever they stand."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
