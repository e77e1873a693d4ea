from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.corpora.columns import ColumnMap
from raysae.corpora.json_types import JsonColumns
from raysae.errors import DataError
from raysae.sample import ImagePart, Rejection, Sample, TextPart
from tests.corpora.mapped_rows import ASKED, IMAGE, OTHER, encoded, read, read_table, said

MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "Human", "tool", None, 1, []]),
            "from": st.sampled_from(["human", "gpt", None]),
            "content": st.sampled_from(
                [
                    "What?",
                    "A.",
                    "",
                    "<image>",
                    None,
                    3,
                    [{"type": "image"}, {"type": "text", "text": "What?"}],
                    ['{"type": "image"}'],
                    [None],
                    [{"type": "text"}],
                    {"type": "text"},
                ]
            ),
            "value": st.sampled_from(["What?", "A.", None, "<image>\nWhat?"]),
        },
    ),
    max_size=3,
)
SCALARS = st.sampled_from(
    ["What?", "A.", "B.", "", " ", "1", "2", 0, 1, 2, 3, 1.0, 2.5, True, "null", "<image> What?"]
)
PICTURED = st.sampled_from(
    [
        encoded(IMAGE),
        f"data:image/jpeg;base64,{encoded(IMAGE)}",
        [encoded(IMAGE), encoded(OTHER)],
        {"bytes": encoded(OTHER), "path": None},
        {"bytes": None, "path": "x.jpg"},
        {"bytes": list(IMAGE)},
        [{"bytes": encoded(IMAGE), "path": None}, None],
        encoded(IMAGE[:100]),
        encoded(b"abc"),
        "x.jpg",
        [],
        {},
        [[]],
        [256],
        "data:,",
    ]
)
BAD = st.one_of(st.none(), SCALARS, MESSAGES, MESSAGES.map(str), PICTURED)


def mostly(*good: Any) -> st.SearchStrategy[Any]:
    """Draw good values as a rule, else any."""
    return st.integers(0, 9).flatmap(lambda n: BAD if n == 0 else st.sampled_from(good))


ROW = st.fixed_dictionaries(
    {
        "q": mostly("What?", ASKED, ASKED[0], str(ASKED), [*said("Hm?"), *ASKED]),
        "i": mostly(encoded(IMAGE), [encoded(IMAGE)], {"bytes": encoded(OTHER), "path": "x"}),
        "c": mostly("A.", said("A."), said("B.")[0], [*ASKED, *said("C.")]),
        "r": mostly("D.", said("D."), [*ASKED, *said("E.")]),
        "p": mostly(1, 2, "1"),
        "n": mostly(1, "x", None),
        "m": st.fixed_dictionaries({"q": mostly("What?", "Who?")}) | BAD,
    }
)
NAME = st.sampled_from("qicrpn")


def column(right: str) -> st.SearchStrategy[str]:
    """Draw the right column as a rule, else any."""
    return st.integers(0, 9).flatmap(lambda n: NAME if n == 0 else st.just(right))


QUESTION = st.one_of(column("q"), column("m.q"))
COMMON = {"id": column("n") | st.just(""), "without_image": st.booleans()}
IMAGED = {"image": column("i") | st.just(""), **COMMON}
PAIRED = {"chosen": column("c"), "rejected": column("r") | st.just("")}
TOLD = {"preference": column("p")}
MAPS = st.one_of(
    st.builds(ColumnMap, question=QUESTION, **IMAGED),
    st.builds(ColumnMap, **PAIRED, **IMAGED),
    st.builds(ColumnMap, question=QUESTION, **PAIRED, **IMAGED),
    st.builds(
        ColumnMap,
        question=QUESTION,
        response_1=column("c"),
        response_2=column("r"),
        **TOLD,
        **IMAGED,
    ),
    st.builds(
        ColumnMap, question=QUESTION, image_1=column("i"), image_2=column("i"), **TOLD, **COMMON
    ),
)


@settings(max_examples=300)
@given(MAPS, st.lists(ROW, min_size=1, max_size=4))
def test_any_row_is_a_sample_or_a_rejection(map_: ColumnMap, rows: list[dict[str, Any]]) -> None:
    map_.check("columns")
    items = read(map_, *rows)
    assert len(items) == len(rows)
    for item in items:
        if isinstance(item, Rejection):
            assert item.reason
            assert item.detail
            assert len(item.detail) < 250
        else:
            check_sound(item)


def check_sound(item: Sample) -> None:
    """Check what every sample promises."""
    shown = [
        part.index
        for message in item.messages
        for part in message.parts
        if isinstance(part, ImagePart)
    ]
    assert shown == list(range(len(item.images)))
    texts = [
        part.text
        for message in item.messages
        for part in message.parts
        if isinstance(part, TextPart)
    ]
    assert all(text.strip() for text in texts)
    assert any(message.role == "user" and message.text for message in item.messages)
    for answer in (item.chosen, item.rejected):
        assert answer is None or answer.strip()
    assert item.chosen is None or item.chosen != item.rejected
    assert item.rejected is None or item.chosen is not None


@settings(max_examples=100)
@given(MAPS, st.lists(ROW, min_size=1, max_size=4))
def test_any_row_reads_alike_however_its_columns_are_typed(
    map_: ColumnMap, rows: list[dict[str, Any]]
) -> None:
    """JSON text, or Arrow's own types where the rows' values have any."""
    columns = JsonColumns()
    for row in rows:
        columns.add(row)
    schema = columns.schema()
    arrays = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if field.metadata:
            values = [None if value is None else json.dumps(value) for value in values]
        arrays.append(pa.array(values, field.type))
    try:
        typed = read_table(pa.table(arrays, schema), map_)
    except DataError:  # a column that can hold none of it
        return
    for one, other in zip(typed, read(map_, *rows), strict=True):
        assert type(one) is type(other)
        assert one == other or isinstance(one, Rejection)
