from __future__ import annotations

from raysae.storage import Directory
from raysae.upkeep.score_status import score_status
from tests.upkeep.builders import row_group, write_scores


def test_score_files_that_the_latest_manifest_does_not_list(root: Directory) -> None:
    table = write_scores(root, row_group())
    write_scores(root, row_group(10), publish=False)
    table.directory.put_bytes("stray", b"12345")
    status = score_status(root)
    assert status is not None
    assert status.unlisted[0] == 2
    assert status.left == {"file that is none of scores'": (1, 5)}
    (live,) = table.live()
    table.directory.delete(live.path)
    status = score_status(root)
    assert status is not None
    assert "missing or of another size: 1 live data file, " in status.problems[0]


def test_rows_of_the_newest_series_are_counted_once(root: Directory) -> None:
    write_scores(root, row_group(), row_group(scorer="l0"), series="first SAE")
    write_scores(root, row_group(corpus="other"), series="other corpus")
    write_scores(root, row_group(lineage="n"), row_group(scorer="l0"), series="second SAE")
    status = score_status(root)
    assert status is not None
    assert (status.groups, status.rows) == (4, 40)
    assert status.by_corpus == {"corpus": {"l0": 10, "union": 10}, "other": {"union": 10}}
    assert status.problems == []


def test_a_damaged_manifest_is_a_sentence(root: Directory) -> None:
    table = write_scores(root, row_group())
    table.directory.put_bytes("manifests/00000002.parquet", b"x")
    status = score_status(root)
    assert status is not None
    assert "damaged" in status.problems[0]


def test_a_live_row_group_without_its_mark_is_told(root: Directory) -> None:
    table = write_scores(root, row_group(), row_group(10))
    table.directory.delete(f"{row_group(10).shard}.done.json")
    status = score_status(root)
    assert status is not None
    (problem,) = status.problems
    assert problem.startswith("missing: 1 mark of live data files, marks/")


def test_all_files_count_as_stored(root: Directory) -> None:
    table = write_scores(root, row_group())
    write_scores(root, row_group(10), publish=False)
    status = score_status(root)
    assert status is not None
    assert status.stored == sum(entry.size for entry in table.directory.entries())
    assert status.stored > status.bytes > 0
