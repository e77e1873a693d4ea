from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysae.artifacts import LiveGroup, ScoreTable
from raysae.artifacts.marks import mark_name
from raysae.pipeline import make
from raysae.sample import Modality, Sample
from raysae.scoring import SCORERS, SelectionSettings
from raysae.scoring.tokens import random_score
from raysae.stages._hidden_states import Reading
from raysae.stages.chain import Chain, ShardSettings
from raysae.stages.live_scores import score_marks, scores_are_live
from raysae.stages.report import run_report
from raysae.stages.score import ScoreWorker
from raysae.stages.select import run_select
from tests.reference import scoring as reference
from tests.stages.chains import contents, unfinished_files
from tests.stages.conftest import Made
from tests.stages.recomputed import SlowChain
from tests.storages import path_of

pytestmark = pytest.mark.ray


def scores_of(chain: Chain, scorer: str) -> list[dict[str, object]]:
    groups = (chain.row_group(shard, scorer) for shard in chain.shards(chain.corpus))
    return ScoreTable(chain.root).read(groups).to_pylist()


def test_one_row_per_sample_and_scorer(made: Made) -> None:
    chain = made.chain
    expected = [(sample.ordinal, sample.sample_id) for sample in chain.corpus.all_samples()]
    assert len(expected) == 96
    for scorer in SCORERS:
        rows = scores_of(chain, scorer)
        assert [(row["ordinal"], row["sample_id"]) for row in rows] == expected


def test_scores_are_those_of_the_loops(made: Made) -> None:
    chain = made.chain
    settings = chain.settings.score
    slow = SlowChain(chain.settings.model.layer, path_of(chain.sae.directory), chain.settings.sae.k)
    weights = pq.read_table(path_of(chain.weights.directory) / "weights.parquet")[
        "weight"
    ].to_pylist()
    samples = list(chain.corpus.all_samples())
    rows = {scorer: scores_of(chain, scorer) for scorer in SCORERS}
    for ordinal in (0, 17, 40, 95):
        sample = samples[ordinal]
        assert isinstance(sample, Sample)
        tokens = slow.tokens(sample)
        expected = reference.scores(tokens, weights, settings)
        expected["random"] = random_score(sample.sample_id, settings.seed)
        got = {scorer: rows[scorer][ordinal]["score"] for scorer in SCORERS}
        assert got == pytest.approx(expected, abs=1e-4)
        row = rows["cosine-cooccurring"][ordinal]
        assert row["text_tokens"] == sum(token.modality == Modality.TEXT for token in tokens)
        assert row["image_tokens"] == sum(token.modality == Modality.IMAGE for token in tokens)
        deciding = reference.deciding(tokens, weights, settings, shared_only=True)
        assert row["features"] == deciding
        assert row["contributions"] == pytest.approx([weights[f] for f in deciding])


def test_scores_tell_samples_apart(made: Made) -> None:
    for scorer, different in (("cosine-union", 30), ("cosine-cooccurring", 30), ("random", 96)):
        assert len({row["score"] for row in scores_of(made.chain, scorer)}) >= different


def test_one_manifest_lists_all_groups_and_their_marks_count_all_rows(made: Made) -> None:
    chain = made.chain
    table = ScoreTable(chain.root)
    assert {live.group for live in table.live() if live.series == chain.series} == {
        chain.row_group(shard, scorer) for shard in chain.shards(chain.corpus) for scorer in SCORERS
    }
    assert sum(mark["rows"] for mark in score_marks(chain)) == 96
    assert unfinished_files(path_of(table.directory)) == []


