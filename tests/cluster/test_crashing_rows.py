"""Rows that kill the process that decodes or prepares them."""

from __future__ import annotations

import pytest

from raysae.corpora.taking import take_snapshot
from raysae.storage.uris import LocalUri
from tests.cluster.content import cached_ids, marks, read
from tests.cluster.crashing.content import submit_options, write_crashing
from tests.cluster.crashing.deaths import CRASHING
from tests.cluster.harness import run_job, wait_until_idle
from tests.cluster.settings import ROWS, SHARD_ROWS, options

pytestmark = pytest.mark.cluster

DEADLY = {
    2: ("samples", "segfault"),
    SHARD_ROWS: ("samples", "kill"),
    SHARD_ROWS + 1: ("samples", "exit"),
    4 * SHARD_ROWS + 5: ("read", "abort"),
    5 * SHARD_ROWS + 2: ("samples", "hang"),
    6 * SHARD_ROWS: ("prepare", "hang"),
    7 * SHARD_ROWS + 3: ("prepare", "segfault"),
}
"""Rows in six of the shards, the last two of them in an actor's hands."""


def test_rows_that_kill_cost_themselves_alone(head, tiny_model, tmp_path):
    corpus = write_crashing(tmp_path / "corpus" / "rows.parquet", ROWS, DEADLY)
    storage = tmp_path / "storage"
    argv = [
        "jobs/cache.py",
        *options(storage, tiny_model),
        f"--sae_corpus.name={CRASHING}",
        f"--sae_corpus.path={corpus.parent}",
        # Each of two rows ends an actor twice.
        "--run.max_retries=4",
    ]
    ended = run_job(head, argv, tmp_path / "job.log", submit_options())
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert ended.result["rows"] == ROWS - len(DEADLY)
    assert ended.result["rejected"] == len(DEADLY)
    (cache,) = (storage / "activations").iterdir()
    snapshot, *_ = take_snapshot(CRASHING, LocalUri(corpus), 0)
    kept = [row for row in range(ROWS) if row not in DEADLY]
    assert cached_ids(cache) == sorted(snapshot.sample_id(row) for row in kept)
    rejections = [r for mark in marks(cache) for r in read(mark)["rejections"]]
    assert {r["ordinal"]: r["reason"] for r in rejections} == {
        ordinal: "decoder-timeout" if death == "hang" else "crashes-decoder"
        for ordinal, (_, death) in DEADLY.items()
    }
    wait_until_idle(head.process.pid)
