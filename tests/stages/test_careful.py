from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from raysae.artifacts import ShardPlan, ShardSpec
from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.corpora.align_anything import align_anything_columns
from raysae.corpora.taking import take_snapshot
from raysae.errors import DataError
from raysae.models import ModelSettings
from raysae.sample import Rejection, Sample
from raysae.stages._careful import careful_read, reject_deadly
from raysae.stages._trials import Limits
from raysae.storage.uris import LocalUri
from tests.cluster.crashing.content import SITE
from tests.cluster.crashing.corpus import CrashingCorpus, CrashingImages
from tests.cluster.crashing.deaths import deadly
from tests.corpora.rows import image_bytes, row, write_rows

QUICK = Limits(row_s=4.0)
MODEL = ModelSettings()


def crashing_corpus(
    directory: Path, rows: int, step: str = "samples", deaths: Mapping[int, str] | None = None
) -> Corpus:
    """Rows of which some kill at a step."""
    questions = {at: deadly(step, death) for at, death in (deaths or {}).items()}
    written = [row(question=questions.get(at, f"What is {at}?")) for at in range(rows)]
    write_rows(directory / "a.parquet", written)
    return opened(directory)


def opened(directory: Path, reader: type[Corpus] = CrashingCorpus) -> Corpus:
    taken = take_snapshot("crashing", LocalUri(directory), 0)
    columns = align_anything_columns("", "corpus.configuration")
    return reader(taken.snapshot, taken.schemas, columns)


def whole(corpus: Corpus) -> ShardSpec:
    (shard,) = ShardPlan(corpus.snapshot.file_rows, corpus.snapshot.rows)
    return shard


def check(corpus: Corpus, found: Sequence[Sample | Rejection], deadly_rows: Sequence[int]) -> None:
    """See that these rows are rejected, and the others what they are without a child."""
    for at, outcome in enumerate(found):
        if at in deadly_rows:
            assert isinstance(outcome, Rejection)
            assert outcome.sample_id == corpus.snapshot.sample_id(at)
            assert outcome.ordinal == at
        else:
            (expected,) = corpus.samples(corpus.read(0, at, at + 1), at)
            assert isinstance(expected, Sample)
            assert outcome == expected
    assert len(found) == corpus.snapshot.rows


def test_harmless_rows_are_read_as_without_a_child() -> None:
    corpus = open_corpus(CorpusSettings("builtin-noisy", max_rows=40))
    for shard in ShardPlan(corpus.snapshot.file_rows, 25):
        assert careful_read(corpus, shard) == list(corpus.read_samples(shard))


def test_only_the_rows_that_are_wanted_are_tried(tmp_path: Path) -> None:
    corpus = crashing_corpus(tmp_path, 6, deaths={0: "exit", 4: "exit"})
    everything = careful_read(corpus, whole(corpus))
    assert careful_read(corpus, whole(corpus), (5, 4, 1)) == [everything[at] for at in (5, 4, 1)]
    assert careful_read(corpus, whole(corpus), ()) == []


@pytest.mark.parametrize("deadly_rows", [(0,), (4,), (0, 1, 4), (1, 2, 3), (0, 1, 2, 3, 4)])
def test_each_deadly_row_is_rejected_and_no_other(
    deadly_rows: tuple[int, ...], tmp_path: Path
) -> None:
    corpus = crashing_corpus(tmp_path, 5, deaths=dict.fromkeys(deadly_rows, "segfault"))
    check(corpus, careful_read(corpus, whole(corpus)), deadly_rows)


def test_each_kind_of_death_is_told(tmp_path: Path) -> None:
    deaths = ["segfault", "kill", "exit", "refusal", "hang"]
    corpus = crashing_corpus(tmp_path, 7, deaths={at + 1: d for at, d in enumerate(deaths)})
    found = careful_read(corpus, whole(corpus), limits=QUICK)
    check(corpus, found, range(1, 6))
    child = "the child process that decoded it"
    assert [(r.reason, r.detail) for r in found if isinstance(r, Rejection)] == [
        ("crashes-decoder", f"{child} was ended by SIGSEGV"),
        ("crashes-decoder", f"{child} was ended by SIGKILL"),
        ("crashes-decoder", f"{child} ended with exit code 3"),
        ("crashes-decoder", f"{child} asked for more memory than there is"),
        ("decoder-timeout", f"{child} took longer than 4 s"),
    ]


