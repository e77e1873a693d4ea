from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.corpora import CorpusFile, CorpusFiles, CorpusSnapshot

FILES = st.lists(
    st.builds(
        lambda name, *values: CorpusFile(f"/root/{name}", name, *values),
        st.text(st.characters(codec="utf-8"), min_size=1),
        st.integers(0, 2**62),
        st.text(st.characters(codec="ascii"), max_size=64),
        st.integers(0, 2**40),
        st.integers(0, 2**62),
        st.integers(0, 2**62),
        st.sampled_from([b"", b"", b"12345678"]),
    )
)


def columns_of(files: list[CorpusFile], root: str = "/root") -> CorpusFiles:
    return CorpusFiles.of(
        root,
        [file.name for file in files],
        [file.size for file in files],
        [file.fingerprint for file in files],
        [file.rows for file in files],
        mtimes_ns=[file.mtime_ns for file in files],
        ctimes_ns=[file.ctime_ns for file in files],
        places=[file.places for file in files],
    )


@given(FILES, st.slices(10))
def test_columns_hold_what_a_list_holds(files: list[CorpusFile], part: slice) -> None:
    columns = columns_of(files)
    assert list(columns) == files
    assert [file.mtime_ns for file in columns] == [file.mtime_ns for file in files]
    assert [file.ctime_ns for file in columns] == [file.ctime_ns for file in files]
    places = [file.places for file in files]
    assert [file.places for file in columns] == places
    assert [columns[index].places for index in range(len(files))] == places
    assert [file.places for file in pickle.loads(pickle.dumps(columns))[part]] == places[part]
    assert len(columns) == len(files)
    assert [columns[index] for index in range(-len(files), len(files))] == files + files
    assert list(columns[part]) == files[part]
    assert pickle.loads(pickle.dumps(columns)) == columns
    assert [columns.fingerprint(i) for i in range(len(files))] == [f.fingerprint for f in files]
    assert columns.rows_n.tolist() == [file.rows for file in files]
    assert [row["name"] for row in columns.to_json()] == [file.name for file in files]


def test_an_index_outside_is_an_error() -> None:
    with pytest.raises(IndexError):
        columns_of([])[0]


def test_the_root_counts_for_uris_only() -> None:
    file = CorpusFile("/a.parquet", "a.parquet", 1, "f", 2, 0, 0)
    (local,) = columns_of([file], "/")
    (remote,) = columns_of([file], "s3://bucket/x")
    assert (local.uri, local.is_local) == ("/a.parquet", True)
    assert (remote.uri, remote.is_local) == ("s3://bucket/x/a.parquet", False)
    assert columns_of([file], "/") != columns_of([file], "/other")
    assert columns_of([file], "/").to_json() == columns_of([file], "/other").to_json()


def test_times_do_not_count() -> None:
    early, late = (CorpusFile("/a.parquet", "a.parquet", 1, "f", 2, time, time) for time in (5, 6))
    assert early == late
    assert columns_of([early], "/") == columns_of([late], "/")
    assert columns_of([early], "/").to_json() == columns_of([late], "/").to_json()
    assert not {"mtime_ns", "ctime_ns"} & columns_of([early], "/").to_json()[0].keys()


def test_a_snapshot_of_many_files_pickles_small() -> None:
    count = 100_000
    names = [f"train-{number:05}-of-{count}.parquet" for number in range(count)]
    times = [10**18 + number for number in range(count)]
    fingerprints = ["ab" * 32] * count
    files = CorpusFiles.of(
        "/data",
        names,
        range(count),
        fingerprints,
        [3] * count,
        mtimes_ns=times,
        ctimes_ns=times,
        places=[b""] * len(times),
    )
    snapshot = CorpusSnapshot("x", files)
    assert snapshot.rows == 3 * count
    assert snapshot.locate(3 * count - 1) == (count - 1, 2)
    pickled = pickle.dumps(snapshot)
    assert len(pickled) < 13 * 2**20
    copy = pickle.loads(pickled)
    assert copy == snapshot
    assert np.array_equal(copy.files.rows_n, files.rows_n)
