from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.artifacts import RowGroup
from raysae.artifacts.row_groups import hive_value, key_of_file
from raysae.storage import check_name
from tests.artifacts.scores import FIRST

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def test_the_key_is_a_hash_of_all_that_identifies_it() -> None:
    others = [
        replace(FIRST, corpus="c"),
        replace(FIRST, scorer="s"),
        replace(FIRST, lineage="l"),
        replace(FIRST, start=1),
        replace(FIRST, stop=5),
    ]
    keys = {group.key for group in [FIRST, *others]}
    assert len(keys) == 6
    assert FIRST.key == replace(FIRST).key == "eb80d3cbd1ba00a404155af5"


@given(NAMES, NAMES)
def test_every_name_makes_one_directory_that_leads_nowhere_else(corpus: str, scorer: str) -> None:
    group = RowGroup(corpus, scorer, "lineage", 0, 1)
    name = check_name(group.file_pattern)
    parts = name.split("/")
    assert len(parts) == 4
    assert all(len(part.encode()) <= 255 and part.isascii() for part in parts)
    assert key_of_file(name) == group.key


@given(NAMES)
def test_a_value_tells_the_name_unless_it_is_too_long(name: str) -> None:
    value = hive_value(name)
    assert unquote(value) == name or (len(value) <= 255 and "~" in value)


def test_long_names_that_begin_alike_differ() -> None:
    assert hive_value("語" * 80) != hive_value("語" * 81)
    assert hive_value("x" * 200) == "x" * 200


@pytest.mark.parametrize("change", [{"corpus": ""}, {"scorer": ""}, {"lineage": ""}])
def test_names_must_not_be_empty(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        replace(FIRST, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (3, 2), (-1, 2)])
def test_a_row_group_has_rows(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="needs rows"):
        replace(FIRST, start=start, stop=stop)
