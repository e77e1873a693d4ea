from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.artifacts import file_sha256, read_json
from raysae.errors import DataError
from raysae.scoring import table as module
from raysae.scoring.table import SCORE_SCHEMA, RowGroup, ScoreTable

FIRST = RowGroup("corpus", "l0", "lineage", 0, 4)


def rows(group: RowGroup, score: float = 0.5) -> pa.Table:
    """One score for each row of a group."""
    described = [
        {
            "sample_id": f"{group.lineage}-{row}",
            "ordinal": row,
            "score": score,
            "text_tokens": 3,
            "image_tokens": 4,
            "features": [1, 2],
            "contributions": [0.5, 0.25],
        }
        for row in range(group.start, group.stop)
    ]
    return pa.Table.from_pylist(described, SCORE_SCHEMA)


def part(start: int, stop: int, **changes: Any) -> RowGroup:
    return replace(FIRST, start=start, stop=stop, **changes)


@pytest.fixture
def table(tmp_path: Path) -> ScoreTable:
    return ScoreTable(tmp_path)


def add(table: ScoreTable, *groups: RowGroup, score: float = 0.5) -> Path:
    for group in groups:
        table.write(group, rows(group, score), {"rejected": 0})
    return table.publish(groups)


def live_paths(table: ScoreTable) -> list[str]:
    return sorted(entry["path"] for entry in table.live())


def test_what_is_written_and_published_is_read(table: ScoreTable) -> None:
    second = part(4, 6)
    add(table, FIRST, second)
    assert table.read([FIRST, second]).equals(pa.concat_tables([rows(FIRST), rows(second)]))
    assert table.read([second]).equals(rows(second))
    assert table.read([]).equals(SCORE_SCHEMA.empty_table())


def test_an_empty_table(table: ScoreTable) -> None:
    assert table.live() == []
    assert table.mark(FIRST) is None
    assert table.read([]).num_rows == 0


def test_a_group_without_rows_is_live_too(table: ScoreTable) -> None:
    table.write(FIRST, SCORE_SCHEMA.empty_table(), {})
    table.publish([FIRST])
    assert table.read([FIRST]).num_rows == 0
    assert table.mark(FIRST)["rows"] == 0  # type: ignore[index]


def test_a_mark_says_what_was_written(table: ScoreTable) -> None:
    table.write(FIRST, rows(FIRST), {"rejected": 2})
    path = table.directory / FIRST.path
    assert table.mark(FIRST) == {
        **vars(FIRST),
        "rejected": 2,
        "path": FIRST.path,
        "rows": 4,
        "size": path.stat().st_size,
        "sha256": file_sha256(path),
    }


def test_a_marked_group_is_read_by_who_knows_it_but_live_only_in_a_manifest(
    table: ScoreTable,
) -> None:
    with pytest.raises(DataError, match="is not complete; score the corpus again"):
        table.read([FIRST])
    table.write(FIRST, rows(FIRST), {})
    assert table.live() == []
    assert table.read([FIRST]).equals(rows(FIRST))


def test_columns_can_be_chosen(table: ScoreTable) -> None:
    add(table, FIRST)
    wanted = ("score", "ordinal")
    assert table.read([FIRST], wanted).equals(rows(FIRST).select(wanted))
    assert table.read([], wanted).equals(SCORE_SCHEMA.empty_table().select(wanted))


def test_the_manifest_opens_as_a_partitioned_dataset(table: ScoreTable) -> None:
    """A stranger's reader: files by name from the manifest, corpus and scorer from the path."""
    add(table, FIRST, part(4, 6), part(0, 6, scorer="random", lineage="other"))
    (manifest,) = (table.directory / "manifests").iterdir()
    files = [str(table.directory / e["path"]) for e in read_json(manifest)["row_groups"]]
    opened = ds.dataset(
        files, partitioning="hive", partition_base_dir=str(table.directory / "data")
    )
    assert opened.count_rows() == 12
    assert opened.count_rows(ds.field("scorer") == "random") == 6


@pytest.mark.parametrize(
    "other",
    [
        part(0, 3),
        part(3, 9),
        part(1, 2),
        part(0, 8),
        part(0, 4, corpus="renamed"),
    ],
)
def test_overlapping_rows_of_the_same_lineage_are_replaced(
    table: ScoreTable, other: RowGroup
) -> None:
    beside = part(20, 24)
    add(table, FIRST, beside)
    add(table, other)
    assert live_paths(table) == sorted([other.path, beside.path])
    assert table.read([FIRST]).equals(rows(FIRST))


@pytest.mark.parametrize(
    "other", [part(4, 8), part(8, 9), part(0, 4, lineage="other"), part(0, 9, lineage="other")]
)
def test_other_rows_and_other_lineages_stay(table: ScoreTable, other: RowGroup) -> None:
    add(table, FIRST)
    add(table, other)
    assert live_paths(table) == sorted([FIRST.path, other.path])


