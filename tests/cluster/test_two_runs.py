"""Two submissions of one job on one storage at the same time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cluster.content import (
    cached_ids,
    dataset_files,
    history,
    live_scores,
    marks,
    read,
    sae_tensors,
    source_ids,
    subset,
)
from tests.cluster.settings import ROWS, SHARDS

pytestmark = [pytest.mark.cluster, pytest.mark.aside]


def test_two_runs_at_once_make_what_one_makes(undisturbed, runner):
    storage, there = runner.storage, undisturbed.storage
    jobs = [runner.start("filter"), runner.start("filter")]
    for job in jobs:
        ended = job.wait()
        assert ended.exit_code == ended.client == 0, ended.output[-6000:]
        assert ended.result["rows"] == ROWS // 2
    cache = storage.artifact("activations")
    assert cached_ids(cache) == source_ids("builtin", ROWS)
    assert len(dataset_files(cache)) == len(marks(cache)) == SHARDS
    assert history(storage.artifact("saes")) == history(there.artifact("saes"))
    expected, found = (sae_tensors(s.artifact("saes")) for s in (there, storage))
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    assert live_scores(storage) == live_scores(there)
    assert subset(storage.artifact("subsets")) == subset(there.artifact("subsets"))
    assert not list(storage.root.rglob(".tmp-*")), "a run left unfinished files"


def test_two_tunings_at_once_make_what_one_makes(undisturbed, runner):
    storage, there = runner.storage, undisturbed.storage
    storage.take(there, "activations", "saes", "weights", "scores", "subsets")
    jobs = [runner.start("finetune"), runner.start("finetune")]
    for job in jobs:
        ended = job.wait()
        assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    expected, found = (s.artifact("tuned") for s in (there, storage))
    before, after = (read(tuned / "metadata.json") for tuned in (expected, found))
    assert [step["step"] for step in after["steps"]] == [step["step"] for step in before["steps"]]
    assert sorted(path.name for path in found.iterdir()) == sorted(
        path.name for path in expected.iterdir()
    )
