from __future__ import annotations

import pickle
import threading
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.artifacts import SCORE_SCHEMA, RowGroup, ScoreTable, file_sha256
from raysae.errors import DataError
from raysae.storage import Directory
from tests.artifacts.scores import (
    FIRST,
    NONE_REJECTED,
    Hooked,
    add,
    data_file,
    live_groups,
    loose_files,
    part,
    path_of,
    rows,
)
from tests.counted_s3 import CountedS3


def test_what_is_written_and_published_is_read(table: ScoreTable) -> None:
    second = part(4, 6)
    add(table, FIRST, second)
    assert table.read([FIRST, second]).equals(pa.concat_tables([rows(FIRST), rows(second)]))
    assert table.read([second, FIRST]).equals(pa.concat_tables([rows(second), rows(FIRST)]))
    assert table.read([FIRST, FIRST]).num_rows == 8
    assert [one.num_rows for one in table.tables([FIRST, second])] == [4, 2]
    assert table.read([]).equals(SCORE_SCHEMA.empty_table())


def test_an_empty_table(table: ScoreTable) -> None:
    assert list(table.live()) == []
    assert table.latest().number == 0
    assert table.mark(FIRST) is None
    assert table.missing([FIRST]) == ([FIRST], [])
    assert not table.are_live([FIRST], "s")
    assert table.are_live([], "s")
    assert table.read([]).num_rows == 0
    assert table.publish([], "s") == 0


def test_a_group_without_usable_rows_is_live_too(table: ScoreTable) -> None:
    table.write(FIRST, SCORE_SCHEMA.empty_table(), NONE_REJECTED)
    table.publish([FIRST], "s")
    assert table.read([FIRST]).num_rows == 0
    assert [live.rows for live in table.live()] == [0]


def test_a_mark_says_what_was_written(table: ScoreTable) -> None:
    mark = table.write(FIRST, rows(FIRST), {"rejected": 2, "rejections": []})
    path = data_file(table, FIRST)
    assert mark == table.mark(FIRST)
    assert list(table.marks([FIRST, FIRST])) == [mark, mark]
    assert mark == {
        **asdict(FIRST),
        "rejected": 2,
        "rejections": [],
        "rows": 4,
        "files": [
            {
                "name": path.relative_to(str(table.directory)).as_posix(),
                "size": path.stat().st_size,
                "sha256": file_sha256(path),
            }
        ],
    }


def test_names_have_the_places_that_the_format_says(table: ScoreTable) -> None:
    group = part(0, 4, corpus="a/b = ü")
    add(table, group)
    (live,) = table.live()
    name = f"corpus=a%2Fb%20%3D%20%C3%BC/scorer=l0/{group.key}-{live.sha256[:16]}.parquet"
    files = {entry.key for entry in table.directory.entries()}
    assert files == {
        f"data/{name}",
        f"marks/{group.key}.done.json",
        "manifests/00000001.parquet",
    }


def test_a_marked_group_is_read_by_who_knows_it_but_live_only_in_a_manifest(
    table: ScoreTable,
) -> None:
    with pytest.raises(DataError, match=r"rows 0 to 4 of corpus by l0 .* are not complete; score"):
        table.read([FIRST])
    table.write(FIRST, rows(FIRST), NONE_REJECTED)
    assert list(table.live()) == []
    assert not table.are_live([FIRST], "s")
    assert table.read([FIRST]).equals(rows(FIRST))
    table.publish([FIRST], "s")
    assert table.are_live([FIRST], "s")


def test_columns_can_be_chosen(table: ScoreTable) -> None:
    add(table, FIRST)
    wanted = ("score", "ordinal")
    assert table.read([FIRST], wanted).equals(rows(FIRST).select(wanted))
    assert table.read([], wanted).equals(SCORE_SCHEMA.empty_table().select(wanted))


@pytest.mark.parametrize(
    "other",
    [part(0, 3), part(3, 9), part(0, 8), part(8, 9), part(0, 4, lineage="other")],
)
def test_what_a_series_was_before_is_replaced_and_stays_readable(
    table: ScoreTable, other: RowGroup
) -> None:
    add(table, FIRST, part(20, 24))
    add(table, other)
    assert live_groups(table) == [other]
    assert not table.are_live([FIRST], "s")
    assert table.are_live([other], "s")
    assert not table.are_live([other], "t")
    assert table.read([FIRST]).equals(rows(FIRST))


