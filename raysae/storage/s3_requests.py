"""What raysae asks of S3 alone: listings page by page, many deletions at once, unfinished uploads.

fsspec has no word for these, or reads whole listings into memory.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from raysae.storage.backend import Upload
from raysae.storage.retry import retrying
from raysae.storage.uris import ObjectUri

DELETED_AT_ONCE = 1000
"""The most that S3 takes in one request."""

_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId"}


class S3Requests:
    """Requests to a prefix of a bucket.

    Args:
        uri: Where.
        filesystem: s3fs' file system.
    """

    def __init__(self, uri: ObjectUri, filesystem: Any) -> None:
        self._uri = uri
        self._fs = filesystem
        self._root = f"{uri.prefix}/" if uri.prefix else ""

    def _call(self, what: str, method: str, **arguments: Any) -> dict[str, Any]:
        def call() -> dict[str, Any]:
            answer: dict[str, Any] = self._fs.call_s3(method, Bucket=self._uri.bucket, **arguments)
            return answer

        return retrying(f"{self._uri} cannot be {what}", call)

    def listed(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """Yield key, bytes and time of all objects whose keys begin so, a page in memory."""
        following: dict[str, str] = {}
        while True:
            page = self._call(
                "listed", "list_objects_v2", Prefix=f"{self._root}{prefix}", **following
            )
            for one in page.get("Contents", ()):
                key = one["Key"].removeprefix(self._root)
                if key and not key.endswith("/"):
                    yield key, int(one["Size"]), one["LastModified"].timestamp()
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, 1,000 in a request; those that are not there are no error.

        Raises:
            StorageError: One of them was not removed.
        """
        for start in range(0, len(keys), DELETED_AT_ONCE):
            part = keys[start : start + DELETED_AT_ONCE]
            objects = [{"Key": f"{self._root}{key}"} for key in part]
            what = f"{self._uri}/{part[0]} and {len(part) - 1} others cannot be deleted"
            retrying(what, partial(self._delete, objects))

    def _delete(self, objects: Sequence[dict[str, str]]) -> None:
        """Send one request; sending it twice does no harm."""
        answer = self._fs.call_s3(
            "delete_objects",
            Bucket=self._uri.bucket,
            Delete={"Objects": objects, "Quiet": True},
        )
        for problem in answer.get("Errors") or ():
            words = f"{problem.get('Key')}: {problem.get('Code')} {problem.get('Message', '')}"
            if problem.get("Code") in _DENIED:
                raise PermissionError(errno.EACCES, words)
            raise OSError(words)

    def unfinished_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield the uploads in parts below a prefix that were never ended."""
        following: dict[str, str] = {}
        while True:
            page = self._call(
                "searched for unfinished uploads",
                "list_multipart_uploads",
                Prefix=f"{self._root}{prefix}",
                **following,
            )
            for one in page.get("Uploads") or ():
                # Some stores take no prefix here, and list the whole bucket.
                if one["Key"].startswith(f"{self._root}{prefix}"):
                    key = one["Key"].removeprefix(self._root)
                    size = self._arrived(one["Key"], one["UploadId"])
                    yield Upload(key, one["UploadId"], one["Initiated"].timestamp(), size)
            if not page.get("IsTruncated"):
                return
            following = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def abort_upload(self, upload: Upload) -> None:
        """Give an upload up, which frees its parts; one that has ended meanwhile is no error."""
        try:
            self._call(
                "freed of an unfinished upload",
                "abort_multipart_upload",
                Key=f"{self._root}{upload.key}",
                UploadId=upload.upload_id,
            )
        except FileNotFoundError:
            return

    def _arrived(self, key: str, upload_id: str) -> int:
        """Return the bytes of an upload's parts, of the first 1,000 of them."""
        try:
            page = self._call("looked into", "list_parts", Key=key, UploadId=upload_id)
        except FileNotFoundError:
            return 0
        return sum(int(part["Size"]) for part in page.get("Parts") or ())
