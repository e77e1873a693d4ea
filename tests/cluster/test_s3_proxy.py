from __future__ import annotations

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.cluster.s3_faults import READS, WRITES, Fault, Kind, Rule
from tests.cluster.s3_proxy import s3_proxy
from tests.cluster.s3_server import s3_server

BODY = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def behind():
    with s3_server() as s3:
        yield s3


@pytest.fixture(scope="module")
def running(behind):
    with s3_proxy(behind.endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(running):
    running.reset()
    return running


@pytest.fixture
def s3(behind, proxy):
    """The bucket through the proxy; a client of it tries once only."""
    return behind.at(proxy.endpoint)


@pytest.fixture
def key(request):
    return request.node.name


def stored(s3, key):
    """Return what is stored under a key, or None, asking past the proxy."""
    try:
        return s3.client().get_object(Bucket=s3.bucket, Key=key)["Body"].read()
    except ClientError:
        return None


def put(s3, key, body=BODY):
    return s3.client().put_object(Bucket=s3.bucket, Key=key, Body=body)


def get(s3, key, **more):
    return s3.client().get_object(Bucket=s3.bucket, Key=key, **more)["Body"].read()


def raw(proxy, data: bytes):
    """Send bytes as they are, and return the connection."""
    url = urlsplit(proxy.endpoint)
    connection = socket.create_connection((url.hostname, url.port), timeout=60)
    connection.sendall(data)
    return connection


def test_without_rules_all_is_as_behind_it_and_counted(s3, behind, proxy, key):
    client, where = s3.client(), {"Bucket": s3.bucket, "Key": key}
    put(s3, key)
    assert get(s3, key) == stored(behind, key) == BODY
    assert get(s3, key, Range="bytes=5-9") == BODY[5:10]
    assert client.head_object(**where)["ContentLength"] == len(BODY)
    listed = client.list_objects_v2(Bucket=s3.bucket, Prefix=key)
    assert [found["Key"] for found in listed["Contents"]] == [key]
    client.delete_object(**where)
    with pytest.raises(ClientError, match="NoSuchKey"):
        get(s3, key)
    with pytest.raises(ClientError, match="404"):
        client.head_object(**where)
    assert proxy.requests == {
        Kind.PUT: 1,
        Kind.GET: 3,
        Kind.HEAD: 2,
        Kind.LIST: 1,
        Kind.DELETE: 1,
    }
    assert not proxy.injected
    assert {seen.path for seen in proxy.seen} == {f"/{s3.bucket}/{key}", f"/{s3.bucket}"}


def test_s3fs_writes_and_reads_in_parts_through_it(s3, proxy, tmp_path):
    import s3fs

    fs = s3fs.S3FileSystem(
        endpoint_url=s3.endpoint,
        key="k",
        secret="s",
        default_block_size=5 * 2**20,
        skip_instance_cache=True,
    )
    local, there = tmp_path / "file", f"{s3.bucket}/in-parts"
    local.write_bytes(BODY * 12)
    fs.put_file(str(local), there, chunksize=5 * 2**20)
    assert fs.cat_file(there) == local.read_bytes()
    with pytest.raises(FileExistsError):
        fs.put_file(str(local), there, chunksize=5 * 2**20, mode="create")
    assert proxy.requests[Kind.CREATE_MULTIPART] == proxy.requests[Kind.COMPLETE] == 2
    assert proxy.requests[Kind.UPLOAD_PART] == 6
    assert proxy.requests[Kind.ABORT] == 1
    assert proxy.requests[Kind.GET] == 3
    fs.rm_file(there)
    assert not fs.exists(there)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.ERROR, "InternalError"),
        (Fault.SLOW_DOWN, "SlowDown"),
        (Fault.DENY, "AccessDenied"),
        (Fault.CONFLICT, "ConditionalRequestConflict"),
    ],
)
def test_a_refused_request_is_not_done(s3, behind, proxy, fault, code):
    key = f"refused-{fault}"
    proxy.use(Rule(fault, [Kind.PUT]))
    with pytest.raises(ClientError) as refused:
        put(s3, key)
    assert refused.value.response["Error"]["Code"] == code
    assert stored(behind, key) is None
    assert proxy.injected == {fault: 1}
    with pytest.raises(ClientError, match="NoSuchKey"):
        get(s3, key)


