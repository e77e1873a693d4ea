"""What `jobs/verify.py --repair` takes away, the job that made it makes again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raysae.artifacts import SCORE_SCHEMA, RowGroup, ScoreTable
from raysae.errors import DataError
from raysae.pipeline import make
from raysae.stages import score
from raysae.stages.chain import Chain
from raysae.stages.live_scores import row_groups, scores_are_live, scores_were_published
from raysae.upkeep.verify import VerifySettings, run_verify
from tests.stages.conftest import Made
from tests.storages import path_of

pytestmark = pytest.mark.ray


@pytest.fixture
def chain(made: Made, tmp_path: Path) -> Chain:
    """A chain on a copy of a finished one's storage."""
    root = shutil.copytree(path_of(made.chain.root), tmp_path / "storage")
    return Chain(replace(made.settings, storage=str(root)))


def damage_weights(chain: Chain) -> None:
    next(path_of(chain.weights.directory).glob("shard-*.top_tokens.arrow")).unlink()


def damage_scores(chain: Chain) -> None:
    live = next(ScoreTable(chain.root).live())
    (path_of(chain.root) / "scores" / live.path).write_bytes(b"x" * live.size)


def damage_snapshot(chain: Chain) -> None:
    (path_of(chain.snapshot.directory) / "files.parquet").write_bytes(b"short")


@pytest.mark.parametrize("damage", [damage_weights, damage_scores, damage_snapshot])
def test_though_all_that_is_asked_for_is_finished(
    chain: Chain, damage: Callable[[Chain], None]
) -> None:
    damage(chain)
    with pytest.raises(DataError, match="run the jobs that are named above"):
        run_verify(VerifySettings(str(chain.root), repair=True))
    make(chain, "reports")
    run_verify(VerifySettings(str(chain.root)))
    assert chain.weights.is_finished()
    assert chain.snapshot.is_finished()
    assert scores_are_live(chain)
    assert make(chain, "reports") is None


def lose_all_manifests(chain: Chain) -> None:
    shutil.rmtree(path_of(ScoreTable(chain.root).manifests.directory))


def lose_the_latest_manifest(chain: Chain) -> None:
    """Another run's, which knows nothing of these scores, counts then."""
    table = ScoreTable(chain.root)
    lose_all_manifests(chain)
    group = RowGroup(chain.settings.corpus.name, "cosine", "another", 0, 1)
    table.write(group, SCORE_SCHEMA.empty_table(), {"rejected": 1, "rejections": []})
    assert table.publish([group], "another") == 1


@pytest.mark.parametrize("lose", [lose_all_manifests, lose_the_latest_manifest])
def test_scores_are_published_again_where_their_manifest_is_lost(
    chain: Chain, lose: Callable[[Chain], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(chain)
    scored = []
    monkeypatch.setattr(score, "run_shards", lambda *at, **_: scored.extend(at[2]))
    make(chain, "reports")
    assert not scored
    assert scores_are_live(chain)
    assert make(chain, "reports") is None


def test_scores_that_others_took_the_place_of_are_not_made_again(chain: Chain) -> None:
    """Of the same rows, cut into other shards; a small file is one shard either way."""
    table, groups = ScoreTable(chain.root), list(row_groups(chain))
    longest = max(group.stop - group.start for group in groups)
    others = []
    for group in groups:
        if group.stop - group.start == longest:
            others.append(replace(group, stop=group.stop - 1))
            table.write(others[-1], SCORE_SCHEMA.empty_table(), {"rejected": 1, "rejections": []})
        else:
            others.append(group)
    table.publish(others, chain.series)
    before = list(table.live())
    assert make(chain, "reports") is None
    assert list(table.live()) == before


def test_of_another_sae_only_what_needs_it_counts(chain: Chain) -> None:
    """What no SAE decides, all chains on the corpus share."""
    settings = replace(chain.settings, sae=replace(chain.settings.sae, seed=1))
    other = Chain(settings)
    table = ScoreTable(chain.root)
    shared = [group for group in row_groups(other) if table.mark(group)]
    assert {group.scorer for group in shared} == {"random"}
    assert not scores_were_published(other)
    assert scores_were_published(chain)


def test_an_altered_sae_is_not_scored_with(chain: Chain) -> None:
    shutil.rmtree(path_of(chain.root) / "scores")
    shutil.rmtree(path_of(chain.subset.directory))
    weights = path_of(chain.sae.directory) / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"sae_weights.safetensors is damaged"):
        make(chain, "subsets")


def test_what_was_collected_is_not_made_again(chain: Chain) -> None:
    shutil.rmtree(path_of(chain.root) / "scores")
    shutil.rmtree(path_of(chain.weights.directory))
    assert make(chain, "reports") is None
    assert not (path_of(chain.root) / "scores").exists()
