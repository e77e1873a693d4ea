"""The processes that read shards are lost."""

from __future__ import annotations

import pytest

from tests.cluster.content import cached_ids, cached_tokens, marks, source_ids
from tests.cluster.moments import Moment, Victim
from tests.cluster.settings import ROWS
from tests.cluster.strikes import strike

pytestmark = pytest.mark.cluster


def test_a_killed_reader_costs_no_row_and_doubles_none(undisturbed, runner):
    cache = runner.storage.sibling(undisturbed.storage, "activations")
    job = runner.start("cache")
    moment = Moment("cache", Victim.READER, after=0, delay_s=0.0, pick=0.5)
    assert strike(moment, job, lambda: len(marks(cache))), job.wait().output[-6000:]
    ended = job.wait()
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert ended.result["rows"] == ROWS
    after = runner.storage.artifact("activations")
    assert cached_ids(after) == source_ids("builtin", ROWS)
    assert cached_tokens(after) == cached_tokens(undisturbed.storage.artifact("activations"))
