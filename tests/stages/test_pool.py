from __future__ import annotations

import gc
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError

from raysae.artifacts import Attempts, ShardPlan, ShardSpec
from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.errors import DataError, RaysaeError, SettingsError
from raysae.models import ModelSettings
from raysae.sample import Rejection, Sample
from raysae.settings import RunSettings
from raysae.stages import _pool
from raysae.stages._pool import Publish, ShardTask, cause_of_ours, check_rejected, run_shards
from tests.storages import at


@pytest.fixture(autouse=True)
def no_actor_left() -> Iterator[None]:
    """An error's traceback holds Ray Data's actors, and their share of the cluster, until then."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return open_corpus(CorpusSettings("builtin", max_rows=10))


def test_no_task_starts_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "connect", lambda: pytest.fail("connected"))
    run = RunSettings()
    nothing: dict[str, Any] = {"worker_class": dict, "worker_arguments": {}}
    place = at(Path("/nowhere"))
    counts = run_shards("x", corpus, [], **nothing, attempts=place, model=ModelSettings(), run=run)
    assert counts == {}


def test_a_shard_is_read_whole_or_the_rows_that_are_wanted(corpus: Corpus, tmp_path: Path) -> None:
    (first, second) = ShardPlan(corpus.snapshot.file_rows, 6)
    attempts = Attempts(at(tmp_path), "read")
    everything = list(corpus.all_samples())

    def read(task: ShardTask) -> Sequence[Sample | Rejection]:
        return pickle.loads(
            _pool._read_shard({"task": _pool.to_text(task)}, corpus, attempts)["samples"]
        )

    assert read(ShardTask(first)) == everything[:6]
    assert read(ShardTask(second)) == everything[6:]
    assert read(ShardTask(second, (7, 9))) == [everything[7], everything[9]]
    assert read(ShardTask(first, ())) == []


def test_a_row_that_asks_for_too_much_memory_is_read_in_a_process_of_its_own(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = ShardPlan(corpus.snapshot.file_rows, 10)

    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(_pool, "watched", refuse)
    row = {"task": _pool.to_text(ShardTask(shard))}
    read = _pool._read_shard(row, corpus, Attempts(at(tmp_path), "read"))
    assert pickle.loads(read["samples"]) == list(corpus.all_samples())


@pytest.mark.parametrize("where", ["work", "publish"])
def test_an_actor_without_memory_says_what_to_lower(
    corpus: Corpus, tmp_path: Path, where: str
) -> None:
    def fail() -> dict[str, Any]:
        raise MemoryError

    class Greedy:
        def finished(self, shard: ShardSpec) -> None: ...

        def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> Publish:
            return fail if where == "publish" else fail()  # type: ignore[return-value]

    (shard,) = ShardPlan(corpus.snapshot.file_rows, 10)
    actor = _pool.WorkerActor("x", Greedy, {}, Attempts(at(tmp_path), "work"), ModelSettings())
    row = {"task": [_pool.to_text(ShardTask(shard))], "samples": [pickle.dumps([])]}
    with pytest.raises(
        RaysaeError, match=r"shard-00000 needs more memory .*lower run.token_budget"
    ):
        actor(row)


def check(rows: int, rejected: int, limit: float = 0.2) -> None:
    check_rejected("cache", {"rows": rows, "rejected": rejected}, limit, {"b": rejected, "a": 0})


def test_rejected_rows_up_to_the_limit_are_accepted() -> None:
    check(10, 0, 0.0)
    check(8, 2)
    check(1, 99, 0.99)


@pytest.mark.parametrize(("rows", "rejected"), [(7, 3), (79, 21)])
def test_more_rejected_rows_stop_the_job_and_are_listed(rows: int, rejected: int) -> None:
    with pytest.raises(DataError, match=rf"a 0, b {rejected}.*max_rejected_fraction = 0.2"):
        check(rows, rejected)


def test_no_usable_row_stops_the_job_at_any_limit() -> None:
    with pytest.raises(DataError, match=r"no usable row \(a 0, b 3\)"):
        check(0, 3, 1.0)
    with pytest.raises(DataError, match="it is empty"):
        check_rejected("cache", {}, 1.0, {})


def test_our_errors_are_found_inside_rays() -> None:
    ours = DataError("x is damaged.")
    caused = RuntimeError("in a worker")
    caused.__cause__ = ours
    assert cause_of_ours(ours) is ours
    assert cause_of_ours(caused) is ours
    assert cause_of_ours(WorkerGroupError("rank 1 failed", {1: caused})) is ours
    assert cause_of_ours(ControllerError(ours)) is ours
    task = RayTaskError("f", "Traceback …", ours)
    assert cause_of_ours(task) is ours
    # What `ray.get` raises is of both classes, but its text is the traceback.
    assert isinstance(task.as_instanceof_cause(), DataError)
    assert cause_of_ours(task.as_instanceof_cause()) is ours


def test_other_errors_are_not_ours() -> None:
    circle = RuntimeError()
    circle.__cause__ = circle
    for error in (None, ValueError("x"), circle, WorkerGroupError("no worker", {})):
        assert cause_of_ours(error) is None


class Unfinished:
    """A worker whose shards are never complete before it works on them."""

    def finished(self, shard: ShardSpec) -> dict[str, Any] | None:
        return None


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_unfinished_shards_are_worked_on_once_each_and_counts_are_summed(
    corpus: Corpus, tmp_path: Path
) -> None:
    class Worker(Unfinished):
        def __init__(self, directory: Path) -> None:
            self.directory = directory

        def finished(self, shard: ShardSpec) -> dict[str, Any] | None:
            return {"rows": 3, "tokens": 7} if shard.name == "shard-00001" else None

        def work(self, shard: ShardSpec, samples: Sequence[Any]) -> Publish:
            ordinals = [sample.ordinal for sample in samples]
            (self.directory / shard.name).open("a").write(f"{ordinals}\n")
            return lambda: {"rows": len(samples), "tokens": 10}

    (tmp_path / "written").mkdir()
    shards = ShardPlan(corpus.snapshot.file_rows, 4)
    tasks = [ShardTask(shards[0]), ShardTask(shards[1]), ShardTask(shards[2], (9,))]
    counts = run_shards(
        "test",
        corpus,
        tasks,
        worker_class=Worker,
        worker_arguments={"directory": tmp_path / "written"},
        attempts=at(tmp_path / "attempts"),
        model=ModelSettings(),
        run=RunSettings(),
    )
    assert counts == {"rows": 8, "tokens": 27}
    written = {path.name: path.read_text() for path in (tmp_path / "written").iterdir()}
    assert written == {"shard-00000": "[0, 1, 2, 3]\n", "shard-00002": "[9]\n"}


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_the_pool_grows_while_shards_wait(corpus: Corpus, tmp_path: Path) -> None:
    """Ray Data looks at what is queued in front of the actors, which `_steady` keeps short."""

    class Worker(Unfinished):
        def __init__(self, directory: Path) -> None:
            self.directory = directory
            self.give_up_at = time.monotonic() + 480

        def work(self, shard: ShardSpec, samples: Sequence[Any]) -> Publish:
            # Ray Data may later end idle actors and start others, which do not count.
            if len(list(self.directory.iterdir())) < 3:
                (self.directory / f"{os.getpid()}").touch()
            while len(list(self.directory.iterdir())) < 3 and time.monotonic() < self.give_up_at:
                time.sleep(0.05)
            return lambda: {"rows": len(samples)}

    (tmp_path / "actors").mkdir()
    counts = run_shards(
        "test",
        corpus,
        [ShardTask(shard, attempt=f"{n}") for n in range(4) for shard in ShardPlan([10], 1)],
        worker_class=Worker,
        worker_arguments={"directory": tmp_path / "actors"},
        attempts=at(tmp_path / "attempts"),
        model=ModelSettings(),
        run=RunSettings(min_actors=1, max_actors=3, cpus_per_actor=0.5),
    )
    assert counts == {"rows": 40}
    assert len(list((tmp_path / "actors").iterdir())) == 3


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_shard_is_published_while_the_next_one_is_worked_on(
    corpus: Corpus, tmp_path: Path
) -> None:
    """In one process: publishing waits for the next shard's work, and no two are worked on."""

    class Worker(Unfinished):
        def __init__(self) -> None:
            self.begun, self.at_work = 0, False

        def work(self, shard: ShardSpec, samples: Sequence[Any]) -> Publish:
            assert not self.at_work
            self.at_work = True
            self.begun += 1
            number = self.begun
            time.sleep(0.05)
            self.at_work = False

            def publish() -> dict[str, Any]:
                deadline = time.monotonic() + 60
                while number < 5 and self.begun == number and time.monotonic() < deadline:
                    time.sleep(0.01)
                return {"rows": len(samples), "beside": self.begun > number}

            return publish

    counts = run_shards(
        "test",
        corpus,
        [ShardTask(shard) for shard in ShardPlan([10], 2)],
        worker_class=Worker,
        worker_arguments={},
        attempts=at(tmp_path),
        model=ModelSettings(),
        run=RunSettings(),
    )
    assert counts == {"rows": 10, "beside": 4}


