from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.errors import DataError
from raysae.storage import as_number, parse_json, to_json
from raysae.storage.documents import read_json

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert json.loads(to_json({"value": value})) == {"value": value}
    assert parse_json(to_json({"value": value}), "x") == {"value": value}


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert to_json(dict(reversed(list(value.items())))) == to_json(value)


def test_numbers_that_json_lacks_are_null() -> None:
    content = {"x": math.nan, "y": [math.inf, (-math.inf, 1.5)], "z": {"w": np.float64("nan")}}
    read = parse_json(to_json(content), "x")
    assert read == {"x": None, "y": [None, [None, 1.5]], "z": {"w": None}}
    assert math.isnan(as_number(read["x"]))
    assert as_number(1.5) == 1.5


@pytest.mark.parametrize("damage", [b"", b'{"k": ', b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "spec.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"/spec\.json is damaged .*delete it and run again"):
        read_json(tmp_path / "spec.json")


@pytest.mark.parametrize("other", [b"[1]", b"null", b'"x"', b"1"])
def test_json_that_is_no_object_is_named(other: bytes) -> None:
    with pytest.raises(DataError, match=r"^some/spec\.json holds no JSON object; delete it"):
        parse_json(other, "some/spec.json")
