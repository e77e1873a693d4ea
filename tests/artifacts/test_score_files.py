"""What many row groups cost to look up, and that looking them up in bulk says the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raysae.artifacts import RowGroup, ScoreTable, score_files, score_table
from raysae.artifacts.score_files import find_files
from tests.artifacts.scores import FIRST, NONE_REJECTED, add, data_file, part, path_of, rows
from tests.counted_s3 import CountedS3

GROUPS = [part(4 * n, 4 * n + 4, scorer=f"s{n % 2}", lineage=f"l{n % 3}") for n in range(40)]


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look up 40 row groups as ten thousand are: in pieces, and by a manifest."""
    for module in (score_files, score_table):
        monkeypatch.setattr(module, "MANY", 2)
    return


def states(table: ScoreTable, *, with_manifest: bool) -> dict[RowGroup, tuple[str, str]]:
    listed = table.latest().table() if with_manifest else None
    found = list(find_files(table.directory, GROUPS, listed))
    assert [state.group for state in found] == sorted(GROUPS, key=lambda group: group.key)
    return {s.group: (s.live.path if s.live else "", s.problem) for s in found}


@pytest.mark.usefixtures("few_are_many")
def test_pieces_are_cut_where_keys_differ() -> None:
    ordered = sorted(GROUPS, key=lambda group: group.key)
    chunks = list(score_files._chunks(ordered))
    assert [group for chunk in chunks for group in chunk] == ordered
    assert len({chunk[0].key[:1] for chunk in chunks}) == len(chunks) > 8
    assert all(len({group.key[:1] for group in chunk}) == 1 for chunk in chunks)


@pytest.mark.usefixtures("few_are_many")
def test_a_manifest_tells_the_same_as_the_marks(table: ScoreTable) -> None:
    add(table, *GROUPS[:30])
    for group in GROUPS[30:35]:
        table.write(group, rows(group), NONE_REJECTED)
    data_file(table, GROUPS[0]).unlink()
    data_file(table, GROUPS[31]).unlink()
    data_file(table, GROUPS[1]).write_bytes(b"short")
    path_of(table, f"{GROUPS[2].shard}.done.json").unlink()
    found = states(table, with_manifest=True)
    assert found == states(table, with_manifest=False)
    assert {group for group, (path, _) in found.items() if not path} == {
        *GROUPS[:3],
        GROUPS[31],
        *GROUPS[35:],
    }
    assert found[GROUPS[0]][1].endswith("is missing")
    assert "has 5 bytes instead of" in found[GROUPS[1]][1]
    assert found[GROUPS[2]] == ("", "")


@pytest.mark.usefixtures("few_are_many")
def test_what_was_lost_and_scored_to_other_bits_is_found_by_its_new_mark(table: ScoreTable) -> None:
    add(table, *GROUPS)
    data_file(table, GROUPS[0]).unlink()
    assert table.missing(GROUPS).groups == [GROUPS[0]]
    table.write(GROUPS[0], rows(GROUPS[0], 0.75), NONE_REJECTED)
    assert not table.are_live(GROUPS, "s")
    assert table.publish(GROUPS, "s") == 2
    assert table.are_live(GROUPS, "s")
    assert table.read([GROUPS[0]])["score"].to_pylist() == [0.75] * 4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is damaged"),
        (b"[]", "holds no JSON object"),
        (b"{}", "lists no files"),
        (b'{"files": []}', "does not tell which rows were used"),
        (
            b'{"files": [], "rows": 1, "rejected": 0, "rejections": []}',
            "is no mark of a row group",
        ),
        (b'{"files": [{"name": "../x", "size": 1, "sha256": ""}]}', "is no name below a storage"),
    ],
)
def test_a_damaged_mark_is_none_and_is_named(
    table: ScoreTable, content: bytes, problem: str
) -> None:
    add(table, FIRST)
    path_of(table, f"{FIRST.shard}.done.json").write_bytes(content)
    missing = table.missing([FIRST])
    assert missing.groups == [FIRST]
    assert problem in missing.problems[0]


def test_the_mark_of_another_row_group_is_none(table: ScoreTable) -> None:
    other = part(4, 8)
    add(table, FIRST, other)
    mark = path_of(table, f"{FIRST.shard}.done.json")
    mark.write_bytes(path_of(table, f"{other.shard}.done.json").read_bytes())
    missing = table.missing([FIRST, other])
    assert missing.groups == [FIRST]
    assert "is the mark of another row group; delete it" in missing.problems[0]


@pytest.mark.usefixtures("few_are_many")
def test_republishing_reads_no_mark_and_lists_each_piece_once(
    bucket_table: ScoreTable, counting_s3: CountedS3
) -> None:
    add(bucket_table, *GROUPS)
    counting_s3.requests.clear()
    assert bucket_table.publish(GROUPS, "s") == 1
    assert (
        counting_s3.requests.pop("GET") == 2
    )  # the manifest: to know the files by, and to be replaced
    looked_up = sum(counting_s3.requests.values())
    counting_s3.requests.clear()
    assert bucket_table.missing(GROUPS).groups == []
    assert counting_s3.requests.pop("GET") == 1
    assert sum(counting_s3.requests.values()) == looked_up - 1


def test_a_thousand_row_groups_take_few_requests(
    bucket_table: ScoreTable, counting_s3: CountedS3
) -> None:
    groups = [part(n, n + 1) for n in range(score_files.MANY)]
    counting_s3.requests.clear()
    assert bucket_table.missing(groups).groups == groups
    assert sum(counting_s3.requests.values()) < 10
