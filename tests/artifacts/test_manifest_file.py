from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.artifacts import MANIFEST_SCHEMA, LiveGroup
from raysae.artifacts import manifest_file as module
from raysae.artifacts.manifest_file import (
    METADATA_KEY,
    as_rows,
    encode,
    latest_series,
    open_manifest,
)
from raysae.errors import DataError
from tests.artifacts.scores import FIRST


def live(number: int) -> LiveGroup:
    name = f"data/corpus=corpus/scorer=l0/{number:024x}-0123456789abcdef.parquet"
    told = ("corpus", "l0", "lineage", number, number + 1, name, 1, 2345, "ab" * 32)
    return LiveGroup(*told, "series", 7)


LIVE = [live(number) for number in range(40)]
FILE = encode(as_rows(LIVE), 7, 6)


def test_what_is_written_is_read() -> None:
    manifest = open_manifest(FILE, 7, "there")
    assert (manifest.number, manifest.parent, manifest.rows) == (7, 6, 40)
    assert list(manifest) == LIVE
    assert manifest.table().equals(as_rows(LIVE))
    assert manifest.table(["stop", "path"]).equals(as_rows(LIVE).select(["stop", "path"]))


def test_an_empty_one() -> None:
    manifest = open_manifest(encode(as_rows([]), 1, 0), 1, "there")
    assert list(manifest) == []
    assert manifest.table().equals(MANIFEST_SCHEMA.empty_table())


def test_a_row_knows_its_group_and_its_mark() -> None:
    assert live(3).group == module.RowGroup("corpus", "l0", "lineage", 3, 4)
    assert live(3).mark == f"marks/{3:024x}.done.json"


def test_many_rows_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 16)
    manifest = open_manifest(encode(as_rows(LIVE), 7, 6), 7, "there")
    assert [batch.num_rows for batch in manifest.batches()] == [16, 16, 8]
    assert list(manifest) == LIVE


def test_the_same_rows_make_the_same_bytes_however_they_came() -> None:
    pieces = pa.concat_tables([as_rows(LIVE[:3]), as_rows(LIVE[3:])])
    assert encode(pieces, 7, 6) == FILE


def test_anybody_can_read_it() -> None:
    opened = pq.read_table(pa.BufferReader(FILE))
    assert opened.schema.equals(MANIFEST_SCHEMA)
    about = json.loads(pq.read_metadata(pa.BufferReader(FILE)).metadata[METADATA_KEY])
    sha256 = about.pop("sha256")
    assert about == {"format_version": 2, "number": 7, "parent": 6}
    blank = FILE.replace(sha256.encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == sha256


def test_the_newest_series_of_each_corpus() -> None:
    told = [("a", "old", 3), ("a", "new", 4), ("b", "only", 1), ("c", "y", 2), ("c", "x", 2)]
    rows = as_rows(
        [LiveGroup(corpus, "l0", "x", 0, 1, "p", 1, 1, "", *rest) for corpus, *rest in told]
    )
    manifest = open_manifest(encode(rows, 7, 6), 7, "there")
    assert manifest.newest_series() == {"a": "new", "b": "only", "c": "y"}
    assert open_manifest(encode(as_rows([]), 1, 0), 1, "there").newest_series() == {}
    assert latest_series(rows, 1)["series"].to_pylist() == ["new", "only", "y"]
    assert latest_series(rows, 2).equals(rows)


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -100])
def test_a_shortened_one_is_named(keep: int) -> None:
    with pytest.raises(DataError, match=r"^there is damaged \(.*\); delete it, so that the mani"):
        open_manifest(FILE[:keep], 7, "there")


def test_one_under_another_name_is_damaged() -> None:
    with pytest.raises(DataError, match=r"there is damaged \(it is not what was"):
        open_manifest(FILE, 8, "there")


def test_any_other_parquet_file_is_damaged() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    with pytest.raises(DataError, match="there is damaged"):
        open_manifest(bytes(sink.getvalue()), 7, "there")


def test_one_of_a_newer_format_says_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANIFEST_VERSION", 3)
    newer = encode(as_rows(LIVE), 7, 6)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"^there is a manifest of format 3, but .* install the"):
        open_manifest(newer, 7, "there")


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_any_flipped_byte_is_found(place: int, flip: int) -> None:
    damaged = bytearray(FILE)
    damaged[place] ^= flip
    with pytest.raises(DataError, match=r"^there is"):
        open_manifest(bytes(damaged), 7, "there")


def test_first_has_the_shape_of_a_row() -> None:
    assert LiveGroup(*vars(FIRST).values(), "p", 1, 2, "s").group == FIRST  # type: ignore[call-arg]
