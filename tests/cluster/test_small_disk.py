from __future__ import annotations

import errno

import pytest

from tests.cluster import small_disk as module
from tests.cluster.small_disk import fill, free, small_disk

MIB = 2**20


@pytest.fixture(params=["memory", "file"])
def disk(request, monkeypatch):
    if request.param == "file":
        monkeypatch.setattr(module, "_mount_memory", lambda directory, size: False)
    with small_disk(16 * MIB) as directory:
        yield directory


def write(path, size):
    with path.open("wb") as file:
        file.write(b"x" * size)


def test_it_holds_no_more_than_it_should(disk):
    write(disk / "fits", 4 * MIB)
    with pytest.raises(OSError) as full:
        write(disk / "does-not", 16 * MIB)
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize("leave", [0, MIB])
def test_it_is_filled_up_to_what_is_left(disk, leave):
    filler = fill(disk, leave)
    assert leave - 8192 < free(disk) <= leave
    with pytest.raises(OSError) as full:
        write(disk / "does-not", leave + 1)
    assert full.value.errno == errno.ENOSPC
    (disk / "does-not").unlink()
    filler.unlink()
    write(disk / "fits", 4 * MIB)


def test_it_is_filled_anew(disk):
    fill(disk, 0)
    fill(disk, 2 * MIB)
    assert free(disk) > MIB


def test_it_is_filled_up_beside_a_process_that_writes(disk, monkeypatch):
    too_much = iter([MIB, 0, 0])
    monkeypatch.setattr(module, "free", lambda directory: free(directory) + next(too_much, 0))
    fill(disk, 0)
    assert free(disk) <= 0


def test_it_is_gone_afterwards_whatever_happened():
    opened = []

    def leave_open_and_fail(directory):
        opened.append((directory / "file").open("wb"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), small_disk(MIB) as directory:
        leave_open_and_fail(directory)
    assert not directory.exists()
    opened[0].close()


def test_the_test_is_skipped_where_none_can_be_mounted(monkeypatch):
    monkeypatch.setattr(module, "_runs", lambda command: False)
    with pytest.raises(pytest.skip.Exception, match="rights of root"), small_disk(MIB):
        pass
