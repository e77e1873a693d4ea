from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.cluster.s3_server import s3_server


@pytest.fixture(scope="module")
def s3():
    with s3_server() as s3:
        yield s3


def test_it_serves_its_bucket_and_is_gone_afterwards():
    with s3_server("a-bucket") as s3:
        s3.client().put_object(Bucket="a-bucket", Key="key", Body=b"data")
        assert s3.client().get_object(Bucket="a-bucket", Key="key")["Body"].read() == b"data"
    url = urlsplit(s3.endpoint)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url.hostname, url.port))


def test_it_is_ended_where_a_test_fails():
    with pytest.raises(ZeroDivisionError), s3_server() as s3:
        _ = 1 / 0
    with pytest.raises(OSError):
        socket.create_connection((urlsplit(s3.endpoint).hostname, urlsplit(s3.endpoint).port))


def test_clients_find_it_by_the_environment(s3, monkeypatch):
    import boto3
    import s3fs

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    boto3.session.Session().client("s3").put_object(Bucket=s3.bucket, Key="here", Body=b"")
    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    assert fs.find(s3.bucket) == [f"{s3.bucket}/here"]


def test_an_object_is_created_once(s3):
    client, where = s3.client(), {"Bucket": s3.bucket, "Key": "once"}
    client.put_object(**where, Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(**where, Body=b"2", IfNoneMatch="*")
    assert client.get_object(**where)["Body"].read() == b"1"


def test_a_multipart_upload_creates_once(s3):
    client, where = s3.client(), {"Bucket": s3.bucket, "Key": "once-in-parts"}
    first, second = (start_upload(client, where, body) for body in (b"1", b"2"))
    client.complete_multipart_upload(**where, **first, IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.complete_multipart_upload(**where, **second, IfNoneMatch="*")
    assert client.get_object(**where)["Body"].read() == b"1"


def test_completing_twice_is_no_error(s3):
    """A client whose connection was lost asks again; S3 remembers."""
    client, where = s3.client(), {"Bucket": s3.bucket, "Key": "completed-twice"}
    upload = start_upload(client, where, b"1")
    for _ in range(2):
        client.complete_multipart_upload(**where, **upload, IfNoneMatch="*")


def start_upload(client, where, body):
    upload = client.create_multipart_upload(**where)["UploadId"]
    part = client.upload_part(**where, UploadId=upload, PartNumber=1, Body=body)
    return {
        "UploadId": upload,
        "MultipartUpload": {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    }
