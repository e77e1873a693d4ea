"""The chain of the main job on an S3, which works, and which fails now and then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.run_local import Head
from tests.cluster.harness import assert_one_clear_sentence, wait_until_idle
from tests.cluster.moments import Moment, Victim
from tests.cluster.runner import Runner, head_of_tests
from tests.cluster.s3_faults import WRITES, Fault, Kind, Rule
from tests.cluster.s3_proxy import Proxy, s3_proxy
from tests.cluster.s3_server import S3, s3_server
from tests.cluster.sameness import assert_same_bytes, assert_same_content
from tests.cluster.settings import SCORERS
from tests.cluster.strikes import strike
from tests.reference.storage_reader import read_artifact

pytestmark = [pytest.mark.cluster, pytest.mark.aside]

PREFIX = "some prefix/ü"
SEED = 7
FAULTS = (
    Rule(Fault.ERROR, probability=0.02),
    Rule(Fault.SLOW_DOWN, probability=0.02),
    Rule(Fault.DROP_BEFORE, probability=0.02),
    Rule(Fault.DROP_AFTER, WRITES, probability=0.03),
    Rule(Fault.CUT_REQUEST, WRITES, probability=0.02),
    Rule(Fault.CUT_ANSWER, (Kind.GET, Kind.LIST), probability=0.03),
    Rule(Fault.DELAY, probability=0.03, delay_s=0.2),
)
NO_DELETING = Rule(Fault.DENY, (Kind.DELETE,))


class Bucket(NamedTuple):
    """An S3, what stands before it, and the head whose jobs find it."""

    s3: S3
    proxy: Proxy
    head: Head


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Iterator[Bucket]:
    with (
        s3_server() as s3,
        s3_proxy(s3.endpoint) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in s3.at(proxy.endpoint).environment.items():
            patch.setenv(name, value)
        patch.setenv("RAYSAE_NODE_CACHE", str(tmp_path_factory.mktemp("node-cache")))
        with head_of_tests() as head:
            yield Bucket(s3, proxy, head)


@pytest.fixture
def runner(bucket, tiny_model, tmp_path) -> Iterator[Runner]:
    """A runner on an empty prefix, all of whose requests are counted."""
    bucket.proxy.reset()
    uri = f"s3://{bucket.s3.bucket}/{tmp_path.name}/{PREFIX}"
    yield Runner.below(bucket.head, tmp_path / "run", tiny_model, uri)
    bucket.proxy.reset()
    wait_until_idle(bucket.head.process.pid)


def copy_down(s3: S3, uri: str, target: Path) -> None:
    """Copy a prefix to a directory, by boto3 and past the proxy."""
    prefix = uri.removeprefix(f"s3://{s3.bucket}/") + "/"
    client = s3.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=s3.bucket, Prefix=prefix)
    for key in (one["Key"] for page in pages for one in page.get("Contents", ())):
        path = target / key.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=s3.bucket, Key=key)["Body"].read())


def show_requests(title: str, proxy: Proxy) -> None:
    """Print what came, and what was done to it."""
    for name, counted in (("requests", proxy.requests), ("faults", proxy.injected)):
        listed = ", ".join(f"{kind} {count:,}" for kind, count in counted.most_common())
        print(f"{title}: {sum(counted.values()):,} {name}: {listed}")


def test_a_bucket_holds_what_a_directory_does(undisturbed, bucket, runner):
    ended = runner.run("filter")
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    subset = undisturbed.storage.artifact("subsets").name
    assert ended.result["artifact"] == f"{runner.uri}/subsets/{subset}"
    show_requests("undisturbed", bucket.proxy)
    copy_down(bucket.s3, runner.uri, runner.storage.root)
    assert_same_content(undisturbed.storage, runner.storage)
    assert not list(runner.storage.root.rglob(".tmp-*"))
    assert read_artifact(runner.storage.artifact("reports"))


def test_what_is_denied_in_the_middle_is_said_in_a_sentence(undisturbed, bucket, runner):
    proxy = bucket.proxy
    job = runner.start("cache")
    job.wait_until(lambda: marks_sent(proxy, "activations") >= 3, "three shards")
    proxy.use(Rule(Fault.DENY, WRITES))
    said = rf"storage: s3://{bucket.s3.bucket}/.* cannot be \w+: denied \(.*\); allow it to .*"
    assert_one_clear_sentence(job.wait(), said)
    wait_until_idle(runner.head.process.pid)

    proxy.use()
    ended = runner.run("cache")
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert ended.result["resumed"] is True
    copy_down(bucket.s3, runner.uri, runner.storage.root)
    assert_same_bytes("activations", undisturbed.storage, runner.storage)


def test_faults_and_kills_change_nothing(undisturbed, bucket, runner):
    proxy = bucket.proxy
    proxy.use(*FAULTS, seed=SEED)
    job = runner.start("filter")
    actor = Moment("cache", Victim.ACTOR, after=3, delay_s=0.0, pick=0.5)
    assert strike(actor, job, lambda: marks_sent(proxy, "activations")), job.wait().output[-6000:]
    driver = Moment("score", Victim.DRIVER, after=3 * SCORERS, delay_s=0.0, pick=0.5)
    assert strike(driver, job, lambda: marks_sent(proxy, "scores")), job.wait().output[-6000:]
    assert job.wait().result is None
    wait_until_idle(runner.head.process.pid)

    # Now nothing can be deleted besides.
    proxy.use(NO_DELETING, *FAULTS, seed=SEED + 1)
    ended = runner.run("filter")
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert "storage: warning: nothing can be deleted" in ended.output
    assert ended.result["resumed"] is True
    show_requests("with faults", proxy)
    assert {rule.fault for rule in FAULTS} <= proxy.injected.keys()
    copy_down(bucket.s3, runner.uri, runner.storage.root)
    assert_same_content(undisturbed.storage, runner.storage)


def marks_sent(proxy: Proxy, kind: str) -> int:
    """Return how many done marks of a kind came so far; below 0 before anything of it did."""
    paths = [seen.path for seen in proxy.seen if seen.kind is Kind.PUT and f"/{kind}/" in seen.path]
    return len({path for path in paths if path.endswith(".done.json")}) if paths else -1
