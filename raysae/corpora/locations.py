"""Where a corpus can lie: a local directory, an object store's prefix, a Hugging Face data set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from raysae.errors import SettingsError
from raysae.storage.uris import EXTRAS, LocalUri, ObjectUri, parse_uri

HUB_SCHEME = "hf"
_HUB_FORM = "hf://datasets/owner/name[@revision]/path"
_REVISION = re.compile(r"refs/(?:convert/[\w-]+|pr/\d+)(?=/|$)|[^/]+")
"""Branches with slashes in their names exist for conversions and pull requests only."""


@dataclass(frozen=True)
class HubUri:
    """A file or directory of a Hugging Face data set.

    Attributes:
        repository: `owner/name`.
        revision: A branch, tag or commit; empty means the default branch.
        path: In the repository, without slashes at the ends; may be empty.
    """

    repository: str
    revision: str
    path: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        tail = f"/{self.path}" if self.path else ""
        return f"{HUB_SCHEME}://datasets/{self.repository}{revision}{tail}"


Location = LocalUri | ObjectUri | HubUri


def parse_location(path: str | Path, setting: str) -> Location:
    """Read where a corpus lies.

    Args:
        path: A path, `file:///…`, `s3://bucket/prefix`, `gs://…`, `abfs://…`, or
            `hf://datasets/owner/name[@revision]/path`.
        setting: The setting that holds it, for messages.

    Raises:
        SettingsError: Another scheme, or something that the scheme does not have.
    """
    if isinstance(path, Path):
        return LocalUri(path.absolute())
    scheme = path.split("://", 1)[0].lower() if "://" in path else "file"
    if scheme == HUB_SCHEME:
        return _parse_hub(path, setting)
    if scheme not in {"file", *EXTRAS}:
        raise SettingsError(
            f"{setting}: {path!r} has the scheme {scheme!r}, which no corpus can be read from; "
            f"name a directory, s3://, gs:// or abfs:// with bucket and prefix, or {_HUB_FORM}."
        )
    return parse_uri(path, setting)


def _parse_hub(uri: str, setting: str) -> HubUri:
    kind, *rest = uri.split("://", 1)[1].strip("/").split("/", 2)
    if kind != "datasets" or len(rest) != 2:
        raise SettingsError(f"{setting}: {uri!r} names no data set; write {_HUB_FORM}.")
    owner, tail = rest
    name, at, after = tail.partition("/")[0].partition("@")
    path = tail.partition("/")[2]
    revision = ""
    if at:
        after_at = tail.partition("@")[2]
        found = _REVISION.match(after_at)
        revision = found.group() if found else ""
        path = after_at[len(revision) :]
    parts = [part for part in path.strip("/").split("/") if part]
    if not owner or not name or (at and not after) or {".", ".."} & {owner, name, revision, *parts}:
        raise SettingsError(
            f"{setting}: {uri!r} has an empty part, '.' or '..' in it; write {_HUB_FORM}."
        )
    return HubUri(f"{owner}/{name}", unquote(revision), "/".join(parts))
