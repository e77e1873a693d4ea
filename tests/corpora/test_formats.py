"""Directories of files, as people have them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.corpora.columns import ColumnMap
from raysae.corpora.formats import SUFFIXES, format_of, is_data_file
from raysae.errors import DataError
from raysae.sample import Rejection, Sample
from tests.corpora.rows import questions
from tests.corpora.tables import WRITERS, feather, ipc_file, parquet_file, stream

ROWS = pa.table({"question": ["one", "two", "three"], "n": [1, 2, 3]})
CAN_BE_EMPTY = {".jsonl": b"\n", ".ndjson": b""}


def opened(path: Path, max_rows: int = 0, files: str = "") -> Corpus:
    columns = ColumnMap(question="question", chosen="question")
    return open_corpus(CorpusSettings("generic", str(path), max_rows, files=files, columns=columns))


@pytest.mark.parametrize(
    ("name", "format_", "counts"),
    [
        ("a.parquet", "Parquet", True),
        ("a.arrow", "Arrow", True),
        ("a.feather", "Arrow", True),
        ("a.jsonl", "JSON lines", True),
        ("a.ndjson", "JSON lines", True),
        ("cache-1f.arrow", "Arrow", False),
        ("cache-1f_00000_of_00002.arrow", "Arrow", False),
        ("cache-1f.parquet", "Parquet", True),
        ("tmpl.arrow", "Arrow", True),
        ("tmp5ab2c", "Parquet", False),
        ("a.json", "Parquet", False),
        ("a.jsonl.gz", "Parquet", False),
        ("state.json", "Parquet", False),
        ("a.PARQUET", "Parquet", False),
    ],
)
def test_a_files_name_tells_its_format(name: str, format_: str, counts: bool) -> None:
    assert format_of(name) == format_of(f"/x.jsonl/{name}") == format_
    assert is_data_file(name) == counts
    assert set(WRITERS) == set(SUFFIXES)


@pytest.mark.parametrize("end", SUFFIXES)
def test_files_of_each_format_are_a_corpus(tmp_path: Path, end: str) -> None:
    for number in range(3):
        path = tmp_path / "a b" / f"{number}{end}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(WRITERS[end](ROWS.slice(number, 1)))
    for other in ("_t/x", ".x", "_x", "state.json", "dataset_dict.json", "a.csv"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).with_suffix(end if other[0] in "._" else ".json").write_bytes(b"?")
    (tmp_path / "cache-0.arrow").write_bytes(stream(ROWS))
    assert questions(opened(tmp_path)) == ["one", "two", "three"]
    assert questions(opened(tmp_path, 2)) == ["one", "two"]
    assert questions(opened(tmp_path / f"a b/1{end}")) == ["two"]
    assert questions(opened(tmp_path, files="a b/[12]*")) == ["two", "three"]


def test_what_is_left_out_of_a_directory_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "cache-1f.arrow"
    path.write_bytes(stream(ROWS))
    assert questions(opened(path)) == ["one", "two", "three"]
    with pytest.raises(DataError, match="holds no file named"):
        opened(tmp_path)


def test_several_formats_are_refused(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet", "c.jsonl", "d.arrow", "e.feather"):
        (tmp_path / name).write_bytes(WRITERS[Path(name).suffix](ROWS))
    held = r"2 of Arrow, 1 of JSON lines, 2 of Parquet"
    with pytest.raises(DataError, match=rf"^{tmp_path} holds .*several formats \({held}\); name"):
        opened(tmp_path)
    assert opened(tmp_path, files="[ab]*").snapshot.rows == 6
    assert opened(tmp_path, files="[de]*").snapshot.rows == 6
    assert opened(tmp_path / "c.jsonl").snapshot.rows == 3


@pytest.mark.parametrize("name", ["a.json", "a.jsonl.gz", "a.jsonl.zst", "a.csv"])
def test_what_is_not_read_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"question": "?"}\n')
    way_out = r"Unpack compressed JSON lines; rename \*\.json to \*\.jsonl"
    with pytest.raises(DataError, match=rf"no file named \*\.parquet, .*\*\.jsonl, .*{way_out}"):
        opened(tmp_path)
    with pytest.raises(DataError, match=rf"{name} cannot be read as Parquet .*{way_out}"):
        opened(tmp_path / name)


@pytest.mark.parametrize("end", SUFFIXES)
def test_files_without_rows_are_passed_over(tmp_path: Path, end: str) -> None:
    empty = CAN_BE_EMPTY.get(end) or WRITERS[end](ROWS.slice(0, 0))
    for name in "ac":
        (tmp_path / f"{name}{end}").write_bytes(empty)
    with pytest.raises(DataError, match="has no rows"):
        opened(tmp_path)
    (tmp_path / f"b{end}").write_bytes(WRITERS[end](ROWS))
    assert questions(opened(tmp_path)) == ["one", "two", "three"]
    assert opened(tmp_path).snapshot.file_rows == [0, 3, 0]


@pytest.mark.parametrize("end", SUFFIXES)
def test_a_file_of_no_bytes_is_damaged_or_has_no_lines(tmp_path: Path, end: str) -> None:
    (tmp_path / f"a{end}").touch()
    problem = "has no rows" if end in CAN_BE_EMPTY else rf"a\{end} cannot be read as"
    with pytest.raises(DataError, match=problem):
        opened(tmp_path)


DAMAGED = {
    "cut in a schema": (".arrow", stream(ROWS)[:60]),
    "cut in a batch": (".arrow", stream(ROWS)[:-40]),
    "cut between batches": (".arrow", stream(pa.concat_tables([ROWS, ROWS]))[:-8]),
    "cut in the end": (".arrow", stream(ROWS)[:-4]),
    "two in one": (".arrow", stream(ROWS) * 2),
    "cut file": (".arrow", ipc_file(ROWS)[:-1]),
    "cut feather": (".feather", feather(ROWS)[:-1]),
    "compressed": (".feather", b"\x1f\x8b" + bytes(100)),
    "names": (".arrow", stream(ROWS).replace(b"question", b"questio\xff")),
    "names in parquet": (".parquet", parquet_file(ROWS).replace(b"question", b"questio\xff")),
    "old feather": (".feather", b"FEA1" + bytes(100)),
    "other": (".arrow", b'{"question": "?"}\n'),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("small", [0, 2**20])
def test_damaged_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, small: int
) -> None:
    monkeypatch.setattr("raysae.corpora.contents.SMALL_FILE_BYTES", small)
    end, data = DAMAGED[case]
    (tmp_path / f"a{end}").write_bytes(WRITERS[end](ROWS))
    (tmp_path / f"b{end}").write_bytes(data)
    with pytest.raises(DataError, match=rf"b\{end} cannot be read as .*replace or remove it"):
        opened(tmp_path)


def outcomes(corpus: Corpus) -> list[str]:
    return [
        item.reason if isinstance(item, Rejection) else str(item.chosen)
        for item in corpus.all_samples()
    ]


def test_a_broken_line_is_a_rejected_row(tmp_path: Path) -> None:
    """So is the last line of a file that was cut off."""
    good, cut = b'{"question": "one"}\n', b'{"question": "two"}\n{"question": "thr'
    (tmp_path / "a.jsonl").write_bytes(good + cut)
    (tmp_path / "b.jsonl").write_bytes(good)
    (tmp_path / "c.jsonl").write_bytes(b"nothing\n")
    corpus = opened(tmp_path)
    assert outcomes(corpus) == ["one", "two", "broken-json", "one", "broken-json"]
    assert corpus.schema.names == ["question"]
    assert corpus.read(0, 1, 3).to_pylist() == [{"question": "two"}, {"question": None}]
    assert corpus.read(1, 0, 1).schema == corpus.read(2, 0, 1).schema == corpus.schema
    (rejection,) = [item for item in corpus.all_samples() if item.ordinal == 2]
    assert isinstance(rejection, Rejection)
    assert rejection.detail.startswith("the line is no JSON: Unterminated string")


def test_files_of_nothing_but_broken_lines_are_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "?"}\n', encoding="utf-16")
    with pytest.raises(DataError, match=r"a\.jsonl: no line of it is a JSON object"):
        opened(tmp_path)


def test_an_array_in_one_line_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[{"question": "?"}]\n')
    with pytest.raises(DataError, match="write one object a line"):
        opened(tmp_path)


def test_lines_without_any_key_are_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    with pytest.raises(
        DataError, match=r"a\.jsonl: there is no column 'question'.*columns are none"
    ):
        opened(tmp_path)


def test_lines_of_several_schemas_are_brought_together(tmp_path: Path) -> None:
    """Where no type is common to all, values keep their own, as JSON."""
    files = {
        "a": '{"question": "one", "n": 1, "id": 7, "m": {"x": 1}}\n',
        "b": '{"n": 0.5, "question": "two", "id": "x", "more": [1]}\nbroken\n',
        "c": '{"question": {"role": "user", "content": "3"}, "id": null, "m": {"x": "?"}}\n',
        "d": '{"question": "four", "id": 9}\n{"question": "five", "id": "z"}\n',
    }
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    corpus = open_corpus(
        CorpusSettings("generic", str(tmp_path), columns=ColumnMap(question="question", id="id"))
    )
    tables = [corpus.read(i, 0, file.rows) for i, file in enumerate(corpus.snapshot.files)]
    assert {table.schema for table in tables} == {corpus.schema}
    assert corpus.schema.names == ["question", "n", "id", "m", "more"]
    assert pa.concat_tables(tables)["n"].to_pylist() == [1.0, 0.5, None, None, None, None]
    samples = list(corpus.all_samples())
    texts = [item.messages[0].text for item in samples if isinstance(item, Sample)]
    assert texts == ["one", "two", "3", "four", "five"]
    ids = [samples[index].sample_id for index in (0, 1, 4, 5)]
    assert ids == ["7", "x", "9", "z"]
    assert isinstance(samples[2], Rejection)
    merged = pa.concat_tables(tables)["m"].to_pylist()
    assert merged == ['{"x": 1}', None, None, '{"x": "?"}', None, None]