def test_a_reader_takes_the_newest_series(table: ScoreTable) -> None:
    """The same samples, scored with another SAE, and a part of them in a trial."""
    add(table, FIRST, part(4, 8), series="first SAE")
    other, elsewhere = part(0, 8, lineage="other SAE"), part(0, 2, corpus="another", lineage="x")
    add(table, elsewhere, series="another corpus")
    add(table, other, series="second SAE")
    assert len(live_groups(table)) == 4
    files = [data_file(table, group) for group in (elsewhere, other)]
    assert table.live_files() == [str(file) for file in files]
    add(table, FIRST, series="trial")
    assert table.live_files("corpus", "l0") == [str(data_file(table, FIRST))]
    assert table.are_live([FIRST, part(4, 8)], "first SAE")
    assert not table.are_live([FIRST], "first SAE")


def test_row_groups_that_hold_the_same_rows_are_not_published_together(table: ScoreTable) -> None:
    add(table, FIRST)
    with pytest.raises(DataError, match=r"hold the same rows; publish one of them"):
        add(table, part(4, 8), part(7, 9))
    assert live_groups(table) == [FIRST]


def test_of_scores_written_twice_the_first_ones_count(table: ScoreTable) -> None:
    first = table.write(FIRST, rows(FIRST, 0.5), {**NONE_REJECTED, "by": 1})
    assert table.write(FIRST, rows(FIRST, 0.75), {**NONE_REJECTED, "by": 2}) == first
    table.publish([FIRST], "s")
    assert table.read([FIRST])["score"].to_pylist() == [0.5] * 4
    assert len(list((table.directory / "data").entries())) == 1


def test_the_same_scores_written_twice_are_one_file(table: ScoreTable) -> None:
    whole = rows(FIRST)
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    for scores in (whole, pieces.replace_schema_metadata({"from": "elsewhere"})):
        table.write(FIRST, scores, NONE_REJECTED)
    assert len(list((table.directory / "data").entries())) == 1


def test_lost_scores_are_missing_until_they_are_written_again(table: ScoreTable) -> None:
    second = part(4, 8)
    add(table, FIRST, second, score=0.5)
    lost = data_file(table, FIRST)
    lost.unlink()
    assert table.missing([second, FIRST]) == ([FIRST], [f"l0: {lost} is missing"])
    assert not table.are_live([FIRST, second], "s")
    add(table, FIRST, second, score=0.75)
    assert table.read([FIRST, second])["score"].to_pylist() == [0.75] * 4 + [0.5] * 4
    assert table.are_live([FIRST, second], "s")
    assert table.latest().number == 2


@pytest.mark.parametrize("other", [{"lineage": "another"}, {"files": []}])
def test_a_mark_that_is_not_the_row_groups_is_replaced(
    table: ScoreTable, other: dict[str, object]
) -> None:
    add(table, FIRST, score=0.5)
    name = f"{FIRST.shard}.done.json"
    table.directory.put_json(name, {**table.directory.read_json(name), **other})
    assert table.missing([FIRST]).groups == [FIRST]
    add(table, FIRST, score=0.75)
    assert table.missing([FIRST]).groups == []
    assert table.read([FIRST])["score"].to_pylist() == [0.75] * 4


def test_publishing_what_is_live_writes_no_manifest(table: ScoreTable) -> None:
    assert add(table, FIRST, part(4, 6)) == 1
    assert table.publish([part(4, 6), FIRST, FIRST], "s") == 1
    assert table.publish([], "another") == 1
    assert table.manifests.numbers() == [1]


def test_an_incomplete_group_cannot_be_published(table: ScoreTable) -> None:
    add(table, FIRST)
    with pytest.raises(DataError, match=r"rows 4 to 6 .* are not complete"):
        table.publish([FIRST, part(4, 6)], "s")
    with pytest.raises(DataError, match=r"rows 4 to 6 .* are not complete"):
        list(table.marks([FIRST, part(4, 6)]))
    assert live_groups(table) == [FIRST]


@pytest.mark.parametrize("keep", [0, 10, -10])
def test_a_shortened_file_is_no_group_and_is_named_when_read(table: ScoreTable, keep: int) -> None:
    add(table, FIRST)
    path = data_file(table, FIRST)
    path.write_bytes(path.read_bytes()[:keep])
    assert table.mark(FIRST) is None
    with pytest.raises(DataError, match=rf"{FIRST.key}.*has [0-9,]+ bytes instead of"):
        table.read([FIRST])


def test_an_altered_file_is_named_when_read(table: ScoreTable) -> None:
    add(table, FIRST)
    path = data_file(table, FIRST)
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{FIRST.key}.* is damaged: its bytes .*; delete it and"):
        table.read([FIRST])


def test_rows_of_another_schema_are_refused(table: ScoreTable) -> None:
    nothing = pa.array([None] * 4, pa.float64())
    for wrong in (rows(FIRST).drop_columns(["score"]), rows(FIRST).set_column(2, "score", nothing)):
        with pytest.raises((pa.ArrowException, ValueError)):
            table.write(FIRST, wrong, NONE_REJECTED)
    assert table.mark(FIRST) is None
    assert list(table.directory.entries()) == []


