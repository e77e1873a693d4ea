from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.artifacts import ScoreTable
from raysae.corpora import open_subset
from raysae.errors import DataError
from raysae.pipeline import make
from raysae.sample import Sample
from raysae.scoring import SelectionSettings
from raysae.stages.chain import Chain
from raysae.storage import read_json
from tests.stages.chains import contents, unfinished_files
from tests.stages.conftest import Made
from tests.storages import path_of

pytestmark = pytest.mark.ray


def ranked(chain: Chain) -> list[tuple[float, str, int]]:
    """Return (score, id, ordinal) of all samples, best first, ties by id."""
    scorer = chain.settings.select.scorer
    groups = (chain.row_group(shard, scorer) for shard in chain.shards(chain.corpus))
    rows = ScoreTable(chain.root).read(groups).to_pylist()
    scored = [(row["score"], row["sample_id"], row["ordinal"]) for row in rows]
    return sorted(scored, key=lambda row: (-row[0], row[1]))


def written(chain: Chain) -> pa.Table:
    files = sorted((path_of(chain.subset.directory) / "data").iterdir())
    return pa.concat_tables([pq.read_table(file) for file in files])


def source(chain: Chain) -> pa.Table:
    files = chain.corpus.snapshot.files
    return pa.concat_tables([chain.corpus.read(n, 0, file.rows) for n, file in enumerate(files)])


def test_the_best_half_is_kept_ties_by_id(made: Made) -> None:
    chain = made.chain
    best = ranked(chain)
    assert best[47][0] >= best[48][0]
    kept = pq.read_table(path_of(chain.subset.directory) / "kept.parquet").to_pylist()
    assert [row["ordinal"] for row in kept] == sorted(ordinal for _, _, ordinal in best[:48])
    by_rank = sorted(kept, key=lambda row: row["rank"])
    assert [(row["score"], row["sample_id"], row["ordinal"]) for row in by_rank] == best[:48]


def test_the_rows_are_the_sources_own(made: Made) -> None:
    chain = made.chain
    rows, original = written(chain), source(chain)
    kept = sorted(ordinal for _, _, ordinal in ranked(chain)[:48])
    assert rows.schema.equals(original.schema, check_metadata=True)
    assert rows.equals(original.take(pa.array(kept)))


def test_it_opens_as_a_corpus(made: Made) -> None:
    chain = made.chain
    corpus = open_subset(chain.settings.corpus, path_of(chain.subset.directory) / "data")
    samples = list(corpus.all_samples())
    assert len(samples) == 48
    assert all(isinstance(sample, Sample) for sample in samples)


def test_datasets_opens_it_and_decodes_the_images(made: Made, tmp_path: Path) -> None:
    chain = made.chain
    opened = datasets.load_dataset(
        str(path_of(chain.subset.directory) / "data"), split="train", cache_dir=str(tmp_path)
    )
    assert opened.num_rows == 48
    assert opened.column_names == chain.corpus.schema.names
    first = opened[0]
    assert first["question"] == written(chain)["question"][0].as_py()
    assert first["image"].convert("RGB").size == first["image"].size
    assert min(first["image"].size) > 1


def test_metadata_adds_up(made: Made) -> None:
    chain = made.chain
    metadata = chain.subset.metadata()
    assert (metadata["rows"], metadata["scored"], metadata["rejected"]) == (48, 96, 0)
    assert metadata["cutoff"] == ranked(chain)[47][0]
    directory = path_of(chain.subset.directory) / "data"
    assert metadata["data_files"] == sorted(f"data/{path.name}" for path in directory.iterdir())
    assert unfinished_files(path_of(chain.subset.directory)) == []


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (SelectionSettings(n=5), lambda rows: rows[:5]),
        (SelectionSettings(fraction=0.25), lambda rows: rows[:24]),
    ],
    ids=["n", "fraction"],
)
def test_another_selection_needs_no_scoring(
    made: Made, select: SelectionSettings, expected
) -> None:
    chain = Chain(replace(made.settings, select=select))
    before = contents(path_of(chain.root) / "scores")
    result = make(chain, "subsets")
    assert result is not None
    wanted = sorted(ordinal for _, _, ordinal in expected(ranked(chain)))
    kept = pq.read_table(path_of(chain.subset.directory) / "kept.parquet")["ordinal"].to_pylist()
    assert kept == wanted
    assert (result.rows, result.resumed) == (len(wanted), True)
    assert read_json(path_of(chain.subset.directory) / "metadata.json")["rows"] == len(wanted)
    assert contents(path_of(chain.root) / "scores") == before
    assert written(chain).equals(source(chain).take(pa.array(wanted)))


def test_keeping_nothing_is_an_error_and_leaves_no_subset(made: Made) -> None:
    chain = Chain(replace(made.settings, select=SelectionSettings(min_score=1e9)))
    with pytest.raises(DataError, match=r"select\.min_score = 1e\+09"):
        make(chain, "subsets")
    assert not chain.subset.is_finished()


def test_the_random_baseline_keeps_other_rows(made: Made) -> None:
    chain = Chain(replace(made.settings, select=SelectionSettings("random")))
    assert make(chain, "subsets") is not None
    kept, other = (
        set(pq.read_table(path_of(each.subset.directory) / "kept.parquet")["ordinal"].to_pylist())
        for each in (made.chain, chain)
    )
    assert len(other) == 48
    assert kept != other
