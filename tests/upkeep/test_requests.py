"""How many requests the jobs send to an object store: by what there is, not by its number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raysae.storage import Directory
from raysae.upkeep.artifact_status import artifact_status
from raysae.upkeep.clock import storage_clock
from raysae.upkeep.deletion import Deletion
from raysae.upkeep.garbage import Keep, plan_garbage
from raysae.upkeep.inventory import artifacts
from tests.counted_s3 import CountedS3
from tests.upkeep.builders import WEEK, new_storage, sharded

SHARDS = 350
"""Three files each: two pages of a listing."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, counting_s3: CountedS3) -> CountedS3:
    """A store with a finished artifact and one that lacks a shard."""
    path = tmp_path_factory.mktemp("storage")
    root = new_storage(path)
    sharded(root, shards=SHARDS)
    sharded(root, shards=SHARDS + 1, done=SHARDS, number=1)
    for file in Path(path).rglob("*"):
        if file.is_file():
            counting_s3.put(f"s/{file.relative_to(path).as_posix()}", file.read_bytes())
    return counting_s3


def counted(s3: CountedS3, act: Callable[[Directory], object]) -> Counter[str]:
    """Requests that something sends."""
    s3.requests.clear()
    act(s3.root("s"))
    return Counter(s3.requests)


def test_looking_at_artifacts(s3: CountedS3) -> None:
    """Two small files of each, and who is there."""
    requests = counted(s3, lambda root: list(artifacts(root)))
    assert requests.total() <= 2 * 2 + 4


def test_the_status_of_a_finished_artifact_reads_no_marks_but_those_of_rejected_rows(
    s3: CountedS3,
) -> None:
    (found,) = (one for one in artifacts(s3.root("s")) if one.metadata is not None)
    requests = counted(s3, lambda _: artifact_status(found))
    assert requests["LIST"] <= 4
    assert requests["GET"] <= SHARDS // 2 + 1  # every other shard rejected a row
    assert requests.total() == requests["LIST"] + requests["GET"]


def test_the_status_of_an_unfinished_one_reads_every_mark_once(s3: CountedS3) -> None:
    (found,) = (one for one in artifacts(s3.root("s")) if one.metadata is None)
    requests = counted(s3, lambda _: artifact_status(found))
    assert requests["LIST"] <= 2 * 4
    assert requests["GET"] <= SHARDS
    assert requests.total() == requests["LIST"] + requests["GET"]


def test_deleting_takes_a_request_for_each_thousand(s3: CountedS3) -> None:
    root = s3.root("s")
    clock = storage_clock(root, WEEK)
    later = replace(clock, looked=clock.looked + 2 * WEEK)
    keep = Keep(3, (), used_caches=False)
    plan = plan_garbage(root, keep, later)
    requests = counted(s3, lambda _: list(Deletion(root, plan, keep, later).run()))
    assert [entry.key for entry in root.entries()] == ["raysae.json"]
    assert requests["POST"] <= 2 * (3 + 2 + 2)
    assert requests["DELETE"] == 0
