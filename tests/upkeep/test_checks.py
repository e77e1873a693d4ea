from __future__ import annotations

import pytest

from raysae.storage import Directory
from tests.upkeep.builders import row_group, sharded, write_scores
from tests.upkeep.helpers import DAMAGE, data_file, verified


def test_marks_and_tables_are_read_too(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    made = sharded(root, shards=3)
    made.directory.put_bytes("shard-00000.done.json", b"no mark")
    made.directory.delete("shard-00001.done.json")
    mark = made.directory.read_json("shard-00002.done.json")
    made.directory.put_json("shard-00002.done.json", {**mark, "files": mark["files"][:1]})
    told = {one["name"]: one["problem"] for one in verified(root, capsys)[1]["damage"]}
    assert set(told) == {f"shard-0000{number}.done.json" for number in range(3)}
    assert told["shard-00001.done.json"] == "is missing"
    assert "other files" in told["shard-00002.done.json"]


def test_a_damaged_table_of_shards_is_written_again(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sharded(root, shards=3)
    (table,) = (e.key for e in made.directory.entries() if e.key.startswith("shards-"))
    DAMAGE["is altered"](made.directory, table)
    DAMAGE["is altered"](made.directory, data_file(made.directory))
    _, told = verified(root, capsys)
    assert {(one["shard"], one["name"]) for one in told["damage"]} == {
        ("", table),
        ("shard-00000", data_file(made.directory)),
    }


def test_row_groups_that_are_not_published_are_read_too(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_scores(root, row_group(), publish=False)
    (path,) = (e.key for e in table.directory.entries() if e.key.startswith("data/"))
    DAMAGE["is altered"](table.directory, path)
    assert verified(root, capsys)[1]["damage"][0]["name"] == path


def test_a_damaged_manifest_is_told_and_kept(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_scores(root, row_group())
    table.directory.put_bytes("manifests/00000001.parquet", b"x")
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert told["removed"] == []
    assert told["files"] == 1  # by its mark