class ReadAlone(Corpus):
    """A corpus of which nothing but `read_samples` is called."""

    @classmethod
    def check_columns(cls, schema: Any, file: str) -> None:
        raise NotImplementedError

    def samples(self, table: Any, first_ordinal: int) -> Any:
        raise NotImplementedError


class DeadlyCorpus(ReadAlone):
    """Reading it ends the process, as a decoder written in C can; each try leaves a file."""

    def __init__(self, tries: Path) -> None:
        self.tries = tries

    def read_samples(self, shard: ShardSpec) -> Iterator[Sample | Rejection]:
        (self.tries / f"{time.time_ns()}-{os.getpid()}").touch()
        os._exit(1)


class DeadlyWorker(Unfinished):
    def __init__(self, tries: Path) -> None:
        self.tries = tries

    def work(self, shard: ShardSpec, samples: Sequence[Any]) -> Publish:
        (self.tries / f"{time.time_ns()}-{os.getpid()}").touch()
        os._exit(1)


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("where", ["reader", "actor"])
def test_a_row_that_always_kills_its_process_ends_the_job(
    corpus: Corpus, tmp_path: Path, where: str
) -> None:
    (tmp_path / "tries").mkdir()
    with pytest.raises(RaysaeError, match=r"^test: [^\n]*lost[^\n]*run\.max_retries\.$") as error:
        run_shards(
            "test",
            DeadlyCorpus(tmp_path / "tries") if where == "reader" else corpus,
            [ShardTask(ShardPlan([4], 4)[0])],
            worker_class=DeadlyWorker,
            worker_arguments={"tries": tmp_path / "tries"},
            attempts=at(tmp_path / "attempts"),
            model=ModelSettings(),
            run=RunSettings(max_retries=1),
        )
    assert error.value.exit_code == 1
    assert len(list((tmp_path / "tries").iterdir())) == 2


