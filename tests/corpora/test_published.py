from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from raysae.artifacts import ShardPlan
from raysae.corpora import Corpus, CorpusSettings, open_corpus, open_subset
from raysae.errors import DataError
from raysae.sample import ImagePart, Rejection, Sample, TextPart
from tests.corpora.published import FIXTURES
from tests.corpora.published_rows import OTHER_ROWS, ROWS, pairs

Opened = Callable[[str], Corpus]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CorpusSettings]:
    """Every copy, written once."""
    root = tmp_path_factory.mktemp("published")
    return {name: copy.written(root / name) for name, copy in FIXTURES.items()}


@pytest.fixture
def opened(places: dict[str, CorpusSettings]) -> Opened:
    return lambda name: open_corpus(places[name])


@pytest.mark.parametrize("name", FIXTURES)
def test_every_row_is_read_rightly_or_rejected_with_its_reason(name: str, opened: Opened) -> None:
    copy, corpus = FIXTURES[name], opened(name)
    items = list(corpus.all_samples())
    assert [item.ordinal for item in items] == list(range(copy.rows))
    bad = {item.ordinal: item.reason for item in items if isinstance(item, Rejection)}
    assert bad == copy.bad
    for sample in items:
        if isinstance(sample, Sample):
            good = copy.good(sample.ordinal)
            words = " ".join(message.text for message in sample.messages if message.role == "user")
            assert words == good.question
            assert sample.images == good.images
            assert (sample.chosen, sample.rejected) == (good.chosen, good.rejected)


@pytest.mark.parametrize("name", FIXTURES)
def test_details_are_one_sentence(name: str, opened: Opened) -> None:
    for item in opened(name).all_samples():
        if isinstance(item, Rejection):
            assert item.detail
            assert "\n" not in item.detail
            assert len(item.detail) < 200


@pytest.mark.parametrize("name", FIXTURES)
def test_shards_give_the_same_rows(name: str, opened: Opened) -> None:
    corpus = opened(name)
    shards = ShardPlan(corpus.snapshot.file_rows, 7)
    assert [item for shard in shards for item in corpus.read_samples(shard)] == list(
        corpus.all_samples()
    )


@pytest.mark.parametrize("name", FIXTURES)
def test_a_subset_in_the_sources_schema_is_read_alike(
    name: str, opened: Opened, tmp_path: Path
) -> None:
    corpus = opened(name)
    with pa.parquet.ParquetWriter(tmp_path / "a.parquet", corpus.schema) as writer:
        for index in range(len(corpus.snapshot.files)):
            for batch in corpus.batches(index):
                writer.write_batch(batch.take(pa.array(range(batch.num_rows))))
    subset = open_subset(FIXTURES[name].settings, tmp_path)
    assert subset.schema.names == corpus.schema.names
    assert subset.schema.metadata == corpus.schema.metadata

    def contents(items: list[Sample | Rejection]) -> list[object]:
        return [
            item.reason if isinstance(item, Rejection) else replace(item, sample_id="")
            for item in items
        ]

    found, expected = (contents(list(each.all_samples())) for each in (subset, corpus))
    # A line that is no JSON has left no value.
    expected = ["empty-question" if item == "broken-json" else item for item in expected]
    assert found == expected


@pytest.mark.parametrize("name", FIXTURES)
def test_the_table_tells_of_images(name: str, opened: Opened) -> None:
    samples = [item for item in opened(name).all_samples() if isinstance(item, Sample)]
    assert any(sample.images for sample in samples) == FIXTURES[name].has_images


def test_images_stand_before_the_question_unless_the_text_says_where(opened: Opened) -> None:
    for sample in opened("spa-vl").all_samples():
        if isinstance(sample, Sample):
            texts = TextPart(pairs()[sample.ordinal].question)
            last = (texts, ImagePart(0))
            first = (ImagePart(0), texts)
            assert sample.messages[0].parts == (last if sample.ordinal == 2 else first)


def test_conversations_keep_their_system_message(opened: Opened) -> None:
    sample = next(iter(opened("trl-images").all_samples()))
    assert isinstance(sample, Sample)
    assert [message.role for message in sample.messages] == ["system", "user"]
    assert sample.messages[0].parts == (TextPart("Answer briefly."),)


def test_own_ids(opened: Opened) -> None:
    ids = [item.sample_id for item in opened("llava-instruct").all_samples()]
    assert ids[:5] == ["0", f"{1:012}", f"{2:012}", "3", f"{4:012}"]
    assert ids[21].endswith("-21")  # the line that is no JSON has none
    assert len(set(ids)) == ROWS


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("align-anything", 3), ("align-anything-bytes", 3), ("rlaif-v", 1), ("spa-vl", 3)],
)
def test_what_lies_beside_the_training_rows_is_left_out(
    name: str, left_out: int, opened: Opened
) -> None:
    corpus = opened(name)
    assert corpus.left_out == left_out
    assert corpus.snapshot.rows == ROWS


def test_other_splits_are_read_by_a_pattern(places: dict[str, CorpusSettings]) -> None:
    place = places["align-anything"]
    validation = open_corpus(replace(place, files="*/val_1k.parquet"))
    assert validation.snapshot.rows == OTHER_ROWS
    older = open_corpus(replace(place, files="text-image-to-text/new/train*"))
    assert older.snapshot.rows == OTHER_ROWS


def test_another_configuration_is_not_read_in_place_of_one_that_is_missing(
    places: dict[str, CorpusSettings],
) -> None:
    asked = replace(places["align-anything"], configuration="text-to-text")
    with pytest.raises(DataError, match=r"files.*'text-to-text/train\*'.*text-image-to-text/train"):
        open_corpus(asked)


def test_a_split_without_answers_is_named(places: dict[str, CorpusSettings]) -> None:
    with pytest.raises(DataError, match=r"harm-00000.*'chosen'"):
        open_corpus(replace(places["spa-vl"], files="test/*"))


def test_the_copies_are_typed_as_the_originals(opened: Opened) -> None:
    from datasets import Features, Image, List

    def features(name: str) -> Features:
        return Features.from_arrow_schema(opened(name).schema)

    for name in ("align-anything", "spa-vl"):
        assert features(name)["image"] == Image()
    assert features("rlaif-v-formatted")["images"] == List(Image())
    assert opened("align-anything-bytes").schema.metadata is None
    assert opened("rlaif-v").schema.metadata is None
    turn = opened("trl-rlaif-v").schema.field("prompt").type.value_type
    assert turn.field("content").type.value_type == pa.json_()
    assert opened("save-to-disk").snapshot.files[0].name == "train/data-00000-of-00002.arrow"


def test_two_layouts_of_one_data_set_give_the_same_samples(opened: Opened) -> None:
    struct, binary = (
        [
            replace(item, sample_id="")
            for item in opened(name).all_samples()
            if isinstance(item, Sample)
        ]
        for name in ("align-anything", "align-anything-bytes")
    )
    assert struct == binary
