from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysae import pipeline
from raysae.activations import ReadingSettings
from raysae.corpora import CorpusSettings
from raysae.models import ModelSettings
from raysae.pipeline import STAGES, Stage, make, run_to
from raysae.stages.chain import Chain, ChainSettings, FinetuneJobSettings
from raysae.stages.result import StageResult
from tests.corpora.rows import row, write_rows
from tests.storages import at


class Workshop:
    """Stages a ← b, a ← c, (b, c) ← d that note when they run; stands in for `Chain` too."""

    NEEDS = {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("b", "c")}  # noqa: RUF012

    def __init__(self, root: Path, finished: str = "", half_done: str = "") -> None:
        self.root = at(root)
        self.ran: list[str] = []
        self.done = set(finished)
        self.half_done = set(half_done)

    def stages(self) -> dict[str, Stage]:
        return {kind: self.stage(kind) for kind in self.NEEDS}

    def stage(self, kind: str) -> Stage:
        def run(_: Any) -> StageResult:
            assert set(self.NEEDS[kind]) <= self.done
            self.ran.append(kind)
            self.done.add(kind)
            return StageResult(len(self.ran), 0, kind in self.half_done)

        return Stage(
            lambda _: self.NEEDS[kind],
            lambda _: at(Path("/s")) / kind,
            lambda _: kind in self.done,
            run,
        )


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workshop]:
    def build(finished: str = "", half_done: str = "") -> Workshop:
        built = Workshop(tmp_path / "workshop", finished, half_done)
        monkeypatch.setattr(pipeline, "STAGES", built.stages())
        monkeypatch.setattr(pipeline, "_mend_snapshots", lambda *_: None)
        return built

    return build


@pytest.mark.parametrize(
    ("finished", "ran"),
    [("", "abcd"), ("a", "bcd"), ("ab", "cd"), ("b", "acd"), ("bc", "d"), ("abcd", ""), ("d", "")],
)
def test_what_is_missing_is_made_once_and_in_order(
    workshop: Callable[..., Workshop], finished: str, ran: str
) -> None:
    built = workshop(finished)
    result = make(built, "d")
    assert "".join(built.ran) == ran
    assert (result is None) == (ran == "")


@pytest.mark.parametrize(
    ("finished", "damaged", "ran"),
    [
        ("cd", "b", "ab"),
        ("abcd", "b", ""),
        ("d", "bc", "abc"),
        ("ad", "c", "bc"),
        ("c", "b", "abd"),
    ],
)
def test_what_is_damaged_is_made_again_with_what_it_needs(
    workshop: Callable[..., Workshop], finished: str, damaged: str, ran: str
) -> None:
    built = workshop(finished)
    for kind, stage in pipeline.STAGES.items():
        begun = kind in damaged
        pipeline.STAGES[kind] = replace(stage, begun=lambda _, begun=begun: begun)  # type: ignore[index]
    make(built, "d")
    assert "".join(built.ran) == ran


@pytest.mark.parametrize(
    ("finished", "half_done", "resumed"),
    [("", "", False), ("a", "", True), ("bc", "", True), ("", "a", True), ("", "d", True)],
)
def test_resumed_means_that_earlier_work_was_used_anywhere(
    workshop: Callable[..., Workshop], finished: str, half_done: str, resumed: bool
) -> None:
    result = make(workshop(finished, half_done), "d")
    assert result is not None
    assert result.resumed is resumed


def test_stages_after_the_one_asked_for_do_not_run(workshop: Callable[..., Workshop]) -> None:
    built = workshop()
    make(built, "b")
    assert built.ran == ["a", "b"]


def test_a_stage_that_fails_stops_the_chain(workshop: Callable[..., Workshop]) -> None:
    built = workshop()

    def fail(_: Any) -> StageResult:
        raise RuntimeError("b is broken")

    pipeline.STAGES["b"] = Stage(
        lambda _: ("a",), lambda _: at(Path("/s")) / "b", lambda _: False, fail
    )  # type: ignore[index]
    with pytest.raises(RuntimeError, match="b is broken"):
        make(built, "d")
    assert built.ran == ["a"]


@pytest.mark.parametrize(("stream", "first"), [(False, "activations"), (True, "saes")])
def test_the_table_names_stages_that_exist_and_has_no_circle(
    chain: Chain, *, stream: bool, first: str
) -> None:
    chain = Chain(replace(chain.settings, reading=ReadingSettings(stream=stream)))
    settled: list[str] = []
    while len(settled) < len(STAGES):
        ready = [
            kind
            for kind, stage in STAGES.items()
            if kind not in settled and set(stage.needs(chain)) <= set(settled)
        ]
        assert ready
        settled += ready
    settled = [kind for kind in settled if kind in pipeline._needed(chain, "reports")]
    assert settled[0] == first


