"""A proxy before an S3 that breaks chosen requests, and counts them all.

A body is forwarded whole or not at all, and one request at a time, so that the S3 behind it, which
has no locks, is as consistent as the real one.
"""

from __future__ import annotations

import http.client
import io
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any
from urllib.parse import urlsplit

from tests.cluster.s3_faults import Fault, Kind, Plan, Rule, kind_of, object_path

PIECE = 1 << 18
IN_MEMORY = 1 << 24
FORWARD_TIMEOUT_S = 600.0

NOT_FORWARDED = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}
"""Headers that are about one connection, and this proxy's are its own."""

REFUSALS = {
    Fault.ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.DENY: (403, "AccessDenied", "Access Denied"),
    Fault.CONFLICT: (409, "ConditionalRequestConflict", "A conflicting operation occurred."),
}


@dataclass(frozen=True)
class Seen:
    """A request that came.

    Attributes:
        kind: What it asks for.
        path: `/bucket/key`.
        fault: What was done to it.
    """

    kind: Kind
    path: str
    fault: Fault | None


class Proxy:
    """A running proxy.

    Attributes:
        endpoint: Its URL.
        seen: All requests since the start or the last `reset`, in the order in which they came.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.seen: list[Seen] = []
        self._plan = Plan()
        self._lock = threading.Lock()

    def use(self, *rules: Rule, seed: int = 0) -> None:
        """Let these rules decide from now on, and no others; they count from 1 again."""
        with self._lock:
            self._plan = Plan(rules, seed)

    def reset(self) -> None:
        """Break nothing any more, and forget what came."""
        with self._lock:
            self._plan = Plan()
            self.seen = []

    @property
    def requests(self) -> Counter[Kind]:
        """How many requests of each kind came."""
        return Counter(seen.kind for seen in self.seen)

    @property
    def injected(self) -> Counter[Fault]:
        """How often each fault was done."""
        return Counter(seen.fault for seen in self.seen if seen.fault)

    def decide(self, method: str, target: str) -> Rule | None:
        """Note a request, and return the rule that applies to it, if any does."""
        kind, path = kind_of(method, target), object_path(target)
        with self._lock:
            rule = self._plan.choose(kind, path)
            self.seen.append(Seen(kind, path, rule and rule.fault))
        return rule


@contextmanager
def s3_proxy(upstream: str) -> Iterator[Proxy]:
    """Start a proxy in threads of this process, and end it with all its connections on leaving.

    Args:
        upstream: URL of the S3 behind it.
    """
    server = _Server(upstream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.end_connections()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.proxy = Proxy(f"http://127.0.0.1:{self.server_port}")
        self.one_at_a_time = threading.Lock()
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """End those that clients keep open for a next request."""
        for connection in list(self._open):
            _shut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients are killed in these tests, and the S3 may be ended before the proxy.
        if not isinstance(sys.exception(), OSError | http.client.HTTPException):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one(self) -> None:
        rule = self.server.proxy.decide(self.command, self.path)
        fault = rule and rule.fault
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as body:
            length = self._receive(body, half=fault is Fault.CUT_REQUEST)
            if fault in {Fault.CUT_REQUEST, Fault.DROP_BEFORE}:
                self._drop()
                return
            if fault in REFUSALS:
                self._refuse(fault)
                return
            if rule and fault is Fault.DELAY:
                time.sleep(rule.delay_s)
            connection = http.client.HTTPConnection(self.server.upstream, timeout=FORWARD_TIMEOUT_S)
            try:
                self._answer(self._forward(connection, body, length), fault)
            finally:
                connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

    def _receive(self, body: IO[bytes], half: bool) -> int:
        """Read the request's body, or half of it (of a chunked one, a chunk); return the size."""
        whole = 0 if self._is_chunked else int(self.headers.get("Content-Length", 0))
        size = 0
        for piece in self._chunks() if self._is_chunked else self._pieces(whole):
            body.write(piece)
            size += len(piece)
            if half and 2 * size >= whole:
                break
        body.seek(0)
        return size

    @property
    def _is_chunked(self) -> bool:
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def _pieces(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._read(min(left, PIECE))
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield from self._pieces(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _read(self, size: int) -> bytes:
        piece = self.rfile.read(size)
        if len(piece) < size:
            raise ConnectionError("the client ended in the middle of a request")
        return piece

    def _forward(
        self, connection: http.client.HTTPConnection, body: IO[bytes], length: int
    ) -> http.client.HTTPResponse:
        """Send the request on, and wait for the head of the answer."""
        with self.server.one_at_a_time:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in NOT_FORWARDED:
                    connection.putheader(name, value)
            if length or self.command in {"PUT", "POST"}:
                connection.putheader("Content-Length", str(length))
            connection.endheaders()
            while piece := body.read(PIECE):
                connection.send(piece)
            return connection.getresponse()

    def _answer(self, response: http.client.HTTPResponse, fault: Fault | None) -> None:
        """Pass an answer on, as far as the fault lets it through."""
        if fault is Fault.DROP_AFTER:
            response.read()
            self._drop()
            return
        if fault is Fault.HIDE and response.status == 404:
            self._refuse(Fault.DENY)
            return
        source: IO[bytes] = response
        length = int(response.getheader("Content-Length", -1))
        if length < 0:
            source = io.BytesIO(response.read())
            length = len(source.getvalue())
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in NOT_FORWARDED:
                self.send_header(name, value)
        if response.status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self._send(source, length // 2 if fault is Fault.CUT_ANSWER else length)
        if fault is Fault.CUT_ANSWER:
            self._drop()

    def _send(self, source: IO[bytes], left: int) -> None:
        while left:
            piece = source.read(min(left, PIECE))
            if not piece:
                raise ConnectionError("the S3 ended in the middle of an answer")
            self.wfile.write(piece)
            left -= len(piece)

    def _refuse(self, fault: Fault) -> None:
        status, code, message = REFUSALS[fault]
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            "<RequestId>0123456789ABCDEF</RequestId><HostId>proxy</HostId></Error>"
        ).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _drop(self) -> None:
        self.close_connection = True
        _shut(self.connection)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
