from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.artifacts import LiveGroup, Manifests
from raysae.artifacts import manifests as module
from raysae.artifacts.manifest_file import as_rows
from raysae.artifacts.manifests import KEPT_SERIES, republished
from raysae.errors import DataError, StorageError
from raysae.storage import Directory
from tests.artifacts.scores import Hooked, unsynced
from tests.counted_s3 import CountedS3

Range = tuple[str, int, int]


def live(lineage: str, start: int, stop: int, *series: Any, corpus: str = "c") -> LiveGroup:
    name = f"data/{corpus}/{lineage}-{start}-{stop}.parquet"
    told = (corpus, "l0", lineage, start, stop, name, stop - start, 1000, "ab" * 32)
    return LiveGroup(*told, *series)


def table(*ranges: Range) -> pa.Table:
    return as_rows([live(*one) for one in ranges])


def publish(manifests: Manifests, *ranges: Range) -> int:
    """Publish a series that has its first row group's lineage for a name."""
    return manifests.publish(table(*ranges), ranges[0][0])


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    return Manifests(unsynced(tmp_path) / "manifests")


def test_nothing_was_published_yet(manifests: Manifests) -> None:
    assert manifests.numbers() == []
    assert manifests.latest().number == 0
    assert list(manifests.latest()) == []
    assert manifests.publish(as_rows([]), "x") == 0
    assert manifests.numbers() == []


def test_manifests_are_numbered_and_know_their_parents(manifests: Manifests) -> None:
    assert [publish(manifests, (lineage, 0, 4)) for lineage in "xyz"] == [1, 2, 3]
    assert manifests.numbers() == [1, 2, 3]
    assert [manifests.read(n).parent for n in (1, 2, 3)] == [0, 1, 2]
    assert [manifests.read(n).rows for n in (1, 2, 3)] == [1, 2, 3]
    assert manifests.latest().number == 3


def test_rows_are_sorted_and_never_changed(manifests: Manifests) -> None:
    publish(manifests, ("y", 4, 8), ("x", 10, 12), ("y", 0, 4), ("x", 9, 10))
    before = manifests.directory.read_bytes("00000001.parquet")
    assert [row.path for row in manifests.latest()] == [
        "data/c/x-9-10.parquet",
        "data/c/x-10-12.parquet",
        "data/c/y-0-4.parquet",
        "data/c/y-4-8.parquet",
    ]
    publish(manifests, ("a", 0, 1))
    assert manifests.directory.read_bytes("00000001.parquet") == before


def test_what_is_live_already_makes_no_new_manifest(manifests: Manifests) -> None:
    publish(manifests, ("x", 0, 4), ("x", 4, 8))
    assert publish(manifests, ("x", 4, 8), ("x", 0, 4)) == 1
    assert manifests.publish(as_rows([]), "y") == 1
    assert manifests.numbers() == [1]


def test_a_series_is_published_whole_and_others_stay(manifests: Manifests) -> None:
    publish(manifests, ("x", 0, 4), ("x", 4, 8))
    publish(manifests, ("y", 0, 4), ("x", 4, 8))
    assert publish(manifests, ("x", 0, 8)) == 3
    assert list(manifests.latest()) == [
        live("x", 0, 8, "x", 3),
        live("x", 4, 8, "y", 2),
        live("y", 0, 4, "y", 2),
    ]
    assert manifests.latest().newest_series() == {"c": "x"}
    assert manifests.publish(as_rows([]), "x") == 4
    assert manifests.latest().newest_series() == {"c": "y"}


def test_of_many_series_of_a_corpus_the_newest_are_live(manifests: Manifests) -> None:
    manifests.publish(as_rows([live("x", 0, 4, corpus="other")]), "other")
    for number in range(KEPT_SERIES + 2):
        manifests.publish(table((f"l{number}", 0, 4)), f"s{number}")
    manifests.publish(table(("l2", 0, 4)), "s2")  # as before: it stays the oldest
    found = {(row.corpus, row.series): row.published for row in manifests.latest()}
    assert found == {("other", "other"): 1} | {
        ("c", f"s{number}"): number + 2 for number in range(2, KEPT_SERIES + 2)
    }


def test_other_files_beside_them_are_not_read(manifests: Manifests) -> None:
    publish(manifests, ("x", 0, 4))
    for name in (".tmp-00000009.parquet", "00000009.json", "9.parquet", "000000009.parquet", "a/b"):
        manifests.directory.put_bytes(name, b"")
    assert manifests.latest().number == 1


def test_the_highest_number_counts_beyond_eight_digits(manifests: Manifests) -> None:
    for number, rows in ((99_999_999, table(("x", 0, 1))), (100_000_000, table(("y", 0, 1)))):
        name = f"{number:08d}.parquet"
        manifests.directory.put_bytes(name, module.encode(rows, number, number - 1))
    assert manifests.latest().number == 100_000_000
    assert publish(manifests, ("z", 0, 1)) == 100_000_001


