from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.upkeep import checks
from raysae.upkeep.checks import Damage, checks_of, damage_of, score_checks, still_damaged
from raysae.upkeep.hashing import compare
from raysae.upkeep.inventory import look_at
from raysae.upkeep.listed import FAILURES
from tests.upkeep.builders import (
    INPUTS,
    artifact,
    row_group,
    scores_of,
    sharded,
    write_scores,
)
from tests.upkeep.helpers import DAMAGE, data_file, verified


def test_marks_and_tables_are_read_too(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    made = sharded(root, shards=4)
    made.directory.put_bytes("shard-00000.done.json", b"no mark")
    made.directory.delete("shard-00001.done.json")
    mark = made.directory.read_json("shard-00002.done.json")
    made.directory.put_json("shard-00002.done.json", {**mark, "files": mark["files"][:1]})
    mark = made.directory.read_json("shard-00003.done.json")
    made.directory.put_json("shard-00003.done.json", {**mark, "rows": mark["rows"] + 1})
    told = {one["name"]: one["problem"] for one in verified(root, capsys)[1]["damage"]}
    assert set(told) == {f"shard-0000{number}.done.json" for number in range(4)}
    assert told["shard-00001.done.json"] == "is missing"
    assert "other files" in told["shard-00002.done.json"]
    assert "other rows" in told["shard-00003.done.json"]


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


def retell(directory: Directory, name: str, **other: object) -> None:
    """Let a mark tell something else."""
    directory.put_json(name, {**directory.read_json(name), **other})


MARK_DAMAGE: dict[str, Callable[[Directory, str], object]] = {
    "is missing": lambda directory, mark: directory.delete(mark),
    "does not count": lambda directory, mark: directory.put_bytes(mark, b"{}"),
    "tells otherwise": lambda directory, mark: retell(directory, mark, rows=9),
    "tells otherwise than": lambda directory, mark: retell(
        directory,
        mark,
        files=[{**directory.read_json(mark)["files"][0], "size": 3}],
    ),
}


@pytest.mark.parametrize("problem", MARK_DAMAGE)
def test_marks_of_live_scores_are_read_too(
    root: Directory, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    """Readers of a few row groups go by their marks, and a run scores again what has none."""
    groups = [row_group(), row_group(10)]
    table = write_scores(root, *groups)
    mark = f"{groups[1].shard}.done.json"
    MARK_DAMAGE[problem](table.directory, mark)
    _, told = verified(root, capsys, repair=True)
    assert [(one["name"], one["certain"]) for one in told["damage"]] == [(mark, True)]
    assert problem in told["damage"][0]["problem"]
    assert told["files"] == 2
    assert table.missing(groups).groups == [groups[1]]
    write_scores(root, groups[1], publish=False)
    table.publish(groups, "s")
    assert verified(root, capsys)[0]


def test_scores_that_are_being_replaced_are_whole(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another machine's bits are in the marks, and not yet in a manifest."""
    table = write_scores(root, row_group())
    table.directory.delete(f"{row_group().shard}.done.json")
    table.write(row_group(), scores_of(row_group(), 0.5), {"rejected": 0, "rejections": []})
    whole, told = verified(root, capsys)
    assert (whole, told["files"]) == (True, 2)


def test_a_row_group_of_two_series_is_read_once(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scores(root, row_group(), series="one")
    write_scores(root, row_group(), row_group(10), series="two")
    whole, told = verified(root, capsys)
    assert (whole, told["files"]) == (True, 2)


@pytest.mark.parametrize("finished", [True, False])
def test_what_cannot_be_read_hides_nothing(
    root: Directory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
) -> None:
    made = sharded(root, shards=3, done=None if finished else 3)
    damaged = data_file(made.directory, 2)
    DAMAGE["is altered"](made.directory, damaged)
    mark = "shard-00001.done.json"
    read_many = Directory.read_many

    def on_a_bad_disk(self: Directory, names: Sequence[str]) -> Iterator[bytes | None]:
        if mark in names:
            raise StorageError(f"storage: {self.describe(mark)} cannot be read.")
        return read_many(self, names)

    monkeypatch.setattr(Directory, "read_many", on_a_bad_disk)
    _, told = verified(root, capsys, repair=True)
    assert {(one["name"], one["certain"]) for one in told["damage"]} == {
        (mark, False),
        (damaged, True),
    }
    assert made.directory.exists(mark)
    assert f"{made.name}/shard-00002.done.json" in told["removed"]


def test_marks_that_cannot_be_listed_are_told(
    root: Directory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded(root, done=2)
    write_scores(root, row_group())

    def denied(directory: Directory) -> None:
        raise StorageError(f"storage: {directory} cannot be listed.")

    monkeypatch.setattr(checks, "mark_names", denied)
    _, told = verified(root, capsys, repair=True)
    assert [one["name"] for one in told["damage"]] == ["the directory", "marks"]
    assert not any(one["certain"] for one in told["damage"])


def test_what_was_made_again_is_damaged_no_more(root: Directory) -> None:
    """Reading all takes hours, in which a job makes what it misses."""
    made = sharded(root)
    sae = artifact(root, "saes")
    groups = [row_group(), row_group(10)]
    table = write_scores(root, *groups, extra=INPUTS)
    DAMAGE["is altered"](made.directory, data_file(made.directory))
    DAMAGE["is missing"](sae.directory, "data.bin")
    DAMAGE["is shorter"](table.directory, next(table.live()).path)
    damage = [*damage_in(root, made.name), *damage_in(root, sae.name), *damage_in(root, "scores")]
    assert len(damage) == 3
    assert list(still_damaged(root, damage)) == damage

    for name in ("metadata.json", "data.bin"):
        sae.directory.delete(name)
    artifact(root, "saes")
    table.write(groups[0], scores_of(groups[0], 0.5), {"rejected": 0, "rejections": [], **INPUTS})
    table.publish(groups, "s")
    assert list(still_damaged(root, damage)) == damage[:1]


def damage_in(root: Directory, owner: str) -> list[Damage]:
    """What is wrong in one artifact, or in the score table."""
    kind, _, id_ = owner.partition("/")
    listed = checks_of(look_at(root, kind, id_)) if id_ else score_checks(root)
    found = [one if isinstance(one, Damage) else damage_of(compare(one)) for one in listed]
    return [one for one in found if one.problem]


def test_a_storage_that_is_out_of_reach_is_given_up(
    root: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = sharded(root, shards=12), []

    def down(self: Directory, names: Sequence[str]) -> Iterator[bytes | None]:
        asked.append(names)
        raise StorageError("storage: does not answer.")

    monkeypatch.setattr(Directory, "read_many", down)
    with pytest.raises(StorageError, match="does not answer"):
        damage_in(root, made.name)
    assert len(asked) == 1 + FAILURES
