from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.artifacts import ShardPlan
from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.corpora.align_anything import (
    CONFIGURATIONS,
    DEFAULT,
    align_anything_columns,
    align_anything_files,
    align_anything_others,
)
from raysae.corpora.patterns import matcher
from raysae.errors import DataError, SettingsError
from raysae.sample import ImagePart, Rejection, Sample, TextPart
from tests.corpora.rows import SCHEMA, image_bytes, png_claiming, row, write_rows


def opened(path: Path) -> Corpus:
    return open_corpus(CorpusSettings("align-anything", str(path)))


def everything(corpus: Corpus, rows_per_shard: int = 3) -> list[Sample | Rejection]:
    shards = ShardPlan(corpus.snapshot.file_rows, rows_per_shard)
    return [item for shard in shards for item in corpus.read_samples(shard)]


BAD_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("truncated-image", {"image": image_bytes()[:-200]}),
    ("image-bomb", {"image": png_claiming(50_000, 50_000)}),
    ("no-image", {"image": None}),
    ("image-by-path", {"image": {"bytes": None, "path": "/etc/hostname"}}),
    ("no-image", {"image": {"bytes": None, "path": None}}),
    ("no-image", {"image": b""}),
    ("undecodable-image", {"image": b"GIF89a nonsense"}),
    ("empty-question", {"question": None}),
    ("empty-question", {"question": ""}),
    ("empty-question", {"question": " \n\t "}),
    ("null-answer", {"response_1": None}),
    ("null-answer", {"response_2": None}),
    ("empty-answer", {"response_2": "  "}),
    ("equal-answers", {"response_1": "A dog. "}),
    ("bad-preference", {"overall_response": 3}),
    ("bad-preference", {"overall_response": 0}),
    ("bad-preference", {"overall_response": None}),
]


def test_a_row_becomes_a_sample(tmp_path: Path) -> None:
    image = image_bytes("JPEG")
    path = write_rows(
        tmp_path / "a.parquet", [row(image=image), row(image=image, overall_response=2)]
    )
    corpus = opened(path)
    first, second = everything(corpus)
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    fingerprint = corpus.snapshot.files[0].fingerprint[:12]
    assert (first.sample_id, first.ordinal) == (f"{fingerprint}-0", 0)
    assert (second.sample_id, second.ordinal) == (f"{fingerprint}-1", 1)
    assert [message.role for message in first.messages] == ["user"]
    assert first.messages[0].parts == (ImagePart(0), TextPart("What is shown?"))
    assert first.images == (image,)
    assert (first.chosen, first.rejected) == ("A cat.", "A dog.")
    assert (second.chosen, second.rejected) == ("A dog.", "A cat.")


@pytest.mark.parametrize(("reason", "changes"), BAD_ROWS)
def test_bad_rows_are_rejected_with_their_reason(
    tmp_path: Path, reason: str, changes: dict[str, Any]
) -> None:
    path = write_rows(tmp_path / "a.parquet", [row(), row(**changes), row()])
    before, bad, after = everything(opened(path))
    assert isinstance(before, Sample)
    assert isinstance(after, Sample)
    assert isinstance(bad, Rejection)
    assert (bad.reason, bad.ordinal) == (reason, 1)
    assert bad.sample_id.endswith("-1")
    assert bad.detail


def test_rows_in_are_samples_and_rejections_out(tmp_path: Path) -> None:
    rows = [row(**changes) for _, changes in BAD_ROWS] + [row() for _ in range(5)]
    write_rows(tmp_path / "a.parquet", rows[:9])
    write_rows(tmp_path / "b.parquet", rows[9:])
    items = everything(opened(tmp_path), rows_per_shard=4)
    assert [item.ordinal for item in items] == list(range(len(rows)))
    assert len({item.sample_id for item in items}) == len(rows)
    counts = Counter(item.reason for item in items if isinstance(item, Rejection))
    assert counts == Counter(reason for reason, _ in BAD_ROWS)


def test_text_that_is_no_utf8_is_rejected(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(), row()], SCHEMA)
    broken = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(0, "question", broken), tmp_path / "a.parquet")
    first, second = everything(opened(tmp_path))
    assert isinstance(first, Sample)
    assert isinstance(second, Rejection)
    assert second.reason == "undecodable-text"


def test_long_answers_pass(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [row(response_1="long " * 10_000)])
    (sample,) = everything(opened(path))
    assert isinstance(sample, Sample)
    assert sample.chosen is not None
    assert len(sample.chosen) == 50_000


@pytest.mark.parametrize(
    ("column", "type_", "value"),
    [
        ("image", pa.binary(), image_bytes()),
        ("image", pa.large_binary(), image_bytes()),
        ("question", pa.large_string(), "What?"),
        ("question", pa.string_view(), "What?"),
        ("image", pa.binary_view(), image_bytes()),
        ("overall_response", pa.float64(), 1.0),
        ("overall_response", pa.int8(), 1),
        ("overall_response", pa.string(), "1"),
    ],
)
def test_other_spellings_of_the_columns_are_read(
    tmp_path: Path, column: str, type_: pa.DataType, value: Any
) -> None:
    schema = SCHEMA.set(SCHEMA.get_field_index(column), pa.field(column, type_))
    values = {**row(), column: value}
    path = write_rows(tmp_path / "a.parquet", [values], schema)
    (sample,) = everything(opened(path))
    assert isinstance(sample, Sample)
    assert sample.images == (image_bytes(),)
    assert sample.chosen == "A cat."


