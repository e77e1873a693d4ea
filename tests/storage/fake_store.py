"""An object store in memory with the interface of an fsspec client, to be given to ObjectBackend.

Every request is a step that a test can stop at, deny, lose the answer of, or let come to nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from raysae.storage.objects import ObjectBackend
from raysae.storage.uris import ObjectUri

Result = TypeVar("Result")

BUCKET = "bucket"
URI = ObjectUri("s3", BUCKET, "pre fix")
PART_BYTES = 8
"""Larger files are sent in two parts."""

LOST = ConnectionResetError("the answer was lost")
FAILED = ConnectionRefusedError("the request was lost")


@dataclass
class Store:
    """What a bucket holds, by `bucket/key`; and files of which parts were sent."""

    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: list[bytes] = field(default_factory=list)


def every_request(name: str, path: str) -> None:
    """Let a request pass."""


def nobody(answer: object) -> None:
    """Let an answer pass."""


class Client:
    """An fsspec client of a store.

    Args:
        store: What all clients see.
        step: Called before every request with its name and path. It may raise what the client
            raises, or return `LOST`: the request is carried out, but its answer does not arrive.
        seen: Called with every answer and every error.
    """

    def __init__(
        self,
        store: Store,
        step: Callable[[str, str], Exception | None] = every_request,
        seen: Callable[[object], None] = nobody,
    ) -> None:
        self.store = store
        self.step = step
        self.seen = seen

    def _request(self, name: str, path: str, effect: Callable[[], Result]) -> Result:
        lost = self.step(name, path)
        try:
            result = effect()
        except OSError as error:
            self.seen(lost or error)
            raise lost or error from None
        self.seen(lost or result)
        if lost is not None:
            raise lost
        return result

    def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        def effect() -> None:
            if mode == "create" and path in self.store.objects:
                raise FileExistsError(path)
            self.store.objects[path] = bytes(data)

        self._request(mode, path, effect)

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        data = Path(lpath).read_bytes()
        if len(data) <= PART_BYTES:
            return self.pipe_file(rpath, data)
        sent: list[bytes] = []
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            self._request("part", rpath, lambda part=part: self.store.uploads.append(part))  # type: ignore[misc]
            sent.append(part)

        def complete() -> None:
            self.store.objects[rpath] = b"".join(sent)

        return self._request("complete", rpath, complete)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        return self._request("get", path, lambda: self._held(path)[start:end])

    def cat(self, paths: list[str], on_error: str, **_: Any) -> dict[str, Any]:
        assert on_error == "return"
        return self._request("get many", paths[0], lambda: {p: self._held_or_not(p) for p in paths})

    def get_file(self, rpath: str, lpath: str) -> None:
        self._request("get", rpath, lambda: Path(lpath).write_bytes(self._held(rpath)))

    def info(self, path: str) -> dict[str, Any]:
        def effect() -> dict[str, Any]:
            if path in self.store.objects:
                return self._about(path)
            if any(name.startswith(f"{path}/") for name in self.store.objects):
                return {"name": path, "size": 0, "type": "directory"}
            raise FileNotFoundError(path)

        return self._request("head", path, effect)

    def find(self, path: str, detail: bool, prefix: str = "") -> dict[str, Any]:
        assert detail

        def effect() -> dict[str, Any]:
            found = [name for name in self.store.objects if name.startswith(f"{path}/{prefix}")]
            if not found and not prefix and path in self.store.objects:
                found = [path]
            return {name: self._about(name) for name in found}

        return self._request("list", path, effect)

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        assert detail

        def effect() -> list[dict[str, Any]]:
            below = [
                name[len(path) + 1 :] for name in self.store.objects if name.startswith(path + "/")
            ]
            if not below:
                return [self.info(path)]
            directories = {name.split("/")[0] for name in below if "/" in name}
            files = [self._about(f"{path}/{name}") for name in below if "/" not in name]
            listed = [{"name": f"{path}/{one}", "type": "directory"} for one in directories]
            return [*listed, *files]

        return self._request("list", path, effect)

    def cp_file(self, path1: str, path2: str) -> None:
        def effect() -> None:
            self.store.objects[path2] = self._held(path1)

        self._request("copy", path2, effect)

    def rm_file(self, path: str) -> None:
        def effect() -> None:
            self._held(path)
            del self.store.objects[path]

        self._request("delete", path, effect)

    def _held(self, path: str) -> bytes:
        if path not in self.store.objects:
            raise FileNotFoundError(path)
        return self.store.objects[path]

    def _held_or_not(self, path: str) -> bytes | FileNotFoundError:
        return self.store.objects.get(path, FileNotFoundError(path))

    def _about(self, path: str) -> dict[str, Any]:
        return {
            "name": path,
            "size": len(self.store.objects[path]),
            "type": "file",
            "ETag": hashlib.md5(self.store.objects[path]).hexdigest(),
            "LastModified": datetime(2026, 1, 1, tzinfo=UTC),
        }


def fake_backend(
    store: Store, step: Callable[[str, str], Exception | None] = every_request
) -> ObjectBackend:
    """Return a backend on a store in memory."""
    return ObjectBackend(URI, Client(store, step))
