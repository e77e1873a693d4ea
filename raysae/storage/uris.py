"""Storage URIs, and the names of what lies below them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from raysae.errors import SettingsError, StorageError

EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfs", "az": "abfs"}
"""Schemes of object stores, and the extra of raysae's that installs their client."""

_FORBIDDEN = re.compile(r"[\x00-\x1f\\\ud800-\udfff]")


@dataclass(frozen=True)
class LocalUri:
    """A directory of a file system.

    Attributes:
        path: Absolute.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class ObjectUri:
    """A prefix in a bucket (Azure: a container).

    Attributes:
        scheme: A key of `EXTRAS`.
        bucket: Its name.
        prefix: What keys begin with, without slashes at the ends; may be empty.
        host: Azure's storage account as a host name, if the URI has one:
            `abfs://container@account.dfs.core.windows.net/prefix`.
    """

    scheme: str
    bucket: str
    prefix: str
    host: str = ""

    def __str__(self) -> str:
        bucket = f"{self.bucket}@{self.host}" if self.host else self.bucket
        return f"{self.scheme}://{bucket}/{self.prefix}".removesuffix("/")

    @property
    def account(self) -> str:
        """Azure's storage account; empty if the environment names it."""
        return self.host.partition(".")[0]

    @property
    def path(self) -> str:
        """`bucket/prefix`, as clients want it."""
        return f"{self.bucket}/{self.prefix}" if self.prefix else self.bucket


def parse_uri(uri: str, setting: str = "storage") -> LocalUri | ObjectUri:
    """Read a storage URI: a path, `file:///path`, `s3://bucket/prefix`, `gs://…`, `abfs://…`.

    Paths are taken as they are, with blanks and any letters; `file:` URIs are percent-decoded;
    in object stores' URIs every character stands for itself.

    Args:
        uri: What the user wrote.
        setting: The setting that holds it, for messages.

    Raises:
        SettingsError: Another scheme, no absolute path, no bucket, or something that no key has.
    """
    _check_letters(uri, uri, setting)
    if "://" not in uri:
        return LocalUri(_plain_path(uri, setting))
    scheme = uri.split("://", 1)[0].lower()
    if scheme == "file":
        return LocalUri(_file_path(uri, setting))
    if scheme not in EXTRAS:
        raise SettingsError(
            f"{setting}: {uri!r} has the scheme {scheme!r}, which cannot hold artifacts; name a "
            "directory, or s3://, gs:// or abfs:// with bucket and prefix."
        )
    return _object_uri(uri, scheme, setting)


def _check_letters(text: str, uri: str, setting: str) -> None:
    if not text or any(ord(letter) < 32 for letter in text):
        raise SettingsError(
            f"{setting}: {uri!r} is empty or has a control character in it; name a directory, or "
            "s3://, gs:// or abfs:// with bucket and prefix."
        )


def _plain_path(path: str, setting: str) -> Path:
    scheme, colon, _ = path.partition(":/")
    if colon and scheme.lower() in {*EXTRAS, "file"}:
        raise SettingsError(f"{setting}: {path!r} lacks a slash; write {scheme}:// with two.")
    try:
        return _absolute(Path(path).expanduser())
    except RuntimeError as error:
        raise SettingsError(
            f"{setting}: {path!r} names a home directory that is not known ({error}); write it out."
        ) from error


def _absolute(path: Path) -> Path:
    """Return an absolute path without `..`, which is looked up, because of symbolic links."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _file_path(uri: str, setting: str) -> Path:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise SettingsError(
            f"{setting}: {uri!r} is no URI ({error}); write file:///path."
        ) from error
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise SettingsError(
            f"{setting}: {uri!r} names no absolute path of this machine; write file:///path, with "
            "three slashes, or the path alone."
        )
    if "?" in uri or "#" in uri:
        raise SettingsError(
            f"{setting}: {uri!r} has ? or # in it, which end the path in a URI; write %3F or %23, "
            "or the path alone."
        )
    path = unquote(parts.path)
    _check_letters(path, uri, setting)
    return _absolute(Path(path))


def _object_uri(uri: str, scheme: str, setting: str) -> ObjectUri:
    place, _, prefix = uri.split("://", 1)[1].partition("/")
    bucket, _, host = place.partition("@")
    if ("@" in place and scheme not in {"abfs", "abfss"}) or ":" in place:
        # The URI itself may hold a secret, so it is not repeated.
        raise SettingsError(
            f"{setting}: the {scheme} URI holds a user, a password or a port; leave them out and "
            "set the client's environment variables instead."
        )
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    if not bucket:
        raise SettingsError(f"{setting}: {uri!r} names no bucket; write {scheme}://bucket/prefix.")
    if any(part in {"", ".", ".."} for part in parts) or any(c in uri for c in "?#*[]\\"):
        raise SettingsError(
            f"{setting}: {uri!r} has an empty part, '.', '..' or one of ? # * [ ] \\ in it, which "
            "stores and their clients read differently; name another prefix."
        )
    return ObjectUri(scheme, bucket, "/".join(parts), host)


def check_name(name: str) -> str:
    """Return a name below a storage, or refuse one that could lead out of it.

    Names come from marks and manifests too, which anybody who can write the storage can change.

    Raises:
        StorageError: It is empty or absolute, or has `.`, `..`, an empty part, a backslash, a
            control character or half of a character in it.
    """
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or _FORBIDDEN.search(name):
        raise StorageError(
            f"{name!r} is no name below a storage; the file that holds it is damaged or forged: "
            "delete that and run again."
        )
    return name
