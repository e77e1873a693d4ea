"""Corpora in data sets on Hugging Face, or on a server of its protocol (`HF_ENDPOINT`).

A branch is looked up once and its commit is pinned, so that a push during a job changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysae.corpora.clients import client_errors, listing_errors
from raysae.corpora.fingerprints import hub_fingerprint
from raysae.corpora.listing import ListedFile, Listing, is_corpus_file, key_of, nothing_there
from raysae.corpora.locations import HUB_SCHEME, HubUri
from raysae.corpora.ranged import Fetch
from raysae.errors import SettingsError

_MISSING = ("RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError")
_DENIED_STATUS = (401, 403)


def list_hub(location: HubUri, setting: str) -> Listing:
    """List the corpus files of a data set, at the commit that its revision names now.

    Args:
        location: A corpus file, a directory or a whole data set.
        setting: What names it, for messages.

    Raises:
        SettingsError: It does not exist, is private or gated, or cannot be reached.
        DataError: It holds no corpus file.
    """
    _refuse_offline(location, setting)
    with listing_errors(location, setting):
        root, infos = _find(location)
    if not infos:
        raise SettingsError(
            f"{setting}: {location} does not exist, or nothing lies below it; name a corpus file "
            "or a directory of the data set."
        )
    base = f"{root}/{location.path}" if location.path else root
    if list(infos) == [base]:
        base = base.rpartition("/")[0]
        files = [_listed(name.removeprefix(f"{base}/"), info) for name, info in infos.items()]
    else:
        named = ((name.removeprefix(f"{base}/"), info) for name, info in infos.items())
        files = [_listed(name, info) for name, info in named if is_corpus_file(name)]
    if not files:
        raise nothing_there(location, "its revision refs/convert/parquet may")
    return Listing(f"{HUB_SCHEME}://{base}", sorted(files), pinned=True)


def _refuse_offline(location: HubUri, setting: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise SettingsError(
            f"{setting}: {location} needs the network, but HF_HUB_OFFLINE is set; unset it, or "
            "download the data set and name its directory."
        )


def _find(location: HubUri) -> tuple[str, dict[str, Mapping[str, Any]]]:
    """Return the pinned repository as the client names it, and path → facts of every file."""
    from huggingface_hub import HfApi, HfFileSystem

    try:
        info = HfApi().dataset_info(location.repository, revision=location.revision or None)
        root = f"datasets/{location.repository}@{info.sha}"
        # An instance of its own: a shared one would keep the listing for the whole job.
        files = HfFileSystem(skip_instance_cache=True, use_listings_cache=False)
        path = f"{root}/{location.path}" if location.path else root
        return root, dict(files.find(path, detail=True, refresh=True))  # type: ignore[arg-type]
    except Exception as error:
        raise _usual(error) from error


def _usual(error: Exception) -> Exception:
    """Return the built-in error that says the same, if there is one."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if len(lines) > 1 and lines[0].startswith("401") else " ".join(lines)
    if "GatedRepoError" in kinds or (status in _DENIED_STATUS and not kinds & set(_MISSING)):
        return PermissionError(text)
    if kinds & set(_MISSING):
        return FileNotFoundError(text)
    return error


def _listed(name: str, info: Mapping[str, Any]) -> ListedFile:
    fingerprint = hub_fingerprint(info)
    # Not the URI: another commit holds most files unchanged.
    return ListedFile(name, int(info["size"]), key_of(HUB_SCHEME, fingerprint), fingerprint)


def fetch_hub(uri: str) -> Fetch:
    """Return what reads ranges of a file at a pinned commit: one request for each.

    `HfFileSystem.open` lists the file's whole directory first, in each process that reads a range.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
        http_backoff,
    )

    repository, _, tail = uri.removeprefix(f"{HUB_SCHEME}://datasets/").partition("@")
    commit, _, path = tail.partition("/")
    url = hf_hub_url(
        repository, path, repo_type="dataset", revision=commit, endpoint=constants.ENDPOINT
    )

    def fetch(start: int, stop: int) -> bytes:
        # A range of what a server has compressed on the way is another.
        own = {"range": f"bytes={start}-{stop - 1}", "accept-encoding": "identity"}
        headers = {**build_hf_headers(), **own}
        with client_errors():
            try:
                response = http_backoff(
                    "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
                )
                hf_raise_for_status(response)
            except Exception as error:
                raise _usual(error) from error
            return bytes(response.content)

    return fetch
