"""Fingerprints of corpus files: what says that two files hold the same content.

| kind | form | where | equal means |
|---|---|---|---|
| SHA-256 | 64 hex digits | local; Hugging Face's large files (LFS, Xet) | equal bytes |
| Git blob | `git:<40 hex digits>` | Hugging Face's small files | equal bytes |
| MD5 | `md5:<size>:<32 hex digits>` | Google's objects, unless composed of parts | equal bytes |
| entity tag | `etag:<size>:<tag>` | S3 and what speaks its protocol | equal bytes |
| version | `version:<size>:<64 hex digits>` | Azure; composed Google objects | one write |

A large file on Hugging Face therefore has the fingerprint of its local copy, and with it the same
sample ids. The other kinds differ from each other for the same bytes, and two of them differ more
than the content does: S3's tag of an object uploaded in parts depends on the parts' size, and a
version on the object and its time. A copy then counts as other content, which costs computing
again and never gives a wrong result.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

SAMPLE_ID_DIGITS = 12
"""Hex digits of a file's fingerprint in a sample id: 48 bits, enough for any number of files."""

SHA256_DIGITS = 64
MAX_TAG_LETTERS = 64
"""A longer tag, or one with unusual letters, is replaced by its SHA-256."""


def hub_fingerprint(info: Mapping[str, Any]) -> str:
    """Return the fingerprint of a file of a Hugging Face repository.

    Args:
        info: What `HfFileSystem` lists: `blob_id`, and `lfs` with a `sha256` where there is one.
    """
    large = info.get("lfs")
    return str(large["sha256"]) if large else f"git:{info['blob_id']}"


def object_fingerprint(uri: str, info: Mapping[str, Any]) -> str:
    """Return the fingerprint of an object: the strongest that its store's listing gives.

    Args:
        uri: The object's, with its scheme.
        info: What the fsspec client lists or tells about the object.

    Raises:
        OSError: The store gives no entity tag.
    """
    size = int(info["size"])
    # S3's client spells it ETag, the others' etag.
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    md5 = info.get("md5Hash")
    if uri.startswith(("gs://", "gcs://")) and md5:
        return f"md5:{size}:{base64.b64decode(md5).hex()}"
    if not tag:
        raise OSError(f"{uri} has no entity tag, so that its changes cannot be told")
    if not uri.startswith("s3://"):
        # A time stamp or a counter, which two objects may have in common.
        return f"version:{size}:{_sha256(uri, tag)}"
    plain = len(tag) <= MAX_TAG_LETTERS and tag.isascii() and tag.replace("-", "").isalnum()
    return f"etag:{size}:{tag if plain else _sha256(tag)}"


def id_digits(fingerprint: str) -> str:
    """Return the hex digits that stand for a file in its samples' ids."""
    if len(fingerprint) != SHA256_DIGITS:
        fingerprint = _sha256(fingerprint)
    return fingerprint[:SAMPLE_ID_DIGITS]


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
