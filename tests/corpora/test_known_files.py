from __future__ import annotations

import multiprocessing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.corpora import known_files, taking
from raysae.corpora.known_files import KnownFiles, cache_directory
from raysae.corpora.learned import Learned, Schemas
from raysae.corpora.listing import key_of
from tests.corpora.file_server import CONTENTS, world

SCHEMA = pa.schema([("a", pa.int64())], {"described": "yes"})
OTHER = pa.schema([("a", pa.string())])


def entries(count: int, first: int = 0) -> dict[bytes, Learned]:
    return {
        key_of(number): Learned(f"{number:064x}", number, OTHER if number % 3 else SCHEMA)
        for number in range(first, first + count)
    }


def known() -> KnownFiles:
    return KnownFiles(Schemas())


def test_what_is_remembered_is_found() -> None:
    stored = entries(10)
    known().remember(stored, [])
    found = known().find([*stored, key_of("another")])
    assert found == [*stored.values(), None]
    schemas = {id(entry.schema) for entry in found if entry}
    assert len(schemas) == 2
    assert found[0] is not None
    assert found[0].schema.metadata == SCHEMA.metadata


def test_a_later_entry_replaces_an_earlier() -> None:
    key = key_of("x")
    for rows in (1, 2):
        known().remember({key: Learned("f", rows, SCHEMA)}, [])
    assert known().find([key]) == [Learned("f", 2, SCHEMA)]


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_as_good_as_none(data: st.DataObject) -> None:
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSAE_CACHE_DIR", directory)
        stored = entries(5)
        known().remember(stored, [])
        (path,) = Path(directory).iterdir()
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        else:
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        assert known().find(list(stored)) == [None] * 5
        known().remember(stored, [])
        assert known().find(list(stored)) == list(stored.values())


def test_another_layout_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = entries(5)
    known().remember(stored, [])
    monkeypatch.setattr(known_files, "_MAGIC", b"raysae known files 2\n")
    assert known().find(list(stored)) == [None] * 5


@pytest.mark.parametrize("where", ["/dev/null", "/dev/null/deeper", "/proc/raysae"])
def test_a_directory_that_cannot_be_written_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("RAYSAE_CACHE_DIR", where)
    known().remember(entries(3), [])
    assert known().find(list(entries(3))) == [None] * 3


def test_a_full_disk_leaves_the_old_file(
    monkeypatch: pytest.MonkeyPatch, cache_directory: Path
) -> None:
    known().remember(entries(3), [])

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        known().remember(entries(3, first=7), [])
    assert known().find(list(entries(3))) == list(entries(3).values())
    assert len(list(cache_directory.iterdir())) == 1


def test_the_least_recently_used_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_files, "MAX_ENTRIES", 10)
    clock = SimpleNamespace(time=lambda: clock.now, now=0.0)
    monkeypatch.setattr(known_files, "time", clock)
    old, new = entries(8), entries(5, first=100)
    known().remember(old, [])
    clock.now += 2 * known_files.USED_AGAIN_S
    used = list(old)[-2:]
    known().remember({}, used)
    clock.now += 2 * known_files.USED_AGAIN_S
    known().remember(new, [])
    found = known().find([*old, *new])
    assert sum(entry is not None for entry in found) == 10
    assert None not in found[6:]


def test_the_file_is_bounded_in_bytes_too(
    monkeypatch: pytest.MonkeyPatch, cache_directory: Path
) -> None:
    monkeypatch.setattr(known_files, "MAX_BYTES", 100_000)
    wide = {
        key_of(number): Learned(
            "f", 1, pa.schema([(f"{number}-{i}", pa.int8()) for i in range(50)])
        )
        for number in range(40)
    }
    known().remember(wide, [])
    found = [entry for entry in known().find(list(wide)) if entry]
    assert 5 < len(found) < 40
    (path,) = cache_directory.iterdir()
    assert path.stat().st_size < 110_000


def test_an_unchanged_use_writes_nothing(cache_directory: Path) -> None:
    stored = entries(3)
    known().remember(stored, [])
    (path,) = cache_directory.iterdir()
    before = path.stat()
    known().remember({}, list(stored))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert before.st_mode & 0o077 == 0


def _remember_often(first: int) -> None:
    for round_ in range(20):
        known().remember(entries(5, first=first + 5 * round_), [])


def test_jobs_that_write_at_once_spoil_nothing(cache_directory: Path) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_remember_often, args=(1000 * i,)) for i in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    everything = {key: entry for i in range(3) for key, entry in entries(100, 1000 * i).items()}
    found = known().find(list(everything))
    assert sum(entry is not None for entry in found) >= 100
    assert all(a in {None, b} for a, b in zip(found, everything.values(), strict=True))
    assert len(list(cache_directory.iterdir())) == 1


def test_where_the_file_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYSAE_CACHE_DIR", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.delenv("RAYSAE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "raysae"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert cache_directory() == tmp_path / "home" / ".cache" / "raysae"


def test_the_contents_have_one_size() -> None:
    assert len({len(content) for content in CONTENTS}) == 1
    assert len(set(CONTENTS)) == len(CONTENTS)


@pytest.mark.parametrize("skew", [0.0, 3600.0, -3600.0])
def test_a_write_in_the_tick_of_the_one_before_is_seen(skew: float) -> None:
    """It is not, if nothing is waited for: then the second snapshot has the first content."""
    for settle, right in ((known_files.SETTLE_S, True), (0.0, False)):
        with world(tick=2.0, skew=skew) as made, pytest.MonkeyPatch.context() as patch:
            patch.setattr(taking, "SETTLE_S", settle)
            made.due = [(made.now + 0.2, 1)]
            made.fingerprint()
            made.pass_time(10)
            assert (made.fingerprint() == made.content()) is right


@settings(max_examples=150)
@given(
    tick=st.sampled_from([0.004, 0.5, 1.0, 2.0]),
    skew=st.floats(-5000, 5000),
    pace=st.floats(0.001, 1.0),
    writes=st.lists(st.tuples(st.floats(0, 12), st.integers(0, 3)), max_size=12),
    pauses=st.lists(st.floats(0, 4), min_size=1, max_size=5),
)
def test_no_timing_makes_a_stale_entry(
    tick: float,
    skew: float,
    pace: float,
    writes: list[tuple[float, int]],
    pauses: list[float],
) -> None:
    """Writes at any moments, a clock wrong by any time: a quiet file has its own fingerprint."""
    with world(tick, skew, pace) as made:
        made.due = sorted((made.now + after, number) for after, number in writes)
        for pause in pauses:
            assert made.fingerprint() in made.held | {None}
            made.pass_time(pause)
        made.pass_time(20)
        for _ in range(2):
            assert made.fingerprint() == made.content()
