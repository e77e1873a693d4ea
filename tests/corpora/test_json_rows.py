from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.corpora import json_rows
from raysae.corpora.conform import BROKEN, is_json_text
from raysae.corpora.json_rows import (
    MAX_NESTING,
    BrokenLineError,
    bytes_to_read,
    learn_json,
    parse_line,
    read_json,
)
from raysae.corpora.learned import Contents
from raysae.corpora.ranged import RangedFile
from raysae.corpora.reading import buffered, open_local

TEXT = st.text(max_size=6)
WHOLE = st.integers(-(2**64), 2**64) | st.integers(-9, 9) | st.just(2**53 + 1)
NUMBER = st.integers(-9, 9) | st.floats(allow_nan=False)
MESSAGE = st.fixed_dictionaries({"role": TEXT}, optional={"content": TEXT, "n": WHOLE})
ANYTHING = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBER | TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=6,
)
KINDS = [
    st.none(),
    TEXT,
    st.booleans(),
    WHOLE,
    NUMBER,
    st.floats(allow_nan=False),
    WHOLE | TEXT,
    WHOLE | NUMBER,
    MESSAGE,
    st.lists(MESSAGE, max_size=3),
    st.lists(st.none() | st.lists(NUMBER, max_size=2), max_size=2),
    st.dictionaries(TEXT, TEXT, max_size=2),
    ANYTHING,
]

NO_ROWS = [
    b'{"a": 1',
    b'{"a": "cut o',
    b"[1]",
    b'"text"',
    b"5",
    b"null",
    b"nonsense",
    b"{'a': 1}",
    b'{"a": 1} {"a": 2}',
    b'{"a": 1},',
    b'{"a": "\\ud800"}',
    b'{"a": ["\\uDFFF\\uD800"]}',
    b'{"\\udc00": 1}',
    b'{"a": "\xff"}',
    b'{"a": "\xed\xa0\x80"}',
    b'{"a": "tab\there"}',
    b'{"a": ' + b"9" * 5000 + b"}",
    '{"a": 1}'.encode("utf-16"),
    '{"a": 1}'.encode("utf-16-be"),
    b"\0",
    b'{"a": ' + b"[" * 600 + b"]" * 600 + b"}",
    b'{"a": ' * 600 + b"1" + b"}" * 600,
    b'{"raysae: broken line": "x"}',
    b'{"a": ' + b"[" * 100_000,
]
BLANKS = [b"", b" ", b"\t "]
MARK = b"\xef\xbb\xbf"


@st.composite
def json_lines(draw: st.DrawFn) -> tuple[bytes, list[dict[str, Any] | None]]:
    """Draw a file, and what its lines that are not blank hold: None stands for no row."""
    columns = draw(st.dictionaries(st.sampled_from(["a", "a.b", "", "ü", "a\0b"]), st.just(0)))
    kinds = {name: st.none() | draw(st.sampled_from(KINDS)) for name in columns}
    rows: list[dict[str, Any] | None] = []
    lines = []
    for kind in draw(st.lists(st.sampled_from(["row", "row", "row", "broken", "blank"]))):
        if kind == "row":
            row = draw(st.fixed_dictionaries({}, optional=kinds))
            row = dict(draw(st.permutations(list(row.items()))))
            lines.append(json.dumps(row, ensure_ascii=draw(st.booleans())).encode())
            rows.append(row)
        elif kind == "broken":
            lines.append(draw(st.sampled_from(NO_ROWS[:-1])))
            rows.append(None)
        else:
            lines.append(draw(st.sampled_from(BLANKS)))
    # Files with a mark may have been joined.
    marks = draw(st.sampled_from([[b""], [b"", b"", MARK]]))
    lines = [draw(st.sampled_from(marks)) + line for line in lines]
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    data = end.join(lines) + draw(st.sampled_from([b"", end]))
    return data, rows


def learn(data: bytes) -> Contents:
    return learn_json(io.BytesIO(data))