def test_the_file_has_the_schema(table: ScoreTable) -> None:
    add(table, FIRST)
    assert pq.read_schema(data_file(table, FIRST)).equals(SCORE_SCHEMA)


def test_it_can_be_sent_to_actors(table: ScoreTable) -> None:
    add(table, FIRST)
    assert live_groups(pickle.loads(pickle.dumps(table))) == [FIRST]


def test_attempts_are_counted_beside_the_data(table: ScoreTable) -> None:
    with table.attempts("work").attempt("shard-00003") as careful:
        assert not careful
        assert path_of(table, "attempts/shard-00003.work-1").exists()
    assert list(table.directory.entries()) == []


# -- what may be removed


def test_the_files_of_a_manifest(table: ScoreTable) -> None:
    replacing, unpublished = part(0, 8), part(8, 9)
    add(table, FIRST)
    old = set(table.files_of(1))
    add(table, replacing)
    table.write(unpublished, rows(unpublished), NONE_REJECTED)
    new = set(table.files_of(2))
    assert len(old) == len(new) == 2
    assert set(table.files_of(1)) == old
    everything = {entry.key for entry in table.directory.entries()}
    assert {n for n in everything if not n.startswith("manifests/")} > old | new
    assert len(loose_files(table, 1)) == 4


def test_the_files_of_no_manifest(table: ScoreTable) -> None:
    with pytest.raises(FileNotFoundError):
        list(table.files_of(1))


# -- several runs at once


def at_once(*calls: object) -> None:
    start = threading.Barrier(len(calls))

    def run(call: object) -> None:
        start.wait()
        call()  # type: ignore[operator]

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(params=["local", "s3"])
def any_table(request: pytest.FixtureRequest) -> ScoreTable:
    name = "table" if request.param == "local" else "bucket_table"
    found: ScoreTable = request.getfixturevalue(name)
    return found


def test_publishers_at_once_lose_nothing(any_table: ScoreTable) -> None:
    groups = [part(4 * n, 4 * n + 4) for n in range(6)]
    for group in groups:
        any_table.write(group, rows(group), NONE_REJECTED)
    at_once(*(lambda one=one: any_table.publish([one], f"s{one.start:02}") for one in groups))
    assert live_groups(any_table) == groups
    assert any_table.manifests.numbers() == list(range(1, len(groups) + 1))


def test_publishers_of_one_series_at_once_leave_one_of_them(any_table: ScoreTable) -> None:
    groups = [part(n, n + 4) for n in range(4)]
    for group in groups:
        any_table.write(group, rows(group), NONE_REJECTED)
    at_once(*(lambda group=group: any_table.publish([group], "s") for group in groups))
    (left,) = live_groups(any_table)
    assert left in groups


def test_writers_of_other_bits_at_once_leave_one_file(any_table: ScoreTable) -> None:
    scores = [n / 4 for n in range(4)]
    at_once(
        *(
            lambda s=score: any_table.write(FIRST, rows(FIRST, s), {**NONE_REJECTED, "by": s})
            for score in scores
        )
    )
    mark = any_table.mark(FIRST)
    assert mark is not None
    any_table.publish([FIRST], "s")
    assert any_table.read([FIRST])["score"].to_pylist() == [mark["by"]] * 4
    assert loose_files(any_table) == set()


def test_a_job_that_cuts_otherwise_replaces_while_this_one_publishes(tmp_path: Path) -> None:
    backend = Hooked(tmp_path)
    table, other = ScoreTable(Directory(backend)), part(2, 9)
    for group in (FIRST, other):
        table.write(group, rows(group), NONE_REJECTED)

    def overtake(key: str) -> None:
        backend.before_create = lambda key: None
        table.publish([other], "s")

    backend.before_create = overtake
    assert table.publish([FIRST], "s") == 2
    assert live_groups(table) == [FIRST]


# -- a bucket is a directory


def test_the_same_files_with_the_same_bytes_on_both(
    table: ScoreTable, bucket_table: ScoreTable, counting_s3: CountedS3
) -> None:
    for one in (table, bucket_table):
        add(one, part(0, 4, corpus="a/b = ü"), part(4, 8))
        add(one, part(6, 12))
    here, there = (
        {entry.key: one.directory.read_bytes(entry.key) for entry in one.directory.entries()}
        for one in (table, bucket_table)
    )
    assert here == there
    assert len(here) == 8
    assert bucket_table.read([part(6, 12)]).equals(table.read([part(6, 12)]))
    assert loose_files(bucket_table) == set()
    assert len(loose_files(bucket_table, 1)) == 4
    assert bucket_table.live_files()[0].startswith("s3://counted/test_score_table/")
