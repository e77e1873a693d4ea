"""What may be removed of a storage that the stages themselves wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raysae.artifacts import Artifact
from raysae.scoring import SAE_SCORERS, SCORERS
from raysae.stages.chain import Chain
from raysae.storage import Directory, open_storage
from tests.stages.conftest import Made
from tests.storages import path_of
from tests.upkeep.builders import WEEK, age
from tests.upkeep.helpers import garbage

pytestmark = pytest.mark.ray


@pytest.fixture
def old(made: Made, tmp_path: Path) -> Directory:
    """A copy of the chain's storage, two weeks later."""
    root = open_storage(str(tmp_path / "old"))
    shutil.copytree(path_of(made.chain.root), path_of(root), dirs_exist_ok=True)
    age(path_of(root), 2 * WEEK)
    return root


def made_by(chain: Chain) -> dict[str, Artifact]:
    kinds = ("snapshot", "sae_snapshot", "activations", "sae", "weights", "subset", "report")
    return {artifact.name: artifact for artifact in (getattr(chain, kind) for kind in kinds)}


def test_the_marks_of_scores_tell_what_they_were_made_from(made: Made) -> None:
    chain = made.chain
    for scorer in SCORERS:
        inputs = {"corpus": chain.snapshot.id}
        if scorer in SAE_SCORERS:
            inputs |= {"sae": chain.sae.id, "weights": chain.weights.id}
        for shard in chain.shards(chain.corpus):
            key = chain.row_group(shard, scorer).key
            mark = (chain.root / "scores").read_json(f"marks/{key}.done.json")
            assert mark["inputs"] == inputs


def test_of_a_finished_chain_only_the_used_up_cache_is_garbage(made: Made, old: Directory) -> None:
    mine, cache = made_by(made.chain), made.chain.activations.name
    assert not garbage(old).keys() & mine.keys()
    found = garbage(old, used_caches=True, keep_kinds=("reports",))
    assert {name: why for name, why in found.items() if name in mine} == {cache: "used-up"}


def test_what_live_scores_were_made_from_outlives_subset_and_report(
    made: Made, old: Directory
) -> None:
    chain = made.chain
    for artifact in (chain.subset, chain.report):
        shutil.rmtree(path_of(old) / artifact.name)
    mine = made_by(chain)
    assert not garbage(old, keep_kinds=()).keys() & mine.keys()
    shutil.rmtree(path_of(old) / "scores")
    gone = garbage(old, keep_kinds=()).keys() & mine.keys()
    assert gone == mine.keys() - {chain.subset.name, chain.report.name}
