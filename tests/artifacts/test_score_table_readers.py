"""Strangers' readers open the table in one line: files by name from the manifest."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from raysae.artifacts import ScoreTable
from tests.artifacts.scores import NONE_REJECTED, add, part, rows, unsynced

CORPUS = "my corpus/ü = [1]*?"
OTHER = "語" * 100
"""Too long for a directory's name when it is quoted: readers see the first letters and a hash."""


@pytest.fixture
def scores(tmp_path: Path) -> str:
    """Return the directory of a table with an older series, in a path that is no better."""
    table = ScoreTable(unsynced(tmp_path / "sto rage=1"))
    random = part(0, 6, corpus=CORPUS, scorer="random", lineage="r")
    table.write(random, rows(random, 0.25), NONE_REJECTED)
    add(table, part(0, 4, corpus=CORPUS), part(4, 6, corpus=CORPUS), random, score=0.5)
    table.write(part(2, 8, corpus=CORPUS), rows(part(2, 8, corpus=CORPUS), 0.75), NONE_REJECTED)
    add(table, part(2, 8, corpus=CORPUS), random, series="with another SAE")
    add(table, part(0, 3, corpus=OTHER, lineage="o"), series="another corpus")
    return str(table.directory)


@pytest.fixture
def files(scores: str) -> list[str]:
    live = pq.read_table(max(Path(scores, "manifests").glob("*.parquet")))
    newest = {}
    for corpus, published in zip(
        *(live[n].to_pylist() for n in ("corpus", "published")), strict=True
    ):
        newest[corpus] = max(published, newest.get(corpus, 0))
    rows = live.select(["corpus", "published", "path"]).to_pylist()
    return [f"{scores}/{r['path']}" for r in rows if r["published"] == newest[r["corpus"]]]


def test_the_table_says_the_same_files(scores: str, files: list[str]) -> None:
    table = ScoreTable(unsynced(Path(scores).parent))
    assert table.live_files() == files
    assert len(table.live_files(CORPUS)) == 2
    assert len(table.live_files(CORPUS, "random")) == 1
    assert len(table.live_files(scorer="l0")) == 2


def test_pyarrow(scores: str, files: list[str]) -> None:
    opened = ds.dataset(files, partitioning="hive", partition_base_dir=f"{scores}/data")
    assert opened.count_rows() == 6 + 6 + 3
    here = (ds.field("corpus") == CORPUS) & (ds.field("scorer") == "l0")
    assert opened.to_table(filter=here)["score"].to_pylist() == [0.75] * 6
    long = next(name for name in opened.to_table()["corpus"].unique().to_pylist() if "~" in name)
    assert long.startswith("語" * 16 + "~")


def test_duckdb(scores: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.execute(
            f"SET VARIABLE manifest = (SELECT max(file) FROM glob('{scores}/manifests/*.parquet'))"
        )
        connection.execute(
            f"SET VARIABLE files = (SELECT list('{scores}/' || path) FROM"
            " (FROM read_parquet(getvariable('manifest'))"
            " QUALIFY published = max(published) OVER (PARTITION BY corpus)))"
        )
        found = connection.execute(
            "SELECT corpus, scorer, count(*), avg(score) FROM read_parquet(getvariable('files'),"
            " hive_partitioning = true, hive_types_autocast = false) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    assert found[:2] == [(CORPUS, "l0", 6, 0.75), (CORPUS, "random", 6, 0.25)]
    assert found[2][2:] == (3, 0.5)


def test_polars(files: list[str]) -> None:
    polars = pytest.importorskip("polars")
    opened = polars.scan_parquet(files, hive_partitioning=True, glob=False)
    found = opened.group_by("corpus", "scorer").agg(polars.len(), polars.col("score").mean())
    rows = sorted(found.collect().rows())
    assert rows[:2] == [(CORPUS, "l0", 6, 0.75), (CORPUS, "random", 6, 0.25)]
    assert rows[2][2:] == (3, 0.5)