@pytest.mark.parametrize("column", SCHEMA.names[:5])
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, column: str) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    schema = SCHEMA.remove(SCHEMA.get_field_index(column))
    values = {name: value for name, value in row().items() if name != column}
    write_rows(tmp_path / "b.parquet", [values], schema)
    with pytest.raises(DataError, match=rf"b\.parquet.*{column!r}"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("column", "type_"),
    [
        ("image", pa.float64()),
        ("image", pa.struct([("path", pa.string())])),
        ("question", pa.int64()),
        ("overall_response", pa.bool_()),
    ],
)
def test_a_column_of_a_wrong_type_is_named(tmp_path: Path, column: str, type_: pa.DataType) -> None:
    schema = SCHEMA.set(SCHEMA.get_field_index(column), pa.field(column, type_))
    write_rows(tmp_path / "a.parquet", [{}], schema)
    with pytest.raises(DataError, match=rf"a\.parquet.*{column!r}"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "question", ["<image>\nWhat is shown?", "<image>What is shown?", "What is shown?\n<image>"]
)
def test_placeholders_in_questions(tmp_path: Path, question: str) -> None:
    path = write_rows(tmp_path / "a.parquet", [row(question=question)])
    (sample,) = everything(opened(path))
    assert isinstance(sample, Sample)
    parts = sample.messages[0].parts
    assert set(parts) == {ImagePart(0), TextPart("What is shown?")}
    assert (parts[0] == ImagePart(0)) == question.startswith("<image>")


@pytest.mark.parametrize("name", [name for name, each in CONFIGURATIONS.items() if each.columns])
def test_configurations_make_samples(name: str) -> None:
    align_anything_columns(name, "x").check("x")


def test_the_default_configuration() -> None:
    assert align_anything_columns("", "x") == align_anything_columns(DEFAULT, "x")
    assert align_anything_files("") == align_anything_files(DEFAULT)
    assert align_anything_others("") == align_anything_others(DEFAULT)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("text-to-speech", "no configuration 'text-to-speech'"),
        ("text-to-video", "'text-to-video' is video"),
        ("text-audio-to-text", "'text-audio-to-text' is audio"),
    ],
)
def test_configurations_out_of_reach_are_named_with_those_that_are_not(
    name: str, problem: str
) -> None:
    settings = CorpusSettings("align-anything", "/nowhere", configuration=name)
    with pytest.raises(SettingsError, match=rf"^sae_corpus\.configuration: .*{problem}") as caught:
        open_corpus(settings, "sae_corpus")
    assert "text-image-to-text, text-to-image" in str(caught.value)


@pytest.mark.parametrize(
    ("configuration", "files", "read"),
    [
        ("", ["text-image-to-text/train.parquet", "text-image-to-text/val_1k.parquet"], [0]),
        ("", ["train.parquet", "val_1k.parquet", "new/train_40k.parquet"], [0]),
        ("", ["train/train-00000-of-00015.parquet", "train.parquet"], [1]),
        ("text-to-image", ["text-to-image/train_30k.parquet", "train.parquet"], [0]),
        ("text-to-text", ["text-to-text/part.parquet", "text-to-image/train_30k.parquet"], [0]),
        ("", ["a.parquet", "b/c.parquet"], [0, 1]),
        ("", ["val_1k.parquet"], [0]),
    ],
)
def test_the_files_of_a_configuration(
    tmp_path: Path, configuration: str, files: list[str], read: list[int]
) -> None:
    values = {**row(), "prompt": "A cat.", "overall_image": 1}
    values |= {"image_1": values["image"], "image_2": values["image"]}
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([values]), path)
    corpus = open_corpus(
        CorpusSettings("align-anything", str(tmp_path), configuration=configuration)
    )
    assert [file.name for file in corpus.snapshot.files] == sorted(files[index] for index in read)
    assert corpus.left_out == len(files) - len(read)


def test_no_configurations_files_are_anothers() -> None:
    for name in CONFIGURATIONS:
        others = align_anything_others(name)
        assert not any(matcher(pattern)(f"{name}/train.parquet") for pattern in others)
        assert len(others) == len(CONFIGURATIONS) - 1


@pytest.mark.parametrize("configuration", ["text-to-text", "text-image-to-text-image"])
def test_rows_of_another_configuration_are_not_taken(tmp_path: Path, configuration: str) -> None:
    """They have the same columns."""
    write_rows(tmp_path / "text-image-to-text/train.parquet", [row()])
    with pytest.raises(DataError, match=rf"'{configuration}/train\*'.*text-image-to-text/train"):
        open_corpus(CorpusSettings("align-anything", str(tmp_path), configuration=configuration))