@pytest.mark.parametrize(
    ("death", "told"),
    [("abort", "was ended by SIGABRT"), ("growth", "took more than 1 GiB of memory")],
)
def test_of_a_shards_images_only_the_one_that_kills_is_rejected(
    death: str, told: str, tmp_path: Path
) -> None:
    images = [image_bytes("JPEG") for _ in range(5)]
    images[2] = image_bytes("JPEG", comment=deadly("samples", death))
    images[3] = images[3][:200]
    write_rows(tmp_path / "a.parquet", [row(image=image) for image in images])
    corpus = opened(tmp_path, CrashingImages)
    found = careful_read(corpus, whole(corpus), limits=replace(QUICK, memory_bytes=1 << 30))
    assert [outcome.ordinal for outcome in found] == [0, 1, 2, 3, 4]
    for at in (0, 1, 4):
        assert isinstance(found[at], Sample)
        assert found[at].images == (images[at],)
    assert [r.reason for r in found if isinstance(r, Rejection)] == [
        "crashes-decoder",
        "truncated-image",
    ]
    assert found[2].detail == f"the child process that decoded it {told}"


@pytest.mark.parametrize("deadly_rows", [(0,), (2, 3), (4,)])
def test_a_shard_that_cannot_be_read_at_once_is_read_row_by_row(
    deadly_rows: tuple[int, ...], tmp_path: Path
) -> None:
    corpus = crashing_corpus(tmp_path, 5, "read", dict.fromkeys(deadly_rows, "segfault"))
    found = careful_read(corpus, whole(corpus))
    check(corpus, found, deadly_rows)
    assert {r.detail for r in found if isinstance(r, Rejection)} == {
        "the child process that read it was ended by SIGSEGV"
    }


def test_a_read_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    corpus = crashing_corpus(tmp_path, 3, "read", {1: "hang"})
    found = careful_read(corpus, whole(corpus), limits=replace(QUICK, load_s=4.0))
    check(corpus, found, [1])
    assert isinstance(found[1], Rejection)
    assert found[1].reason == "decoder-timeout"


def test_ordinals_and_ids_are_those_of_the_whole_corpus(tmp_path: Path) -> None:
    crashing_corpus(tmp_path, 3)
    write_rows(
        tmp_path / "b.parquet",
        [row(), row(question=deadly("samples", "kill")), row(question="What is the last one?")],
    )
    corpus = opened(tmp_path)
    shard = ShardPlan(corpus.snapshot.file_rows, 2)[2]
    kept, lost = careful_read(corpus, shard)
    assert (kept.ordinal, lost.ordinal) == (3, 4)
    assert lost.sample_id == corpus.snapshot.sample_id(4)
    assert isinstance(lost, Rejection)
    (last,) = careful_read(corpus, ShardPlan(corpus.snapshot.file_rows, 2)[3])
    assert isinstance(last, Sample)
    assert last.ordinal == 5


def test_a_changed_file_is_an_error_and_no_row(tmp_path: Path) -> None:
    corpus = crashing_corpus(tmp_path, 3)
    write_rows(tmp_path / "a.parquet", [row()])
    with pytest.raises(DataError, match="changed since the job began"):
        careful_read(corpus, whole(corpus))


def test_a_ray_task_reads_carefully(shared_ray: None, tmp_path: Path) -> None:
    import ray

    deaths = {0: "segfault", 2: "kill", 3: "exit"}
    corpus = crashing_corpus(tmp_path, 5, deaths=deaths)
    found = ray.get(ray.remote(careful_read).remote(corpus, whole(corpus)))
    check(corpus, found, list(deaths))
    assert [r.detail.split(" it ")[1] for r in found if isinstance(r, Rejection)] == [
        "was ended by SIGSEGV",
        "was ended by SIGKILL",
        "ended with exit code 3",
    ]


def test_samples_that_kill_prepare_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = crashing_corpus(tmp_path, 5, "prepare", {1: "segfault", 4: "hang"})
    rows: list[Sample | Rejection] = list(corpus.all_samples())
    rows[2] = Rejection("id", 2, "empty-question", "the question is null or blank")
    # Only the child, which is given this path, patches `prepare`.
    monkeypatch.syspath_prepend(SITE)
    kept = reject_deadly(MODEL, rows, QUICK)
    for at in (0, 2, 3):
        assert kept[at] is rows[at]
    assert [(r.ordinal, r.reason, r.detail) for r in kept if r not in rows] == [
        (1, "crashes-decoder", "the child process that prepared it was ended by SIGSEGV"),
        (4, "decoder-timeout", "the child process that prepared it took longer than 4 s"),
    ]
    assert [r.sample_id for r in kept] == [r.sample_id for r in rows]


def test_what_prepare_raises_is_left_to_the_caller(tmp_path: Path) -> None:
    corpus = crashing_corpus(tmp_path, 2)
    first, second = corpus.all_samples()
    assert isinstance(first, Sample)
    broken = replace(first, images=(b"no image",))
    assert reject_deadly(MODEL, [broken, second]) == [broken, second]


def test_nothing_to_prepare_starts_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysae.stages._trials._spawn", lambda *_: pytest.fail("started"))
    rejected = Rejection("id", 0, "empty-question", "the question is null or blank")
    assert reject_deadly(MODEL, [rejected]) == [rejected]
    assert reject_deadly(MODEL, []) == []