@pytest.mark.parametrize(
    ("stream", "missing", "looked_at"),
    [
        (False, ["activations", "saes"], ["sae_corpus"]),
        (False, ["saes"], []),
        (True, ["saes"], ["sae_corpus"]),
        (True, ["activations"], ["sae_corpus"]),
        (True, ["weights"], []),
    ],
)
def test_the_corpus_is_looked_at_by_whichever_stage_reads_it(
    chain: Chain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stream: bool,
    missing: list[str],
    looked_at: list[str],
) -> None:
    from raysae.stages import first_look

    looked: list[str] = []
    monkeypatch.setattr(first_look, "look_first", lambda setting, *_: looked.append(setting))
    write_rows(tmp_path / "a.parquet", [row()])
    corpus = CorpusSettings("align-anything", str(tmp_path))
    reading = ReadingSettings(stream=stream)
    users = Chain(replace(chain.settings, sae_corpus=corpus, reading=reading))
    pipeline._look_first(users, missing)
    assert looked == looked_at


@pytest.mark.parametrize("stream", [False, True])
def test_no_cache_is_in_use_where_none_is_made(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    used: list[str] = []
    monkeypatch.setattr(pipeline, "using", lambda _, paths: used.extend(paths))
    pipeline._in_use(
        Chain(replace(chain.settings, reading=ReadingSettings(stream=stream))), "reports"
    )
    kinds = {path.split("/")[0] for path in used}
    assert ("activations" in kinds) is not stream
    assert "saes" in kinds


@pytest.fixture(scope="module")
def chain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    storage, model = (
        tmp_path_factory.mktemp("storage"),
        ModelSettings(path=str(tiny_model), layer=4),
    )
    return Chain(FinetuneJobSettings(storage=str(storage), model=model))


@pytest.mark.parametrize("kind", sorted(STAGES))
def test_every_kind_lies_in_a_directory_of_its_name_and_begins_unfinished(
    kind: str, chain: Chain
) -> None:
    where = STAGES[kind].where(chain)
    assert where.path.split("/")[0] == kind
    assert not STAGES[kind].finished(chain)


def test_run_to_reports_what_the_artifact_says(
    workshop: Callable[..., Workshop], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = workshop("a")
    where = at(tmp_path) / "b/1"
    where.put_json("metadata.json", {"rows": 7, "rejected": 3})
    pipeline.STAGES["b"] = Stage(  # type: ignore[index]
        lambda _: ("a",), lambda _: where, lambda _: "b" in built.done, built.stage("b").run
    )
    chain = Chain(ChainSettings(storage=str(tmp_path)))
    first, again = run_to(chain, "b", "demo"), run_to(chain, "b", "demo")
    for result in (first, again):
        assert (result.artifact, result.kind) == (str(where), "b")
        assert (result.rows, result.rejected, result.resumed) == (7, 3, True)
    assert built.ran == ["b"]
    assert f"demo: b in {where}\n" in capsys.readouterr().out


def test_a_plan_makes_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raysae.stages import plan

    planned = []
    monkeypatch.setattr(plan, "print_plan", lambda _, kinds: planned.append(kinds))
    monkeypatch.setattr(pipeline, "make", lambda *_: pytest.fail("made something"))
    model = ModelSettings(path=str(tiny_model), layer=4)
    settings = ChainSettings(storage=str(tmp_path), model=model, plan=True)
    result = run_to(Chain(settings), "subsets", "filter")
    assert planned == [{"activations", "saes", "weights", "scores", "subsets"}]
    assert (result.rows, result.rejected, result.resumed) == (0, 0, False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sae_corpus", "corpus", "kind", "warned"),
    [
        ("builtin", "align-anything", "subsets", True),
        ("builtin", "align-anything", "activations", False),
        ("builtin", "builtin-noisy", "subsets", False),
        ("align-anything", "align-anything", "subsets", False),
    ],
)
def test_an_sae_of_the_drawings_for_another_corpus_is_warned_of(
    *,
    sae_corpus: str,
    corpus: str,
    kind: str,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from raysae.stages import plan

    monkeypatch.setattr(plan, "print_plan", lambda *_: None)
    write_rows(tmp_path / "a.parquet", [row()])
    named = (
        CorpusSettings(name, "" if name.startswith("builtin") else str(tmp_path))
        for name in (sae_corpus, corpus)
    )
    settings = ChainSettings(str(tmp_path / "storage"), *named, plan=True)
    result = run_to(Chain(settings), kind, "filter")
    assert ("filter: warning: the SAE is trained on" in capsys.readouterr().out) == warned
    assert (result.artifact, result.kind) == (None, "plan")


def test_the_table_can_be_read_without_ray() -> None:
    code = "import sys, raysae.pipeline; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