def read(data: bytes, contents: Contents, rows: range, rows_at_once: int = 64) -> pa.Table:
    pieces = list(read_json(io.BytesIO(data), contents.places, rows, contents.schema, rows_at_once))
    assert all(0 < piece.num_rows <= rows_at_once for piece in pieces)
    return pa.Table.from_batches(pieces, contents.schema)


def expected(value: Any, type_: pa.DataType) -> Any:
    """Return what a column of that type must hold of a value: all of it."""
    if value is None:
        return None
    if pa.types.is_struct(type_):
        assert not value.keys() - {field.name for field in type_}
        return {field.name: expected(value.get(field.name), field.type) for field in type_}
    if pa.types.is_list(type_):
        return [expected(element, type_.value_type) for element in value]
    if pa.types.is_floating(type_):
        assert float(value) == value
        return float(value)
    return value


def check_row(found: dict[str, Any], row: dict[str, Any] | None, schema: pa.Schema) -> None:
    problem = found.pop(BROKEN, None)
    if row is None:
        assert isinstance(problem, str)
        assert set(found.values()) <= {None}
        return
    assert problem is None
    assert row.keys() <= found.keys()
    for name, value in found.items():
        field = schema.field(name)
        if is_json_text(field) and value is not None:
            assert repr(json.loads(value)) == repr(row[name])
        else:
            assert repr(value) == repr(expected(row.get(name), field.type))


@settings(max_examples=150)
@given(
    written=json_lines(),
    ends=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    rows_at_once=st.integers(1, 9),
    batch_bytes=st.sampled_from([1, 30, 2**20]),
)
def test_every_line_is_a_row_and_every_value_is_kept(
    written: tuple[bytes, list[dict[str, Any] | None]],
    ends: tuple[int, int],
    rows_at_once: int,
    batch_bytes: int,
) -> None:
    data, rows = written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "ROWS_PER_PLACE", 3)
        patch.setattr(json_rows, "MAX_BATCH_BYTES", batch_bytes)
        contents = learn(data)
        assert contents.rows == len(rows)
        assert (BROKEN in contents.schema.names) == (None in rows)
        start, stop = sorted(min(end, len(rows)) for end in ends)
        if not contents.schema.names:
            return  # Arrow does not count rows without columns; no corpus has them
        table = read(data, contents, range(start, stop), rows_at_once)
    assert table.num_rows == stop - start
    sink = io.BytesIO()
    pq.write_table(table, sink)
    assert pq.read_table(sink).to_pylist() == table.to_pylist()
    for found, row in zip(table.to_pylist(), rows[start:stop], strict=True):
        check_row(found, row, contents.schema)


@pytest.mark.parametrize("line", NO_ROWS, ids=lambda line: str(line[:25]))
def test_a_broken_line_says_why(line: bytes) -> None:
    with pytest.raises(BrokenLineError, match=r"^the line "):
        parse_line(line)


def test_any_bytes_are_rows_or_broken() -> None:
    @settings(max_examples=200)
    @given(st.binary() | st.binary().map(lambda inside: b'{"a": "' + inside + b'"}'))
    def check(data: bytes) -> None:
        contents = learn(data)
        if contents.schema.names:
            assert read(data, contents, range(contents.rows)).num_rows == contents.rows

    check()


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": 1e999}', {"a": float("inf")}),
        (b'{"a": "\\ud83d\\ude00 \\\\ud800"}', {"a": "😀 \\ud800"}),
        ('{"a": "😀\u2028\x85"}'.encode(), {"a": "😀\u2028\x85"}),
        (b'\t{"a": "\\u0000"} \r\n', {"a": "\0"}),
        (b'{"a": ' + b"9" * 4000 + b"}", {"a": int("9" * 4000)}),
    ],
)
def test_what_python_takes_for_json_is_a_row(line: bytes, row: dict[str, Any]) -> None:
    """Of equal keys the last counts, and large exponents are infinite: as everywhere."""
    assert parse_line(line) == row
    contents = learn(line)
    (found,) = read(line, contents, range(1)).to_pylist()
    check_row(found, row, contents.schema)


