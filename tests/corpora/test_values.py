from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from raysae.corpora.conform import json_text
from raysae.corpora.values import at_path, decoded, id_of, row_values, text_of
from raysae.errors import RejectedSampleError


def reason_of(error: RejectedSampleError) -> str:
    assert error.detail
    return error.reason


def typed_json(*texts: str | None) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def read(array: pa.Array, row: int = 0) -> Any:
    table = pa.table({"a": array})
    return decoded(row_values({"a": table["a"]}, row), table.schema)["a"]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["x", None], pa.string()),
        pa.array(["x", None], pa.large_string()),
        pa.array(["x", None], pa.string_view()),
        pa.array(["x", None], pa.dictionary(pa.int32(), pa.string())),
        typed_json('"x"', None),
    ],
    ids=lambda array: str(array.type),
)
def test_texts_of_every_arrow_type(array: pa.Array) -> None:
    assert read(array) == "x"
    assert read(array, 1) is None


def test_text_that_is_no_utf8() -> None:
    broken = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    with pytest.raises(RejectedSampleError) as caught:
        read(broken)
    assert reason_of(caught.value) == "undecodable-text"


@pytest.mark.parametrize(
    "array",
    [
        pa.array([2**62], pa.timestamp("s")),
        pa.array([0], pa.timestamp("s", "Nowhere/Nothing")),
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    ],
    ids=["year", "zone", "names"],
)
def test_values_that_python_lacks(array: pa.Array) -> None:
    with pytest.raises(RejectedSampleError) as caught:
        read(array)
    assert reason_of(caught.value) == "wrong-type"


def test_a_machine_without_memory_rejects_nothing() -> None:
    class Refusing:
        def __getitem__(self, row: int) -> Any:
            raise pa.ArrowMemoryError

    with pytest.raises(MemoryError):
        row_values({"a": Refusing()}, 0)  # type: ignore[dict-item]


def test_json_is_decoded_wherever_a_type_or_the_metadata_says_so() -> None:
    item = typed_json('{"type": "image"}', '"said"')
    struct = pa.StructArray.from_arrays([pa.array(["user", None]), item], names=["role", "content"])
    lists = [
        pa.ListArray.from_arrays([0, 2], struct),
        pa.LargeListArray.from_arrays([0, 2], struct),
        pa.FixedSizeListArray.from_arrays(struct, 2),
    ]
    for nested in lists:
        assert read(nested) == [
            {"role": "user", "content": {"type": "image"}},
            {"role": None, "content": "said"},
        ]
    table = pa.table([pa.array(["[1, null]", None])], pa.schema([json_text("a")]))
    assert decoded({"a": "[1, null]"}, table.schema) == {"a": [1, None]}
    assert decoded({"a": None}, table.schema) == {"a": None}


def test_json_in_plain_texts_stays_text() -> None:
    assert read(pa.array(['"x"'])) == '"x"'
    assert read(pa.array([["1"]])) == ["1"]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_json_that_is_none(text: str) -> None:
    with pytest.raises(RejectedSampleError) as caught:
        read(typed_json(text))
    assert reason_of(caught.value) == "wrong-type"


def test_paths() -> None:
    values = {"meta": {"a": {"b": 1}, "none": None}, "x.y": 2, "x": {"y": 3}, "text": "t"}
    assert at_path(values, "meta.a.b") == 1
    assert at_path(values, "x.y") == 2
    for absent in ("meta.c", "meta.none.b", "text.t", "nothing", "nothing.b"):
        assert at_path(values, absent) is None


@pytest.mark.parametrize("text", ["x", " x\n", "null", "None", "nan", "\0", "日本", "x" * 50_000])
def test_texts_are_left_as_they_are(text: str) -> None:
    assert text_of(text, "a", "empty") == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        ("", "empty"),
        (" \n\t\u00a0\u3000", "empty"),
        (1, "wrong-type"),
        (True, "wrong-type"),
        (float("nan"), "wrong-type"),
        (b"x", "wrong-type"),
        (["x"], "wrong-type"),
        ({}, "wrong-type"),
        (json.loads(r'"half \ud83d"'), "undecodable-text"),
    ],
)
def test_what_is_no_text(value: Any, reason: str) -> None:
    with pytest.raises(RejectedSampleError, match="a ") as caught:
        text_of(value, "a", "empty")
    assert reason_of(caught.value) == reason


@pytest.mark.parametrize(
    ("value", "name"),
    [("x", "x"), (" 7 ", " 7 "), (7, "7"), (0, "0"), (-1, "-1"), (None, None), (" ", None)],
)
def test_own_ids(value: Any, name: str | None) -> None:
    assert id_of(value, "id") == name


@pytest.mark.parametrize("value", [True, 1.0, [1], {"a": 1}, b"x"])
def test_what_is_no_id(value: Any) -> None:
    with pytest.raises(RejectedSampleError) as caught:
        id_of(value, "id")
    assert reason_of(caught.value) == "wrong-type"