def test_a_lost_row_group_is_scored_again_and_only_it(made: Made) -> None:
    chain = made.chain
    table = ScoreTable(chain.root)
    lost = chain.row_group(chain.shards(chain.corpus)[1], "l0")
    kept = table.read([lost])
    mark = table.mark(lost)
    assert mark is not None
    (path_of(table.directory) / mark["files"][0]["name"]).unlink()
    assert not scores_are_live(chain)
    before = contents(path_of(table.directory) / "data")
    result = make(chain, "scores")
    assert result is not None
    assert (result.rows, result.resumed) == (96, True)
    assert scores_are_live(chain)
    assert table.read([lost]).equals(kept)
    after = contents(path_of(table.directory) / "data")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_what_a_lost_attempt_has_finished_of_a_shard_is_not_written_again(made: Made) -> None:
    chain = made.chain
    table = ScoreTable(chain.root)
    shard = chain.shards(chain.corpus)[1]
    groups = {scorer: chain.row_group(shard, scorer) for scorer in SCORERS}
    scores = table.read(groups.values())
    for scorer in SCORERS[2:]:
        mark = table.mark(groups[scorer])
        assert mark is not None
        table.directory.remove([mark["files"][0]["name"], mark_name(groups[scorer].shard)])
    before = contents(path_of(table.directory))
    worker = ScoreWorker(
        table=table,
        groups={shard.name: groups},
        reading=Reading.of(chain.settings),
        sae=chain.sae.directory,
        weights=chain.weights.directory,
        inputs={scorer: chain.score_inputs(scorer) for scorer in SCORERS},
        score=chain.settings.score,
    )
    assert worker.finished(shard) is None
    assert worker.work(shard, list(chain.corpus.read_samples(shard)))()["rows"] == 32
    after = contents(path_of(table.directory))
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2 * len(SCORERS[2:])
    assert table.read(groups.values()).equals(scores)
    counts = worker.finished(shard)
    assert counts is not None
    assert counts["rows"] == 32


def test_a_model_that_takes_fewer_rows_has_row_groups_of_its_own(
    made: Made, tmp_path: Path
) -> None:
    here = made.chain
    lengths = [row["text_tokens"] + row["image_tokens"] for row in scores_of(here, "l0")]
    directory = shutil.copytree(here.settings.model.path, tmp_path / "shorter")
    config = json.loads((directory / "config.json").read_bytes())
    config["text_config"]["max_position_embeddings"] = sorted(lengths)[48]
    (directory / "config.json").write_text(json.dumps(config))
    model = replace(here.settings.model, path=str(directory))
    there = Chain(replace(made.settings, model=model))
    shards = there.shards(there.corpus)
    worker = ScoreWorker(
        table=ScoreTable(there.root),
        groups={shard.name: {"random": there.row_group(shard, "random")} for shard in shards},
        reading=Reading.of(there.settings),
        sae=here.sae.directory,
        weights=here.weights.directory,
        inputs={"random": there.score_inputs("random")},
        score=there.settings.score,
    )
    usable = sum(worker.work(s, list(there.corpus.read_samples(s)))()["rows"] for s in shards)
    assert 0 < usable < 96
    assert len(scores_of(there, "random")) == usable
    assert len(scores_of(here, "random")) == 96


def test_the_same_rows_cut_into_other_shards_disturb_nobody(made: Made) -> None:
    """Only `random` has a lineage in common: other shards make another cache and another SAE."""
    here = made.chain
    other = Chain(replace(made.settings, shards=ShardSettings(max_rows=48)))
    table = ScoreTable(here.root)
    rows = table.read(here.row_group(s, "random") for s in here.shards(here.corpus))
    groups = [other.row_group(shard, "random") for shard in other.shards(other.corpus)]
    assert [(group.start, group.stop) for group in groups] == [(0, 48), (48, 96)]
    for group in groups:
        table.write(group, rows.slice(group.start, 48), {"rejected": 0, "rejections": []})
    assert other.series != here.series
    table.publish(groups, other.series)
    assert [entry.rows for entry in _live_random(other, table)] == [48, 48]
    assert [entry.rows for entry in _live_random(here, table)] == [32, 32, 32]
    assert table.latest().newest_series()[here.settings.corpus.name] == other.series
    assert scores_are_live(here)
    # Should the series be live no more, a job that is under way goes on with its own row groups.
    table.publish([], here.series)
    assert not scores_are_live(here)
    by_random = Chain(replace(made.settings, select=SelectionSettings("random", n=7)))
    assert run_select(by_random).rows == 7
    run_report(by_random)
    assert by_random.report.is_finished()
    again = make(here, "scores")
    assert again is not None
    assert again.resumed
    assert scores_are_live(here)
    assert [entry.rows for entry in _live_random(here, table)] == [32, 32, 32]


def _live_random(chain: Chain, table: ScoreTable) -> list[LiveGroup]:
    """The row groups by `random` of what a chain published."""
    mine = (chain.series, "random")
    return [entry for entry in table.live() if (entry.series, entry.scorer) == mine]
