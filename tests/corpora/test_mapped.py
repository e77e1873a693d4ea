from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.corpora.columns import ColumnMap
from raysae.errors import DataError, SettingsError
from raysae.sample import ImagePart, Message, Rejection, Sample, TextPart
from tests.corpora.mapped_rows import (
    ASKED,
    IMAGE,
    OTHER,
    corpus_of,
    encoded,
    read,
    read_table,
    reason,
    said,
    sample,
)

PAIR = ColumnMap(question="q", image="i", chosen="c", rejected="r")
JUDGED = ColumnMap(question="q", response_1="a", response_2="b", preference="p")
DRAWN = ColumnMap(question="q", image_1="a", image_2="b", preference="p")


# Questions and answers


@pytest.mark.parametrize("question", ["What?", ASKED, ASKED[0], str(ASKED), json.dumps(ASKED)])
@pytest.mark.parametrize("chosen", ["A.", said("A."), said("A.")[0], [*ASKED, *said("A.")]])
def test_questions_and_answers_of_every_shape(question: Any, chosen: Any) -> None:
    item = sample(replace(PAIR, image=""), {"q": question, "c": chosen, "r": said("B.")})
    assert item.messages == (Message("user", (TextPart("What?"),)),)
    assert (item.chosen, item.rejected) == ("A.", "B.")


def test_a_question_may_be_all() -> None:
    item = sample(ColumnMap(question="q"), {"q": "What?"})
    assert (item.chosen, item.rejected, item.images) == (None, None, ())


def test_a_conversation_ends_with_its_answer() -> None:
    talk = [*ASKED, *said("A."), {"role": "user", "content": "And?"}]
    item = sample(ColumnMap(question="q"), {"q": [*talk, *said("B.")]})
    assert [message.role for message in item.messages] == ["user", "assistant", "user"]
    assert (item.chosen, item.rejected) == ("B.", None)
    asked = sample(ColumnMap(question="q"), {"q": talk})
    assert asked.messages == item.messages
    assert asked.chosen is None
    assert reason(ColumnMap(question="q"), {"q": [*ASKED, *said(" ")]}) == "empty-answer"


def test_answers_may_hold_the_question() -> None:
    talk = [{"role": "system", "content": "Be brief."}, *ASKED]
    row = {"c": [*talk, *said("A.")], "r": [*talk, *said("B.")]}
    item = sample(ColumnMap(chosen="c", rejected="r"), row)
    assert [message.text for message in item.messages] == ["Be brief.", "What?"]
    assert (item.chosen, item.rejected) == ("A.", "B.")
    assert sample(ColumnMap(chosen="c", rejected="r"), {**row, "r": "B."}).rejected == "B."


@pytest.mark.parametrize(
    ("before", "same"),
    [
        ([], True),
        (ASKED, True),
        ([{"role": "user", "content": " What?\n"}], True),
        ([{"role": "user", "content": "<image>\nWhat?"}], True),
        ([{"role": "user", "content": [{"type": "text", "text": "What?"}]}], True),
        ([{"role": "system", "content": "Be brief."}, *ASKED], True),
        ([{"role": "user", "content": "Who?"}], False),
        ([{"role": "user", "content": "What? Really?"}], False),
        ([*ASKED, *ASKED], False),
        ([*ASKED, *said("A."), {"role": "user", "content": "And?"}], False),
        ([{"role": "system", "content": "What?"}], False),
    ],
)
def test_a_question_that_the_answers_repeat_is_compared(before: Any, same: bool) -> None:
    for name in ("c", "r"):
        row = {"q": "What?", "c": "A.", "r": "B."}
        row[name] = [*before, *said("C.")]
        (item,) = read(replace(PAIR, image=""), row)
        assert isinstance(item, Sample) == same
        assert same or (isinstance(item, Rejection) and item.reason == "different-questions")


def test_answers_may_repeat_the_end_of_the_question() -> None:
    talk = [*ASKED, *said("A."), {"role": "user", "content": "And?"}]
    row = {"q": talk, "c": [talk[-1], *said("B.")], "r": said("C.")}
    assert sample(replace(PAIR, image=""), row).chosen == "B."


