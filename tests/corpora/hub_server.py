"""A server with the few calls of Hugging Face's protocol that listing and reading take."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

PAGE = 1000
"""Entries of a tree in one answer, as on the real server."""


class Hub:
    """One data set, `owner/pairs`, with commits.

    Attributes:
        commits: Commit → path → bytes.
        branches: Branch or other name → commit.
        plain: Paths that are kept in Git itself, not as large files.
        status: Answer every request with this status, if not 0.
        requests: What was asked, in order.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.plain: set[str] = set()
        self.status = 0
        self.requests: list[str] = []
        self.url = ""
        self.push({})

    def push(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a commit of some files and move a branch to it."""
        commit = hashlib.sha1(repr((len(self.commits), branch)).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a name."""
        return revision if revision in self.commits else self.branches.get(revision)

    def entry(self, path: str, data: bytes) -> dict[str, object]:
        """Describe a file as the tree does."""
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": blob}
        if path not in self.plain:
            digest = hashlib.sha256(data).hexdigest()
            entry["oid"] = hashlib.sha1(digest.encode()).hexdigest()  # of the pointer
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
        return entry


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hub.requests.append(unquote(self.path))
        parts = urlsplit(self.path)
        route = parts.path.strip("/").split("/")
        if self.hub.status:
            self._send(self.hub.status, b"{}", {"X-Error-Message": "refused by the test"})
        elif route[:2] == ["api", "datasets"] and route[2:4] == ["owner", "pairs"]:
            self._api(route[4:], parse_qs(parts.query))
        elif route[:3] == ["datasets", "owner", "pairs"] and route[3] == "resolve":
            self._file(unquote(route[4]), unquote("/".join(route[5:])))
        else:
            self._missing("RepoNotFound")

    def _api(self, route: list[str], query: dict[str, list[str]]) -> None:
        revision = unquote(route[1]) if len(route) > 1 else "main"
        commit = self.hub.resolve(revision)
        if commit is None:
            self._missing("RevisionNotFound")
        elif not route or route[0] == "revision":
            self._send(200, json.dumps({"id": "owner/pairs", "sha": commit}).encode())
        else:
            self._tree(commit, unquote("/".join(route[2:])), query)

    def _tree(self, commit: str, below: str, query: dict[str, list[str]]) -> None:
        files = self.hub.commits[commit]
        prefix = f"{below}/" if below else ""
        names = sorted(name for name in files if name.startswith(prefix))
        if not names and below:
            self._missing("EntryNotFound")
            return
        if query["recursive"] != ["true"]:
            names = [name for name in names if "/" not in name[len(prefix) :]]
        start = int(query.get("cursor", ["0"])[0])
        page = [self.hub.entry(name, files[name]) for name in names[start : start + PAGE]]
        headers = {}
        if start + PAGE < len(names):
            path = quote(urlsplit(self.path).path, safe="/%")
            following = f"{self.hub.url}{path}?recursive=true&cursor={start + PAGE}"
            headers["Link"] = f'<{following}>; rel="next"'
        self._send(200, json.dumps(page).encode(), headers)

    def _file(self, revision: str, path: str) -> None:
        commit = self.hub.resolve(revision)
        data = self.hub.commits.get(commit or "", {}).get(path)
        if data is None:
            self._missing("EntryNotFound")
            return
        if path in self.hub.plain and "gzip" in self.headers.get("accept-encoding", ""):
            data = gzip.compress(data)  # as servers do with text; the range is one of that
        asked = self.headers.get("range", "bytes=0-").removeprefix("bytes=")
        first, _, last = asked.partition("-")
        stop = int(last) + 1 if last else len(data)
        self._send(206, data[int(first) : stop], {"ETag": f'"{commit}"'})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": "not found"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a `Hub` on a free port while the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
