from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.artifacts import content_id, file_sha256
from raysae.artifacts.ids import plain
from tests.reference.artifacts import same

KEYS = st.text(max_size=3)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | KEYS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def reordered(value: Any) -> Any:
    """The same content with every dictionary's keys in the opposite order, and tuples for lists."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return tuple(reordered(item) for item in value) if isinstance(value, list) else value


@given(VALUES)
def test_neither_order_of_keys_nor_tuples_change_an_id(value: Any) -> None:
    assert content_id(reordered(value)) == content_id(value)
    assert plain(reordered(value)) == plain(value)


@given(VALUES, VALUES)
def test_ids_differ_exactly_where_content_does(one: Any, other: Any) -> None:
    assert (content_id(one) == content_id(other)) == same(one, other)


@given(VALUES, st.data())
def test_any_change_changes_the_id(value: Any, data: st.DataObject) -> None:
    changed = data.draw(changes(value))
    assert (content_id(changed) == content_id(value)) == same(changed, value)


def changes(value: Any) -> st.SearchStrategy[Any]:
    """One leaf, key or item of a value replaced, added or left out."""
    if isinstance(value, dict) and value:
        key = st.sampled_from(sorted(value))
        return st.one_of(
            key.map(lambda gone: {k: v for k, v in value.items() if k != gone}),
            key.flatmap(lambda at: changes(value[at]).map(lambda new: {**value, at: new})),
            st.tuples(KEYS, VALUES).map(lambda new: {**value, new[0]: new[1]}),
        )
    if isinstance(value, list) and value:
        at = st.integers(0, len(value) - 1)
        return st.one_of(
            at.map(lambda i: value[:i] + value[i + 1 :]),
            at.flatmap(
                lambda i: changes(value[i]).map(lambda new: [*value[:i], new, *value[i + 1 :]])
            ),
            at.map(lambda i: value[i:] + value[:i]),
            VALUES.map(lambda new: [*value, new]),
        )
    return VALUES


def test_what_looks_alike_has_ids_of_its_own() -> None:
    alike = [
        1,
        "1",
        1.0,
        True,
        [1],
        {"1": 1},
        None,
        "",
        0,
        False,
        0.0,
        -0.0,
        [],
        {},
        "null",
        "é",
        "e\u0301",
    ]
    assert len({content_id(value) for value in alike}) == len(alike)


def test_ids_do_not_change_between_versions() -> None:
    """Stored artifacts are found by them: a change here orphans all of them."""
    assert content_id({}) == "44136fa355b3678a1146ad16"
    assert content_id({"a": [1, 2.5, True, None, "ü"]}) == "d555d67d81e2d8befb6b579e"


def test_ids_have_96_bits_of_hex() -> None:
    assert len(content_id({})) == 24
    assert int(content_id({}), 16) >= 0


def test_dataclasses_count_as_what_json_makes_of_them() -> None:
    @dataclass
    class Inner:
        b: tuple[int, ...]

    @dataclass
    class Settings:
        a: int
        inner: Inner

    assert content_id(Settings(1, Inner((2, 3)))) == content_id({"inner": {"b": [2, 3]}, "a": 1})
    assert content_id({"x": [Inner((1,))]}) == content_id({"x": [{"b": [1]}]})


def test_any_mapping_is_a_dictionary() -> None:
    assert content_id(MappingProxyType({"a": 1})) == content_id({"a": 1})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_have_no_id(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        content_id({"lr": [number]})


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", Path("/a"), 1j])
def test_what_is_no_json_has_no_id(value: object) -> None:
    with pytest.raises(TypeError):
        content_id({"a": value})


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1, 2)])
def test_keys_are_text(key: object) -> None:
    with pytest.raises(TypeError, match="which is no text"):
        content_id({"a": [{key: 1}]})


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_a_files_checksum(tmp_path: Path, size: int) -> None:
    data = b"x" * size
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