def test_two_answers_to_different_questions() -> None:
    row = {
        "c": [*ASKED, *said("A.")],
        "r": [{"role": "user", "content": "Who?"}, *said("B.")],
    }
    assert reason(ColumnMap(chosen="c", rejected="r"), row) == "different-questions"
    row["r"] = [*ASKED, *said("B."), *ASKED, *said("B.")]
    assert reason(ColumnMap(chosen="c", rejected="r"), row) == "different-questions"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"q": None}, "empty-question"),
        ({"q": " "}, "empty-question"),
        ({"q": []}, "empty-question"),
        ({"q": "<image>"}, "empty-question"),
        ({"q": [{"role": "system", "content": "Be brief."}]}, "empty-question"),
        ({"q": [{"role": "user", "content": ""}]}, "empty-question"),
        ({"q": 7}, "wrong-type"),
        ({"q": [*ASKED, *said("A.")]}, "wrong-type"),
        ({"c": None}, "null-answer"),
        ({"r": []}, "null-answer"),
        ({"c": ""}, "empty-answer"),
        ({"r": said("\n")}, "empty-answer"),
        ({"c": "B. "}, "equal-answers"),
        ({"c": said("B.")}, "equal-answers"),
        ({"c": 1.5}, "wrong-type"),
        ({"r": True}, "wrong-type"),
    ],
)
def test_bad_texts(row: dict[str, Any], expected: str) -> None:
    good = {"q": "What?", "c": "A.", "r": "B."}
    assert reason(replace(PAIR, image=""), {**good, **row}) == expected


@pytest.mark.parametrize("value", [None, "What?", ASKED, said("A.")])
def test_answers_without_a_question(value: Any) -> None:
    expected = "null-answer" if value is None else "empty-question"
    expected = "wrong-type" if value == ASKED else expected
    assert reason(ColumnMap(chosen="c"), {"c": value}) == expected


def test_long_texts_pass() -> None:
    long = "word " * 10_000
    item = sample(replace(PAIR, image=""), {"q": long, "c": long, "r": "B."})
    assert item.chosen == long
    assert item.messages[0].text == long


# Preferences


@pytest.mark.parametrize(
    ("preference", "chosen"),
    [(1, "A."), (2, "B."), (1.0, "A."), (2.0, "B."), ("1", "A."), ("2", "B."), (" 2\n", "B.")],
)
def test_preferences(preference: Any, chosen: str) -> None:
    row = {"q": "What?", "a": "A.", "b": "B.", "p": preference}
    item = sample(JUDGED, row)
    assert item.chosen == chosen
    assert {item.chosen, item.rejected} == {"A.", "B."}


@pytest.mark.parametrize(
    "preference",
    [
        None,
        0,
        3,
        -1,
        1.5,
        float("nan"),
        True,
        False,
        "",
        "3",
        "1.0",
        "a",
        [1],
        {"p": 1},
        "x" * 10**5,
    ],
)
def test_preferences_that_tell_nothing(preference: Any) -> None:
    row = {"q": "What?", "a": "A.", "b": "B.", "p": preference}
    assert reason(JUDGED, row) == "bad-preference"


@pytest.mark.parametrize(
    "type_", [pa.int8(), pa.uint64(), pa.float32(), pa.string(), pa.large_string()]
)
def test_preferences_of_every_number_type(type_: pa.DataType) -> None:
    table = pa.table({"q": ["What?"], "a": ["A."], "b": ["B."], "p": pa.array([2]).cast(type_)})
    (item,) = read_table(table, JUDGED)
    assert isinstance(item, Sample)
    assert item.chosen == "B."


def test_the_better_of_two_images_is_shown() -> None:
    row = {"q": "A cat.", "a": encoded(IMAGE), "b": encoded(OTHER)}
    assert sample(DRAWN, {**row, "p": 1}).images == (IMAGE,)
    better = sample(DRAWN, {**row, "p": 2})
    assert better.images == (OTHER,)
    assert better.messages[0].parts == (ImagePart(0), TextPart("A cat."))
    assert reason(DRAWN, {**row, "p": 0}) == "bad-preference"
    assert reason(DRAWN, {**row, "b": None, "p": 2}) == "no-image"
    assert sample(DRAWN, {**row, "b": None, "p": 1}).images == (IMAGE,)


