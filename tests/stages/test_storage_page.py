"""docs/storage.md against the code, and against a whole storage read by the page alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raysae.artifacts import MANIFEST_SCHEMA, SCORE_SCHEMA
from raysae.artifacts.shard_list import SHARD_LIST_SCHEMA
from raysae.scoring import SCORERS
from raysae.scoring.selection import KEPT_SCHEMA
from raysae.scoring.weights import WEIGHTS_SCHEMA
from raysae.stages._snapshots import SNAPSHOT_SCHEMA
from raysae.storage import FORMAT_VERSION
from tests.reference.storage_reader import page_tables, read_artifact, read_scores
from tests.stages.conftest import Made
from tests.storages import path_of

PAGE = Path(__file__).parents[2] / "docs" / "storage.md"

SCHEMAS = {
    "Shards and marks: column": SHARD_LIST_SCHEMA,
    "The snapshot: column": SNAPSHOT_SCHEMA,
    "Files with names of their own: column of a subset": KEPT_SCHEMA,
    "Files with names of their own: column of weights": WEIGHTS_SCHEMA,
    "The score table: column of a row group": SCORE_SCHEMA,
    "The score table: column of a manifest": MANIFEST_SCHEMA,
}


@pytest.mark.parametrize("table", sorted(SCHEMAS))
def test_the_pages_tables_are_the_schemas(table: str) -> None:
    def spelled(field: pa.Field) -> str:
        return (
            str(field.type)
            .replace("list<element: ", "list[")
            .replace("list<item: ", "list[")
            .replace(">", "]")
        )

    expected = [(field.name, spelled(field)) for field in SCHEMAS[table]]
    assert page_tables(PAGE)[table] == expected


def test_the_page_names_the_version() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(f"# Storage: format, version {FORMAT_VERSION}\n")
    assert f'{{"format_version": {FORMAT_VERSION}}}' in text


@pytest.mark.ray
def test_a_reader_written_from_the_page_reads_all_there_is(made: Made) -> None:
    chain, root = made.chain, path_of(made.chain.root)
    made_here = (
        *(chain.snapshot, chain.sae_snapshot, chain.activations, chain.sae),
        *(chain.weights, chain.subset, chain.report),
    )
    found = {}
    for artifact in made_here:
        directory = path_of(artifact.directory)
        read = read_artifact(directory)
        assert read is not None, directory
        found[artifact.id] = read
        there = {p.relative_to(directory).as_posix() for p in directory.rglob("*.*")}
        marks = {f"{shard}.done.json" for shard in read.marks}
        assert there == {*read.files, *marks, "spec.json", "metadata.json"}
    cache = found[chain.activations.id]
    assert sum(mark["rows"] for mark in cache.marks.values()) == cache.metadata["rows"] == 64
    assert cache.spec["inputs"]["corpus"] in found
    scores = read_scores(root, found[chain.subset.id].metadata["series"])
    ordinals = list(range(chain.corpus.snapshot.rows))
    for scorer in SCORERS:
        mine = scores.filter(pa.compute.equal(scores["scorer"], scorer))
        assert sorted(mine["ordinal"].to_pylist()) == ordinals