def test_no_number_is_a_number() -> None:
    """Python writes NaN, though JSON has none."""
    data = b'{"a": NaN}\n{"a": 1}\n'
    contents = learn(data)
    assert repr(read(data, contents, range(2))["a"].to_pylist()) == "[nan, 1.0]"


@pytest.mark.parametrize("depth", [31, 100, MAX_NESTING - 1, MAX_NESTING])
def test_deep_rows_are_read_up_to_a_limit(depth: int) -> None:
    for value in (b"[" * depth + b"]" * depth, b'{"a": ' * depth + b"1" + b"}" * depth):
        data = b'{"a": ' + value + b"}\n"
        contents = learn(data)
        (found,) = read(data, contents, range(1)).to_pylist()
        row = json.loads(data) if depth < MAX_NESTING else None
        check_row(found, row, contents.schema)


def test_many_brackets_are_not_deep() -> None:
    data = b'{"a": "' + b"[{" * 500 + b'", "b": [' + b"[]," * 500 + b"[]]}"
    contents = learn(data)
    check_row(read(data, contents, range(1)).to_pylist()[0], json.loads(data), contents.schema)


def test_long_lines_are_broken_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_LINE_BYTES", 20)
    monkeypatch.setattr(json_rows, "ROWS_PER_PLACE", 1)
    lines = [b'{"a": "%s"}' % (b"x" * n) for n in (1, 9, 10, 11, 30, 31, 50, 400, 2)]
    for end in (b"\n", b"\r\n"):
        for data in (end.join(lines), end.join(lines) + end, end.join(lines[:-1])):
            contents = learn(data)
            assert contents.rows == len(data.splitlines())
            for row in range(contents.rows):
                (found,) = read(data, contents, range(row, row + 1)).to_pylist()
                is_short = len(lines[row] + end) < 20
                check_row(found, json.loads(lines[row]) if is_short else None, contents.schema)


def test_batches_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_BATCH_BYTES", 100)
    data = b"".join(b'{"a": "%s"}\n' % (b"x" * n) for n in (10, 10, 300, 10, 95, 10))
    contents = learn(data)
    batches = list(read_json(io.BytesIO(data), contents.places, range(6), contents.schema, 64))
    assert [batch.num_rows for batch in batches] == [3, 2, 1]


@settings(max_examples=50)
@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([1, 5, 64]))
def test_a_range_takes_few_bytes(a: int, b: int, rows_per_place: int) -> None:
    """As many as lie between the places around it, in one request."""
    start, stop = sorted((a, b))
    data = b"".join(b'{"a": %d}\n' % n for n in range(300))
    asked = []

    def fetch(first: int, end: int) -> bytes:
        asked.append((first, end))
        return data[first:end]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "ROWS_PER_PLACE", rows_per_place)
        contents = learn(data)
        needed = bytes_to_read(contents.places, range(start, stop), len(data))
        source = buffered(RangedFile(len(data), fetch), max(1, needed))
        batches = list(
            read_json(source, contents.places, range(start, stop), contents.schema, 1000)
        )
    assert [n for batch in batches for n in batch["a"].to_pylist()] == list(range(start, stop))
    line = len(b'{"a": 100}\n')
    assert sum(end - first for first, end in asked) <= (stop - start + 2 * rows_per_place) * line
    assert len(asked) == (start < stop)


def test_other_content_than_was_learned_is_an_error() -> None:
    contents = learn(b'{"a": 1}\n{"a": 2}\n')
    for other in (b'{"a": "x"}\n', b'{"a": %d}\n' % 2**70, b'{"a": [1]}\n'):
        with pytest.raises(pa.ArrowInvalid, match="does not fit its type"):
            read(other * 2, contents, range(2))
    assert read(b'{"a": 1}\n', contents, range(2)).num_rows < 2


def test_learning_holds_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for number in range(2000):
            row = {"id": number, "text": "x" * 10_000, "turns": [{"role": "user", "n": number}] * 9}
            file.write(json.dumps(row) + "\n")
    with open_local(path) as source:
        tracemalloc.start()
        contents = learn_json(source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert contents.rows == 2000
    assert peak < 2**20
