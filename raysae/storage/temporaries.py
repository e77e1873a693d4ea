"""Names of unfinished files, which tell who writes them, so that only dead writers' are removed."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from functools import lru_cache
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
"""Files with this prefix are unfinished work of some process and are never read."""

_OWNED = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}([0-9a-f]{{8}})-(\d+)-(\d+)-[0-9a-f]{{16}}")


def temporary_name() -> str:
    """Return a name that was never used before: `.tmp-<machine>-<pid>-<started>-<random>`."""
    machine, pid, started = _this_process(os.getpid())
    return f"{TEMPORARY_PREFIX}{machine}-{pid}-{started}-{uuid.uuid4().hex[:16]}"


def is_temporary(name: str) -> bool:
    """Whether the last part of a name is that of an unfinished file."""
    return name.rsplit("/", 1)[-1].startswith(TEMPORARY_PREFIX)


def writer_is_dead(name: str) -> bool:
    """Whether the process that wrote a temporary file ran on this machine and is no more.

    False in doubt: another machine's processes, or another container's, cannot be seen from here.
    """
    found = _OWNED.match(name.rsplit("/", 1)[-1])
    if found is None or found[1] != _machine():
        return False
    pid, started = int(found[2]), _started(int(found[2]))
    return _is_gone(pid) if started is None else started != int(found[3])


def _is_gone(pid: int) -> bool:
    """Whether there is no process of that number, of another user's neither."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


@lru_cache(maxsize=8)
def _this_process(pid: int) -> tuple[str, int, int]:
    return _machine(), pid, _started(pid) or 0


def _started(pid: int) -> int | None:
    """Return when a process of this machine was started; None if there is none, or no way to know.

    In the kernel's ticks since it booted, which no change of the clock moves.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may hold blanks and parentheses.
    return int(status.rpartition(")")[2].split()[19])


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return 8 hex digits that differ between machines, their boots, and containers on them.

    Two containers share the machine's boot id, but each numbers its processes itself. Where the
    system tells neither, the process is taken for a machine of its own.
    """
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    if not (processes and boot_id()):
        return uuid.uuid4().hex[:8]
    return hashlib.sha256(f"{boot_id()}{processes}".encode()).hexdigest()[:8]


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return what differs between machines and their starts; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return ""
