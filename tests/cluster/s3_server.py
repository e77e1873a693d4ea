"""An S3 of this machine: moto's HTTP server in a process of its own, with one bucket in it.

It refuses half a body and honours `If-None-Match: *` for PutObject and CompleteMultipartUpload, as
S3 does, but has no locks: several clients at once should go through `tests.cluster.s3_proxy`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.run_local import _free_ports

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
HOST = "127.0.0.1"
KEY_ID = "test-key-id"
SECRET = "test-secret"
REGION = "us-east-1"


@dataclass(frozen=True)
class S3:
    """Where a bucket is, and how it is reached.

    Attributes:
        endpoint: URL of the server, or of a proxy before it.
        bucket: The bucket's name.
    """

    endpoint: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which every AWS client comes here, and uses nothing of the user's own."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": HOST,
            "no_proxy": HOST,
        }

    @property
    def credentials(self) -> dict[str, str]:
        """What a client is given that does not read the environment."""
        return {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}

    def at(self, endpoint: str) -> S3:
        """Return the same bucket, reached through another endpoint."""
        return replace(self, endpoint=endpoint)

    def client(self) -> Any:
        """Return a boto3 client that never tries anything a second time."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            config=Config(retries={"total_max_attempts": 1}),
            **self.credentials,
        )


@contextmanager
def s3_server(bucket: str = "raysae-test") -> Iterator[S3]:
    """Start an S3 with one empty bucket, and end it on leaving; what it stored is gone then."""
    (port,) = _free_ports(1)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
            cwd=Path(tempfile.gettempdir()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A Ctrl-C for the tests must reach the jobs first, which may still want to write.
            start_new_session=True,
        )
        try:
            if not _answers(process, port):
                log.seek(0)
                said = log.read()[-3000:].decode(errors="replace")
                raise AssertionError(f"moto's server did not start:\n{said}")
            s3 = S3(f"http://{HOST}:{port}", bucket)
            s3.client().create_bucket(Bucket=bucket)
            yield s3
        finally:
            _end(process)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server accepts connections, or is over."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((HOST, port), timeout=1):
                return True
        except OSError:
            time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
