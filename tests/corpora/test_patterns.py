from __future__ import annotations

import pytest

from raysae.corpora.listing import ListedFile, Listing
from raysae.corpora.patterns import Wanted, matcher
from raysae.errors import DataError


def listing(*names: str) -> Listing:
    return Listing("/root", [ListedFile(name, 1, name.encode()) for name in names])


def names(found: Listing) -> list[str]:
    assert found.root == "/root"
    return [file.name for file in found.files]


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("train.parquet", "train*", True),
        ("train.parquet", "*", True),
        ("train.parquet", "Train*", False),
        ("data/train.parquet", "train*", False),
        ("data/train.parquet", "*", False),
        ("data/train.parquet", "*/train*", True),
        ("data/train.parquet", "data/*.parquet", True),
        ("data/new/train.parquet", "data/*", False),
        ("part-07.parquet", "part-[0-9][0-9].parquet", True),
        ("part-x7.parquet", "part-[0-9]*", False),
        ("train.parquet", "data/train*", False),
        ("größe/日本.parquet", "größe/?本*", True),
        ("a]b.parquet", "a]b*", True),
    ],
)
def test_patterns_match_directory_by_directory(name: str, pattern: str, expected: bool) -> None:
    assert matcher(pattern)(name) == expected


def test_all_files_are_meant_unless_something_is_said() -> None:
    files = listing("a.parquet", "b/c.parquet")
    assert Wanted().of(files) == files
    assert Wanted(usual=("train*",)).of(files) == files


def test_the_first_usual_pattern_with_a_file_counts() -> None:
    files = listing("data/train-0.parquet", "data/train-1.parquet", "train.parquet")
    assert names(Wanted(usual=("data/train*", "train*")).of(files)) == [
        "data/train-0.parquet",
        "data/train-1.parquet",
    ]
    assert names(Wanted(usual=("x/*", "train*")).of(files)) == ["train.parquet"]


def test_the_users_pattern_goes_before_the_usual_ones() -> None:
    files = listing("test.parquet", "train.parquet")
    assert names(Wanted("test*", ("train*",)).of(files)) == ["test.parquet"]
    with pytest.raises(DataError, match=r"^x\.files: none of 2 files in /root matches 'val\*'"):
        Wanted("val*", ("train*",), "x.files").of(files)


def test_files_of_something_else_are_not_taken_for_what_is_missing() -> None:
    wanted = Wanted("", ("a/train*",), "x.files", ("b/*", "c/*"))
    with pytest.raises(DataError, match=r"^x\.files: .*'a/train\*' \(there are b/1, d\)"):
        wanted.of(listing("b/1", "d"))
    assert names(wanted.of(listing("a/train", "b/1"))) == ["a/train"]
    assert names(wanted.of(listing("d", "e/1"))) == ["d", "e/1"]
    assert names(wanted._replace(pattern="b/*").of(listing("b/1", "d"))) == ["b/1"]
