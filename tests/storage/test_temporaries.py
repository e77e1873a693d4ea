from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysae.storage import is_temporary, temporaries, writer_is_dead
from raysae.storage.temporaries import TEMPORARY_PREFIX, temporary_name

CHILD = """
import sys
from raysae.storage.temporaries import temporary_name
print(temporary_name(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def fresh() -> None:
    """Nothing remembered of this machine and process."""
    temporaries._machine.cache_clear()
    temporaries._this_process.cache_clear()
    temporaries.boot_id.cache_clear()


def test_names_are_never_used_twice() -> None:
    names = {temporary_name() for _ in range(100)}
    assert len(names) == 100
    assert all(is_temporary(name) for name in names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{TEMPORARY_PREFIX}x", True),
        (f"a/b/{TEMPORARY_PREFIX}x", True),
        ("a/b.tmp-x", False),
        (f"{TEMPORARY_PREFIX}x/file", False),
        ("shard-00000.done.json", False),
        ("", False),
    ],
)
def test_the_last_part_of_a_name_says_whether_it_is_unfinished(name: str, expected: bool) -> None:
    assert is_temporary(name) is expected


def test_this_process_is_alive() -> None:
    assert not writer_is_dead(temporary_name())
    assert not writer_is_dead(f"kind/id/{temporary_name()}")


def test_a_killed_process_is_dead() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert is_temporary(name)
        assert not writer_is_dead(name)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert writer_is_dead(name)
    assert writer_is_dead(f"kind/id/{name}")


def test_a_process_that_got_a_dead_ones_number_does_not_keep_its_files() -> None:
    machine, pid, started, token = temporary_name().removeprefix(TEMPORARY_PREFIX).split("-")
    assert int(pid) == os.getpid()
    earlier = f"{TEMPORARY_PREFIX}{machine}-{pid}-{int(started) - 1}-{token}"
    assert writer_is_dead(earlier)


def test_processes_of_other_machines_may_be_alive() -> None:
    _, _, started, token = temporary_name().removeprefix(TEMPORARY_PREFIX).split("-")
    assert not writer_is_dead(f"{TEMPORARY_PREFIX}00000000-99999999-{started}-{token}")


@pytest.mark.parametrize(
    "name",
    [
        "shard-00000.done.json",
        f"{TEMPORARY_PREFIX}probe-0123456789abcdef",
        f"{TEMPORARY_PREFIX}0123",
        "",
    ],
)
def test_files_of_unknown_writers_are_left_alone(name: str) -> None:
    assert not writer_is_dead(name)


def test_a_forked_process_has_names_of_its_own() -> None:
    temporary_name()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, temporary_name().encode())
        os._exit(0)
    os.waitpid(child, 0)
    name = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert f"-{child}-" in name
    assert writer_is_dead(name)


def test_a_program_name_with_parentheses_is_read_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = " ".join(str(number) for number in range(3, 53))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"77 (a) b (c) {fields}")
    assert temporaries._started(77) == 22


@pytest.mark.usefixtures("fresh")
def test_where_the_system_tells_nothing_no_file_is_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object, **__: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", unknown)
    name = temporary_name()
    assert not writer_is_dead(name)
    temporaries._machine.cache_clear()
    assert not writer_is_dead(name)
    temporaries._machine.cache_clear()
    temporaries._this_process.cache_clear()
    temporaries.boot_id.cache_clear()