class LateCorpus(ReadAlone):
    """Reading its second shard kills the actor that did the first and has nothing to do."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def read_samples(self, shard: ShardSpec) -> Iterator[Sample | Rejection]:
        actor = self.place / "actor"
        if shard.start:
            while not actor.exists():
                time.sleep(0.05)
            # Until the driver has heard that the first shard is done.
            time.sleep(2.0)
            os.kill(int(actor.read_text()), signal.SIGKILL)
            # Until the driver has heard of it. A task that runs outlives the job in this process.
            time.sleep(10.0)
        yield Rejection(shard.name, shard.start, "no-image", "")


class IdleWorker(Unfinished):
    def __init__(self, place: Path) -> None:
        self.place = place

    def work(self, shard: ShardSpec, samples: Sequence[Any]) -> Publish:
        (self.place / "new").write_text(str(os.getpid()))
        (self.place / "new").rename(self.place / "actor")
        return lambda: {"rows": len(samples)}


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_an_actor_that_is_lost_while_it_has_nothing_to_do_ends_the_job(
    corpus: Corpus, tmp_path: Path
) -> None:
    """Ray Data would wait for it."""
    with pytest.raises(RaysaeError, match=r"^test: an actor was lost [^\n]*run\.max_retries\.$"):
        run_shards(
            "test",
            LateCorpus(tmp_path),
            [ShardTask(shard) for shard in ShardPlan([8], 4)],
            worker_class=IdleWorker,
            worker_arguments={"place": tmp_path},
            attempts=at(tmp_path / "attempts"),
            model=ModelSettings(),
            run=RunSettings(max_retries=0),
        )


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("where", ["constructor", "work"])
def test_a_workers_own_error_arrives_as_it_was_raised(
    corpus: Corpus, tmp_path: Path, where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    class Worker(Unfinished):
        def __init__(self, where: str) -> None:
            if where == "constructor":
                raise SettingsError("model.path: broken; copy it again.")

        def work(self, shard: ShardSpec, samples: Sequence[Any]) -> Publish:
            raise DataError(f"{shard.name}: broken; restore it.")

    expected = {"constructor": SettingsError, "work": DataError}[where]
    with pytest.raises(expected, match=r"^[^\n]*: broken; [^\n]* it( again)?\.$") as error:
        run_shards(
            "test",
            corpus,
            [ShardTask(ShardPlan([4], 4)[0])],
            worker_class=Worker,
            worker_arguments={"where": where},
            attempts=at(tmp_path),
            model=ModelSettings(),
            run=RunSettings(),
        )
    assert type(error.value) is expected
    assert "Traceback" not in "".join(capfd.readouterr())
    assert ray.is_initialized()