def test_a_run_that_was_overtaken_starts_from_the_other_ones_manifest(tmp_path: Path) -> None:
    """Another run publishes between this run's reading of the manifests and its writing."""
    backend = Hooked(tmp_path)

    def overtake(key: str) -> None:
        backend.before_create = lambda key: None
        publish(Manifests(Directory(backend)), ("other", 0, 4))

    backend.before_create = overtake
    manifests = Manifests(Directory(backend))
    assert publish(manifests, ("x", 0, 4)) == 2
    assert [row.lineage for row in manifests.latest()] == ["other", "x"]


def test_a_run_that_is_always_overtaken_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 3)
    backend = Hooked(tmp_path)
    manifests = Manifests(Directory(backend))
    monkeypatch.setattr(Hooked, "create", lambda *_: False)
    with pytest.raises(StorageError, match=r"other runs published .* 3 times"):
        publish(manifests, ("x", 0, 4))


def test_a_manifest_removed_while_it_is_opened_was_not_the_latest_any_more(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(manifests, ("x", 0, 4))
    publish(manifests, ("y", 0, 4))
    listings = iter([[1, 2, 3], [1, 2]])
    monkeypatch.setattr(Manifests, "numbers", lambda _: next(listings))
    assert manifests.latest().number == 2


def test_a_listing_that_never_comes_true_is_an_error(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manifests, "numbers", lambda _: [1])
    with pytest.raises(StorageError, match="lists manifests that are not there"):
        manifests.latest()


def test_a_damaged_manifest_is_named_and_the_one_before_it_is_found_without_it(
    manifests: Manifests,
) -> None:
    for lineage in "xy":
        publish(manifests, (lineage, 0, 4))
    manifests.directory.put_bytes("00000002.parquet", b"{")
    for use in (manifests.latest, lambda: publish(manifests, ("z", 0, 4))):
        with pytest.raises(DataError, match=r"00000002\.parquet is damaged .*; delete it"):
            use()
    manifests.directory.delete("00000002.parquet")
    assert [row.lineage for row in manifests.latest()] == ["x"]


def test_opening_takes_two_requests_and_publishing_three(counting_s3: CountedS3) -> None:
    manifests = Manifests(counting_s3.root("manifests") / "of-a-table")
    publish(manifests, ("x", 0, 4))
    counting_s3.requests.clear()
    manifests.latest()
    assert counting_s3.requests == {"LIST": 1, "GET": 1}
    counting_s3.requests.clear()
    publish(manifests, ("y", 0, 4))
    assert counting_s3.requests == {"LIST": 1, "GET": 1, "PUT": 1}


# -- what replaces what

RANGES = st.tuples(st.sampled_from("xyz"), st.integers(0, 20), st.integers(1, 6)).map(
    lambda one: (one[0], one[1], one[1] + one[2])
)


def rows_of(one: Range) -> set[tuple[str, int]]:
    return {(one[0], row) for row in range(one[1], one[2])}


def disjoint(ranges: list[Range]) -> list[Range]:
    """Keep, of ranges in order, those that share no row with one kept before."""
    kept: list[Range] = []
    for one in ranges:
        if not any(rows_of(one) & rows_of(other) for other in kept):
            kept.append(one)
    return kept


PUBLICATIONS = st.lists(st.tuples(st.sampled_from("ab"), st.lists(RANGES, max_size=6)), max_size=6)


@given(PUBLICATIONS)
def test_publishing_equals_a_dictionary_of_series(
    publications: list[tuple[str, list[Range]]],
) -> None:
    rows, kept = table(), {}
    for number, (series, ranges) in enumerate(publications, start=1):
        new = sorted(disjoint(ranges))
        rows = republished(rows, table(*new), series, number)
        if kept.get(series, (0, []))[1] != new:
            kept[series] = (number, new)
        expected = [live(*one, series, n) for series, (n, new) in kept.items() for one in new]
        assert rows.equals(as_rows(sorted(expected, key=lambda one: (one.series, *one))))


@given(st.lists(RANGES, min_size=2, max_size=8, unique=True))
def test_rows_published_twice_at_once_are_refused(ranges: list[Range]) -> None:
    if disjoint(ranges) == ranges:
        republished(table(), table(*ranges), "s", 1)
    else:
        with pytest.raises(DataError, match="hold the same rows; publish one of them"):
            republished(table(), table(*ranges), "s", 1)


def test_huge_row_numbers_do_not_overflow() -> None:
    far = 2**62
    with pytest.raises(DataError, match="hold the same rows"):
        republished(table(), table(("x", far, far + 4), ("x", far + 3, far + 9)), "s", 1)
    rows = republished(table(), table(("x", far, far + 4), ("x", far + 4, far + 9)), "s", 1)
    assert rows["stop"].to_pylist() == [far + 4, far + 9]
