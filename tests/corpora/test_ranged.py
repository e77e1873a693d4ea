from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.corpora.ranged import RangedFile

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 40)),
        st.tuples(st.just("seek"), st.integers(0, 40)),
        st.tuples(st.just("end"), st.integers(-5, 0)),
    )
)


@given(st.binary(min_size=5, max_size=30), STEPS)
def test_it_behaves_as_a_file(data: bytes, steps: list[tuple[str, int]]) -> None:
    file, twin = RangedFile(len(data), lambda a, b: data[a:b]), io.BytesIO(data)
    for step, number in steps:
        if step == "read":
            assert file.read(number) == twin.read(number)
        elif step == "seek":
            assert file.seek(number) == twin.seek(number)
        else:
            assert file.seek(number, io.SEEK_END) == twin.seek(number, io.SEEK_END)
        assert file.tell() == twin.tell()
    assert file.readable()
    assert file.seekable()
    assert file.size() == len(data)


def test_each_read_is_one_request_and_nothing_is_one_of_none() -> None:
    asked: list[tuple[int, int]] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return bytes(stop - start)

    file = RangedFile(10, fetch)
    file.read(4)
    file.read(0)
    file.read()
    file.read()
    assert asked == [(0, 4), (4, 10)]


def test_a_short_answer_is_an_error() -> None:
    with pytest.raises(OSError, match="3 bytes came instead of 10"):
        RangedFile(10, lambda *_: b"abc").read()