# Images


def test_images_go_where_the_text_says() -> None:
    row = {"q": "Is <image> like <image>?", "i": [encoded(IMAGE), encoded(OTHER)]}
    item = sample(ColumnMap(question="q", image="i"), row)
    assert item.images == (IMAGE, OTHER)
    assert item.messages[0].parts == (
        TextPart("Is"),
        ImagePart(0),
        TextPart("like"),
        ImagePart(1),
        TextPart("?"),
    )
    assert reason(ColumnMap(question="q", image="i"), {**row, "i": encoded(IMAGE)}) == (
        "image-placeholders"
    )


@pytest.mark.parametrize("nothing", [None, "", [], {"bytes": None, "path": None}, [None]])
def test_rows_without_an_image(nothing: Any) -> None:
    row = {"q": "What?", "i": nothing}
    map_ = ColumnMap(question="q", image="i")
    assert reason(map_, row) == "no-image"
    item = sample(replace(map_, without_image=True), row)
    assert (item.images, item.messages[0].parts) == ((), (TextPart("What?"),))
    told = {**row, "q": "<image>\nWhat?"}
    assert reason(replace(map_, without_image=True), told) == "image-placeholders"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x.jpg", "image-by-path"),
        ("abcd", "image-by-path"),
        ({"bytes": None, "path": "x.jpg"}, "image-by-path"),
        (encoded(IMAGE[:200]), "truncated-image"),
        (encoded(b"\x89PNG, not really"), "undecodable-image"),
        ([encoded(IMAGE), None], "no-image"),
        (7, "wrong-type"),
    ],
)
@pytest.mark.parametrize("without_image", [False, True])
def test_images_that_cannot_be_used(value: Any, expected: str, without_image: bool) -> None:
    map_ = ColumnMap(question="q", image="i", without_image=without_image)
    assert reason(map_, {"q": "What?", "i": value}) == expected


def test_all_images_of_a_row_are_checked() -> None:
    row = {"q": "What?", "i": [encoded(IMAGE), encoded(IMAGE[:200])]}
    assert reason(ColumnMap(question="q", image="i"), row) == "truncated-image"


# Ids


def test_own_ids_name_samples_and_rejections() -> None:
    map_ = ColumnMap(question="q", id="meta.n")
    rows = [{"q": q, "meta": {"n": n}} for q, n in [("a", 7), ("b", "7"), ("", "x"), ("c", " ")]]
    assert [item.sample_id for item in read(map_, *rows)] == ["7", "7", "x", "f" * 12 + "-3"]


def test_ids_of_another_type_are_named() -> None:
    map_ = ColumnMap(question="q", id="n")
    for value in (True, 1.5, [1], {"a": 1}):
        assert reason(map_, {"q": "What?", "n": value}) == "wrong-type"


# Files


def write_lines(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def opened(path: Path, map_: ColumnMap) -> Corpus:
    return open_corpus(CorpusSettings("generic", str(path), columns=map_))


def test_json_lines_of_mixed_types(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "a.jsonl",
        {"q": "What?", "p": 1, "a": "A.", "b": "B."},
        {"q": 5, "p": "2", "a": "A.", "b": "B."},
        {"q": ASKED, "p": True, "a": "A.", "b": "B."},
        {"q": ASKED, "p": "2", "a": "A.", "b": said("B.")},
        "{",
        "[]",
        {"q": "What?"},
    )
    items = list(opened(tmp_path, JUDGED).all_samples())
    assert [item.reason if isinstance(item, Rejection) else item.chosen for item in items] == [
        "A.",
        "wrong-type",
        "bad-preference",
        "B.",
        "broken-json",
        "broken-json",
        "null-answer",
    ]


def test_deep_json_is_rejected_not_fatal(tmp_path: Path) -> None:
    deep = '{"q": ' + "[" * 50 + "]" * 50 + "}"
    write_lines(tmp_path / "a.jsonl", {"q": "What?"}, deep)
    items = list(opened(tmp_path, ColumnMap(question="q")).all_samples())
    assert [type(item) for item in items] == [Sample, Rejection]


def test_a_column_of_numbers_is_named_when_opened(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"q": 1}, {"q": 2})
    with pytest.raises(DataError, match=r"a\.jsonl.*'q'.*int64.*question"):
        opened(tmp_path, ColumnMap(question="q"))


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (ColumnMap(), "columns: names no question"),
        (ColumnMap(question="q", response_1="a"), "columns: names one of two"),
    ],
)
def test_maps_are_checked_before_files_are_read(columns: ColumnMap, named: str) -> None:
    with pytest.raises(SettingsError, match=rf"^sae_corpus\.{named}"):
        open_corpus(CorpusSettings("generic", "/nowhere", columns=columns), "sae_corpus")