@pytest.mark.parametrize(
    ("fault", "done"),
    [(Fault.DROP_BEFORE, None), (Fault.CUT_REQUEST, None), (Fault.DROP_AFTER, BODY)],
)
def test_a_client_whose_connection_ends_does_not_know(s3, behind, proxy, fault, done):
    key = f"ended-{fault}"
    proxy.use(Rule(fault, WRITES))
    with pytest.raises(BotoCoreError):
        put(s3, key)
    assert stored(behind, key) == done
    assert proxy.injected == {fault: 1}


def test_half_an_answer_says_the_length_of_all(s3, behind, proxy, key):
    put(behind, key)
    proxy.use(Rule(Fault.CUT_ANSWER, [Kind.GET]))
    answer = s3.client().get_object(Bucket=s3.bucket, Key=key)
    assert answer["ContentLength"] == len(BODY)
    with pytest.raises(BotoCoreError, match=f"{len(BODY) // 2} bytes read"):
        answer["Body"].read()


def test_a_delayed_request_is_done_later(s3, behind, proxy, key):
    proxy.use(Rule(Fault.DELAY, [Kind.PUT], delay_s=0.2))
    start = time.monotonic()
    put(s3, key)
    assert time.monotonic() - start >= 0.2
    assert stored(behind, key) == BODY


def test_what_is_missing_may_be_hidden(s3, behind, proxy, key):
    put(behind, key)
    proxy.use(Rule(Fault.HIDE, READS))
    assert get(s3, key) == BODY
    with pytest.raises(ClientError, match="AccessDenied"):
        get(s3, f"{key}-missing")
    with pytest.raises(ClientError, match="403"):
        s3.client().head_object(Bucket=s3.bucket, Key=f"{key}-missing")


def test_only_the_nth_of_a_path_is_hit_and_a_reset_forgets(s3, proxy, key):
    proxy.use(Rule(Fault.SLOW_DOWN, [Kind.PUT], path="/marks/", nth=2))
    put(s3, f"{key}/data/1")
    put(s3, f"{key}/marks/1")
    with pytest.raises(ClientError, match="SlowDown"):
        put(s3, f"{key}/marks/2")
    put(s3, f"{key}/marks/2")
    assert [seen.fault for seen in proxy.seen] == [None, None, Fault.SLOW_DOWN, None]
    proxy.use(Rule(Fault.SLOW_DOWN))
    proxy.reset()
    put(s3, key)
    assert (proxy.requests, proxy.injected) == ({Kind.PUT: 1}, {})


def test_of_many_creations_at_once_one_succeeds(s3, key):
    gate = threading.Barrier(8)

    def create(_):
        client = s3.client()
        gate.wait()
        try:
            client.put_object(Bucket=s3.bucket, Key=key, Body=BODY, IfNoneMatch="*")
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "created"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(8)))
    assert sorted(outcomes) == ["PreconditionFailed"] * 7 + ["created"]


def test_a_client_that_dies_in_the_middle_of_a_write_has_written_nothing(s3, behind, proxy, key):
    head = f"PUT /{s3.bucket}/{key} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
    raw(proxy, head.encode() + b"x" * 500).close()
    put(s3, f"{key}-after")
    assert stored(behind, key) is None


def test_a_connection_is_kept_after_a_refusal(s3, proxy):
    proxy.use(Rule(Fault.SLOW_DOWN, nth=2))
    connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc)
    found = []
    for _ in range(3):
        connection.request("PUT", f"/{s3.bucket}", body=b"not read by the refusal")
        used = connection.sock
        found.append(connection.getresponse())
        found[-1].read()
        assert connection.sock is used
    assert [answer.status == 503 for answer in found] == [False, True, False]
    connection.close()


def test_a_body_may_come_in_chunks_and_wait_for_leave(s3, behind, proxy, key):
    s3.client().put_bucket_acl(Bucket=s3.bucket, ACL="public-read-write")
    connection = raw(
        proxy,
        f"PUT /{s3.bucket}/{key} HTTP/1.1\r\nHost: h\r\nx-amz-acl: public-read\r\n"
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode(),
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.sendall(b"3\r\nabc\r\n2;extension\r\nde\r\n0\r\ntrailer: x\r\n\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert stored(behind, key) == b"abcde"
    connection.close()


def test_it_ends_with_its_threads_and_the_connections_that_clients_keep(behind):
    before = threading.active_count()
    with s3_proxy(behind.endpoint) as proxy:
        kept = raw(proxy, f"HEAD /{behind.bucket} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert kept.recv(1000).startswith(b"HTTP/1.1 ")
    assert kept.recv(1000) == b""
    kept.close()
    with pytest.raises(ConnectionRefusedError):
        raw(proxy, b"")
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
