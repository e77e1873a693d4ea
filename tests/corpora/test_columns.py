from __future__ import annotations

from dataclasses import fields

import pyarrow as pa
import pytest

from raysae.corpora.columns import ColumnMap, check_columns, top_level
from raysae.corpora.conform import BROKEN, json_text
from raysae.errors import DataError, SettingsError

ROLES = [field.name for field in fields(ColumnMap) if field.type == "str"]

TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
CONVERSATIONS = [
    MESSAGE,
    pa.list_(MESSAGE),
    pa.large_list(MESSAGE),
    pa.list_(pa.null()),
    pa.list_(pa.json_()),
]
PICTURES = [
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())]),
    pa.struct([("bytes", pa.binary_view())]),
    pa.struct([("bytes", pa.list_(pa.int64())), ("path", pa.null())]),
    pa.list_(pa.uint8()),
]
IMAGES = [*PICTURES, *map(pa.list_, PICTURES), *map(pa.large_list, PICTURES)]
IMAGES += [pa.list_(pa.null()), pa.list_(pa.string(), 2), pa.dictionary(pa.int32(), pa.binary())]
NUMBERS = [pa.int8(), pa.int64(), pa.uint8(), pa.dictionary(pa.int8(), pa.int64())]
ANYTHING = [pa.null(), pa.json_()]
NOTHING = [
    pa.bool_(),
    pa.timestamp("s"),
    pa.map_(pa.string(), pa.string()),
    pa.list_(pa.float32()),
    pa.struct([("path", pa.string())]),
]


def check(schema: pa.Schema, role: str, path: str) -> None:
    check_columns(schema, ColumnMap(**{role: path}), "f.parquet", "correct the names")


def fits(role: str, type_: pa.DataType) -> bool:
    try:
        check(pa.schema([("a", type_)]), role, "a")
    except DataError:
        return False
    return True


def test_a_column_of_a_wrong_type_is_named() -> None:
    with pytest.raises(DataError) as caught:
        check(pa.schema([("a", pa.bool_())]), "preference", "a")
    assert "f.parquet: the column 'a' has the type bool, which cannot hold the preference" in str(
        caught.value
    )


@pytest.mark.parametrize("role", ["question", "chosen", "rejected", "response_1", "response_2"])
def test_what_may_hold_a_conversation(role: str) -> None:
    assert all(fits(role, type_) for type_ in [*TEXTS, *CONVERSATIONS, *ANYTHING])
    for type_ in [*NUMBERS, pa.binary(), pa.list_(pa.string()), pa.bool_(), pa.float64()]:
        assert not fits(role, type_)


@pytest.mark.parametrize("role", ["image", "image_1", "image_2"])
def test_what_may_hold_images(role: str) -> None:
    assert all(fits(role, type_) for type_ in [*IMAGES, *TEXTS, *ANYTHING])
    assert not any(fits(role, type_) for type_ in [*NUMBERS, *NOTHING, MESSAGE])


def test_what_may_hold_a_preference() -> None:
    accepted = [*NUMBERS, *TEXTS, *ANYTHING, pa.float32(), pa.float64()]
    assert all(fits("preference", type_) for type_ in accepted)
    assert not any(fits("preference", type_) for type_ in [*NOTHING, *CONVERSATIONS])


def test_what_may_hold_ids() -> None:
    assert all(fits("id", type_) for type_ in [*NUMBERS, *TEXTS, *ANYTHING])
    assert not any(fits("id", type_) for type_ in [*NOTHING, *CONVERSATIONS, pa.float64()])


def test_a_column_of_json_may_hold_anything() -> None:
    schema = pa.schema([json_text("a")])
    for role in ROLES:
        check(schema, role, "a")
        check(schema, role, "a.b.c")


@pytest.mark.parametrize("path", ["b", "a.c", "a.b.c", "a.", ".a", "a.b.", "list.b", "B"])
def test_a_missing_column_is_named_with_those_that_are_there(path: str) -> None:
    inner = pa.struct([("b", pa.string())])
    schema = pa.schema([("a", inner), ("list", pa.list_(inner))])
    with pytest.raises(DataError) as caught:
        check(schema, "question", path)
    assert f"f.parquet: there is no column {path!r} for the question" in str(caught.value)
    assert str(caught.value).endswith("its columns are a, a.b, list; correct the names.")