def test_a_column_that_only_some_files_have_is_missing(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"q": "What?", "c": "A."})
    write_lines(tmp_path / "b.jsonl", {"q": "What?"})
    with pytest.raises(DataError, match=r"b\.jsonl: there is no column 'c' for the chosen"):
        opened(tmp_path, ColumnMap(question="q", chosen="c"))


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["q", "q"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has several columns 'q'"):
        opened(tmp_path, ColumnMap(question="q"))


def test_files_may_spell_images_in_either_order(tmp_path: Path) -> None:
    one = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    other = pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())])
    for name, type_ in {"a": one, "b": other, "c": pa.struct([("bytes", pa.binary())])}.items():
        row = {"q": "What?", "i": {"bytes": IMAGE}}
        schema = pa.schema([("q", pa.string()), ("i", type_)])
        pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / f"{name}.parquet")
    items = list(opened(tmp_path, ColumnMap(question="q", image="i")).all_samples())
    assert [isinstance(item, Sample) and item.images for item in items] == [(IMAGE,)] * 3


@pytest.mark.parametrize(
    "type_",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int32(), pa.binary()),
        pa.struct([("path", pa.string_view()), ("bytes", pa.binary_view())]),
        pa.large_list(pa.struct([("bytes", pa.large_binary())])),
        pa.list_(pa.binary(), 1),
        pa.list_(pa.uint8()),
        pa.list_(pa.list_(pa.int64())),
    ],
    ids=str,
)
def test_images_of_every_arrow_type_from_parquet(tmp_path: Path, type_: pa.DataType) -> None:
    value: Any = IMAGE
    if pa.types.is_dictionary(type_):
        array = pa.array([IMAGE]).dictionary_encode()
    else:
        inner = type_.value_type if hasattr(type_, "value_type") else type_
        if pa.types.is_struct(inner):
            value = {"bytes": IMAGE}
        if "int" in str(type_):
            value = list(IMAGE)
        if hasattr(type_, "value_type") and not pa.types.is_integer(type_.value_type):
            value = [value]
        array = pa.array([value], type_)
    pq.write_table(pa.table({"q": ["What?"], "i": array}), tmp_path / "a.parquet")
    corpus = opened(tmp_path, ColumnMap(question="q", image="i"))
    (item,) = corpus.all_samples()
    assert isinstance(item, Sample), item
    assert item.images == (IMAGE,)


def test_the_map_is_part_of_what_is_hashed() -> None:
    schema = pa.schema([("q", pa.string()), ("x", pa.string())])
    one, other = (corpus_of(schema, 1, ColumnMap(question=name)) for name in "qx")
    assert one.reading() != other.reading()
    assert one.columns == ("q",)


def test_reasons_are_counted_over_a_large_corpus() -> None:
    """Every row counts once, in order, whatever is wrong with its neighbours."""
    rng = random.Random(0)
    kinds: dict[str, dict[str, Any]] = {
        "": {},
        "empty-question": {"q": None},
        "null-answer": {"c": None},
        "equal-answers": {"r": "A."},
        "wrong-type": {"q": 3},
    }
    drawn = rng.choices(list(kinds), k=500)
    good = {"q": "What?", "c": "A.", "r": "B."}
    items = read(replace(PAIR, image=""), *({**good, **kinds[kind]} for kind in drawn))
    found = [item.reason if isinstance(item, Rejection) else "" for item in items]
    assert found == drawn
    assert Counter(found) == Counter(drawn)
