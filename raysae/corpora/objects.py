"""Corpora in object stores: one listing for all files, ranges of single ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from raysae.corpora.clients import client_errors, listing_errors
from raysae.corpora.files import CorpusFile, below, changed
from raysae.corpora.fingerprints import object_fingerprint
from raysae.corpora.listing import ListedFile, Listing, is_corpus_file, key_of, nothing_there
from raysae.corpora.ranged import Fetch
from raysae.errors import SettingsError
from raysae.storage.filesystems import object_filesystem
from raysae.storage.uris import ObjectUri

_LAST_WRITE = ("LastModified", "last_modified", "generation", "updated")
"""What the clients call the time or the number of an object's last write."""


def list_objects(location: ObjectUri, setting: str) -> Listing:
    """List the corpus files below a prefix: a request for each thousand, none for single files.

    Args:
        location: A corpus file, or a prefix.
        setting: What names it, for messages.

    Raises:
        SettingsError: There is nothing there, or it cannot be listed.
        DataError: There is no corpus file there.
    """
    store = object_filesystem(location.scheme, setting, location.account)
    root, path = str(location), location.path
    with listing_errors(location, setting):
        infos = store.find(path, detail=True)
        if not isinstance(infos, dict):  # What adlfs says of a path that is a file.
            infos = {path: store.info(path)}
    if not infos:
        raise SettingsError(
            f"{setting}: {location} does not exist, or nothing lies below it; name a corpus file "
            "or the prefix of some."
        )
    if set(infos) == {path}:
        root, path = root.rpartition("/")[0], path.rpartition("/")[0]
        names = [(info, key.removeprefix(f"{path}/")) for key, info in infos.items()]
    else:
        names = [(info, key.removeprefix(f"{path}/")) for key, info in infos.items()]
        names = [(info, name) for info, name in names if is_corpus_file(name)]
    if not names:
        raise nothing_there(location, "name the corpus' prefix")
    with listing_errors(location, setting):
        return Listing(root, sorted(_listed(root, name, info) for info, name in names))


def _listed(root: str, name: str, info: Mapping[str, Any]) -> ListedFile:
    uri, size = below(root, name), int(info["size"])
    fingerprint = object_fingerprint(uri, info)
    last_write = [str(info.get(field)) for field in _LAST_WRITE]
    return ListedFile(name, size, key_of(uri, size, fingerprint, *last_write), fingerprint)


def fetch_object(uri: str) -> Fetch:
    """Return what reads ranges of an object as it is at that moment: one request for each."""
    store, path = _split(uri)

    def fetch(start: int, stop: int) -> bytes:
        with client_errors():
            return bytes(store.cat_file(path, start=start, end=stop))

    return fetch


@contextmanager
def unchanged_object(file: CorpusFile) -> Iterator[Fetch]:
    """Read ranges of an object whose content is that of the snapshot, before and afterwards.

    S3's client moreover makes each request depend on the entity tag.

    Raises:
        DataError: The object is another than when the snapshot was taken.
        OSError: It is gone or cannot be read.
    """
    store, path = _split(file.uri)
    with client_errors():
        # Arrow asks for whole pages or more and buffers them itself: see `reading`.
        handle = store.open(path, "rb", cache_type="none")
    with handle:
        _compare(file, handle.details)

        def fetch(start: int, stop: int) -> bytes:
            with client_errors():
                handle.seek(start)
                return bytes(handle.read(stop - start))

        try:
            yield fetch
        except (pa.ArrowException, OSError):
            _compare(file, _info(store, path))
            raise
        _compare(file, _info(store, path))


def _info(store: Any, path: str) -> Mapping[str, Any]:
    with client_errors():
        info: Mapping[str, Any] = store.info(path)
        return info


def _compare(file: CorpusFile, info: Mapping[str, Any]) -> None:
    if object_fingerprint(file.uri, info) != file.fingerprint:
        raise changed(file.uri)


def _split(uri: str) -> tuple[Any, str]:
    """Return the client of an object's store, and the object's path as that wants it."""
    scheme, _, rest = uri.partition("://")
    place, _, key = rest.partition("/")
    bucket, _, host = place.partition("@")
    location = ObjectUri(scheme, bucket, key, host)
    return object_filesystem(scheme, "corpus.path", location.account), location.path