def test_all_problems_are_named_at_once_and_what_may_be_meant() -> None:
    schema = pa.schema(
        [
            ("prompt", pa.string()),
            ("meta", pa.struct([("picture", pa.bool_())])),
            (BROKEN, pa.string()),
        ]
    )
    map_ = ColumnMap(question="promt", image="meta.picture", chosen="meta.pictures", id="zzz")
    with pytest.raises(DataError) as caught:
        check_columns(schema, map_, "f.jsonl", "mend them")
    assert str(caught.value) == (
        "f.jsonl: there is no column 'promt' for the question (is 'prompt' meant?); "
        "the column 'meta.picture' has the type bool, which cannot hold the image; "
        "there is no column 'meta.pictures' for the chosen (is 'meta.picture' meant?); "
        "there is no column 'zzz' for the id; "
        "its columns are prompt, meta, meta.picture; mend them."
    )


def test_a_message_needs_a_role_and_a_content() -> None:
    for names in (["role"], ["content"], ["from", "role"], ["q", "a"], ["value", "content"]):
        struct = pa.struct([(name, pa.string()) for name in names])
        assert not fits("question", struct)
        assert not fits("chosen", pa.list_(struct))
    assert fits("question", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())])))


def test_paths_reach_into_structs() -> None:
    inner = pa.struct([("b", pa.string()), ("json", pa.json_()), ("none", pa.null())])
    schema = pa.schema([("a", inner), ("x.y", pa.string()), ("x", inner)])
    for path in ("a.b", "x.y", "x.b", "a.json.any.thing", "a.none.any"):
        check(schema, "question", path)
    with pytest.raises(DataError, match="type struct"):
        check(schema, "image", "a")


def test_the_column_that_a_path_lies_in() -> None:
    names = {"a", "x", "x.y"}
    assert [top_level(path, names) for path in ("a", "a.b.c", "x.y", "x.z")] == [
        "a",
        "a",
        "x.y",
        "x",
    ]


def test_columns_are_named_once() -> None:
    columns = ColumnMap(question="chat", chosen="chat", image="i", id="x.y")
    assert columns.names == ["chat", "i", "x.y"]
    assert columns.roles == {"question": "chat", "image": "i", "chosen": "chat", "id": "x.y"}


def test_answers_come_in_the_order_of_the_map() -> None:
    assert ColumnMap(rejected="b", chosen="a").answers == ["a", "b"]
    assert ColumnMap(response_2="b", response_1="a").answers == ["a", "b"]
    assert ColumnMap(question="q").answers == []


@pytest.mark.parametrize(
    "columns",
    [
        ColumnMap(question="q"),
        ColumnMap(question="q", image="i", without_image=True, id="n"),
        ColumnMap(question="q", chosen="c"),
        ColumnMap(question="q", chosen="c", rejected="r"),
        ColumnMap(chosen="c"),
        ColumnMap(chosen="c", rejected="r", image="i"),
        ColumnMap(question="q", response_1="a", response_2="b", preference="p"),
        ColumnMap(question="q", image_1="a", image_2="b", preference="p"),
        ColumnMap(question="q", image_1="a", image_2="b", preference="p", chosen="c"),
        ColumnMap("q", "", "", "", "a", "b", "c", "d", "p"),
    ],
)
def test_maps_that_make_samples(columns: ColumnMap) -> None:
    columns.check("corpus.columns")


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (ColumnMap(), "names no question"),
        (ColumnMap(image="i"), "names no question"),
        (ColumnMap(rejected="r"), "names no question"),
        (ColumnMap(response_1="a", response_2="b", preference="p"), "names no question"),
        (ColumnMap(question="q", response_1="a"), "one of two"),
        (ColumnMap(question="q", response_2="a", preference="p"), "one of two"),
        (ColumnMap(question="q", image_2="a", preference="p"), "one of two"),
        (ColumnMap(question="q", response_1="a", response_2="b"), "needs preference"),
        (ColumnMap(question="q", image_1="a", image_2="b"), "needs preference"),
        (ColumnMap(question="q", chosen="c", preference="p"), "needs preference"),
        (ColumnMap("q", "", "c", "", "a", "b", "", "", "p"), "beside response_1"),
        (ColumnMap("q", "i", "", "", "", "", "a", "b", "p"), "image beside image_1"),
        (ColumnMap(question="q", rejected="r"), "rejected without chosen"),
    ],
)
def test_maps_that_make_none_are_named(columns: ColumnMap, problem: str) -> None:
    with pytest.raises(SettingsError, match=rf"^sae_corpus\.columns: .*{problem}.*\.$"):
        columns.check("sae_corpus.columns")
