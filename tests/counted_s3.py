"""An S3 in this process, which counts the requests: moto's application behind a lock.

S3 decides one conditional write after the other; moto alone does not.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from raysae.storage import Directory
from raysae.storage.objects import ObjectBackend
from raysae.storage.uris import ObjectUri

BUCKET = "counted"
REGION = "us-east-1"


class CountedS3:
    """A server with one bucket.

    Attributes:
        requests: How many there were: `GET`, `HEAD`, `PUT`, `DELETE`, … of objects, and `LIST`.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.requests: Counter[str] = Counter()
        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.filesystem = self._client()
        _backend().create_bucket(BUCKET, REGION)

    def _answer(self, environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        listing = "list-type" in parse_qs(environment.get("QUERY_STRING", ""))
        with self._lock:
            self.requests["LIST" if listing else environment["REQUEST_METHOD"]] += 1
            answer: Iterable[bytes] = self._application(environment, start_response)
        return answer

    def _client(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(
            key="test",
            secret="test",
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": REGION},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def root(self, prefix: str) -> Directory:
        """Return a storage in the bucket."""
        return Directory(ObjectBackend(ObjectUri("s3", BUCKET, prefix), self.filesystem))

    def put(self, key: str, data: bytes) -> None:
        """Put an object without a request."""
        _backend().put_object(BUCKET, key, data)

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        _backend().reset()


def _backend() -> Any:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


@contextmanager
def counted_s3() -> Iterator[CountedS3]:
    """Give an S3 for as long as the block lasts."""
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = CountedS3()
    try:
        yield server
    finally:
        server.close()