@given(
    st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 12), st.integers(1, 6)), max_size=8)
)
@settings(max_examples=30)
def test_no_row_of_a_lineage_is_ever_live_twice(published: list[tuple[str, int, int]]) -> None:
    expected: dict[str, set[tuple[str, int]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        table = ScoreTable(Path(directory))
        for lineage, start, length in published:
            group = part(start, start + length, lineage=lineage)
            add(table, group)
            held = {(lineage, row) for row in range(start, start + length)}
            expected = {path: rows for path, rows in expected.items() if not rows & held}
            expected[group.path] = held
        seen = [(e["lineage"], row) for e in table.live() for row in range(e["start"], e["stop"])]
        assert len(seen) == len(set(seen))
        assert live_paths(table) == sorted(expected)


def test_scores_written_again_are_the_ones_that_are_read(table: ScoreTable) -> None:
    add(table, FIRST, score=0.5)
    add(table, FIRST, score=0.75)
    assert table.read([FIRST])["score"].to_pylist() == [0.75] * 4


def test_manifests_are_numbered_and_never_changed(table: ScoreTable) -> None:
    first = add(table, FIRST)
    before = first.read_bytes()
    second = add(table, part(4, 6))
    assert [first.name, second.name] == ["00000001.json", "00000002.json"]
    assert first.read_bytes() == before
    names = {path.name for path in (table.directory / "manifests").iterdir()}
    assert names == {first.name, second.name}


def test_publishing_what_is_live_writes_no_manifest(table: ScoreTable) -> None:
    first = add(table, FIRST, part(4, 6))
    assert table.publish([FIRST]) == first
    assert table.publish([]) == first
    assert len(list((table.directory / "manifests").iterdir())) == 1


def test_the_highest_number_counts_beyond_eight_digits(table: ScoreTable) -> None:
    add(table, FIRST)
    entry = table.live()
    for number in (99_999_999, 100_000_000):
        module.put_json(
            table.directory / "manifests" / f"{number:08d}.json",
            {"row_groups": entry if number == 100_000_000 else []},
        )
    assert live_paths(table) == [FIRST.path]


def test_a_run_that_was_overtaken_starts_from_the_other_ones_manifest(
    table: ScoreTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run publishes between this run's reading of the manifests and its writing."""
    other = part(4, 6)
    table.write(FIRST, rows(FIRST), {})
    create = module._create_exclusively

    def overtaken(final: Path, value: Any) -> bool:
        monkeypatch.setattr(module, "_create_exclusively", create)
        add(ScoreTable(table.directory.parent), other)
        return create(final, value)

    monkeypatch.setattr(module, "_create_exclusively", overtaken)
    assert table.publish([FIRST]).name == "00000002.json"
    assert live_paths(table) == sorted([FIRST.path, other.path])


def test_publishers_at_once_lose_nothing(table: ScoreTable) -> None:
    groups = [part(4 * n, 4 * n + 4) for n in range(8)]
    for group in groups:
        table.write(group, rows(group), {})
    start = threading.Barrier(len(groups))

    def publish(group: RowGroup) -> None:
        start.wait()
        ScoreTable(table.directory.parent).publish([group])

    threads = [threading.Thread(target=publish, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert live_paths(table) == sorted(group.path for group in groups)
    assert len(list((table.directory / "manifests").iterdir())) == len(groups)


def test_an_incomplete_group_cannot_be_published(table: ScoreTable) -> None:
    add(table, FIRST)
    with pytest.raises(DataError, match="is not complete"):
        table.publish([part(4, 6)])
    assert live_paths(table) == [FIRST.path]


def test_a_missing_file_is_no_group_and_is_named_when_read(table: ScoreTable) -> None:
    add(table, FIRST)
    (table.directory / FIRST.path).unlink()
    assert table.mark(FIRST) is None
    with pytest.raises(DataError, match=FIRST.key):
        table.read([FIRST])


@pytest.mark.parametrize("keep", [0, 10, -10])
def test_a_shortened_file_is_no_group_and_is_named_when_read(table: ScoreTable, keep: int) -> None:
    add(table, FIRST)
    path = table.directory / FIRST.path
    path.write_bytes(path.read_bytes()[:keep])
    assert table.mark(FIRST) is None
    with pytest.raises(DataError, match=FIRST.key):
        table.read([FIRST])


def test_a_damaged_file_is_named_when_read(table: ScoreTable) -> None:
    add(table, FIRST)
    path = table.directory / FIRST.path
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=rf"{FIRST.key}.*cannot be read.*delete it"):
        table.read([FIRST])


def test_a_damaged_manifest_is_named(table: ScoreTable) -> None:
    add(table, FIRST).write_text("{")
    with pytest.raises(DataError, match=r"00000001\.json is damaged"):
        table.live()


def test_rows_of_another_schema_are_refused(table: ScoreTable) -> None:
    with pytest.raises((pa.ArrowException, ValueError)):
        table.write(FIRST, rows(FIRST).drop_columns(["score"]), {})
    assert table.mark(FIRST) is None


def test_the_file_has_the_schema(table: ScoreTable) -> None:
    add(table, FIRST)
    assert pq.read_schema(table.directory / FIRST.path).equals(SCORE_SCHEMA)
