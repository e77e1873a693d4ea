"""What the tests of verification and collection share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from raysae.errors import DataError
from raysae.storage import Directory
from raysae.upkeep.collect import CollectSettings, run_collect
from raysae.upkeep.verify import VerifySettings, run_verify


def verified(
    root: Directory, capsys: pytest.CaptureFixture[str], **settings: object
) -> tuple[bool, dict]:
    """Whether all is whole, and the document."""
    capsys.readouterr()
    try:
        run_verify(VerifySettings(str(root), json=True, **settings))  # type: ignore[arg-type]
        whole = True
    except DataError:
        whole = False
    (line,) = capsys.readouterr().out.splitlines()
    return whole, json.loads(line)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def data_file(directory: Directory, index: int = 0) -> str:
    return sorted(e.key for e in directory.entries() if e.key.startswith("data/"))[index]


DAMAGE: dict[str, Callable[[Directory, str], object]] = {
    "is missing": lambda directory, name: directory.delete(name),
    "is shorter": lambda directory, name: directory.put_bytes(
        name, directory.read_bytes(name)[:-1]
    ),
    "is longer": lambda directory, name: directory.put_bytes(
        name, directory.read_bytes(name) + b"x"
    ),
    "is altered": lambda directory, name: directory.put_bytes(
        name, flipped(directory.read_bytes(name))
    ),
}


def garbage(root: Directory, **settings: Any) -> dict[str, str]:
    """What can go, and why: names of artifacts and directories by reason."""
    items = run_collect(CollectSettings(str(root), **settings)).items
    return {item.name: item.reason for item in items}


def files(root: Directory) -> set[str]:
    return {entry.key for entry in root.entries()}


def during(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], when: Callable[[list[str]], bool]
) -> None:
    """Do something once, right after files that fit were removed."""
    remove, done = Directory.remove, False

    def removed(self: Directory, names: list[str]) -> None:
        nonlocal done
        remove(self, names)
        if not done and when([self.key(name) for name in names]):
            done = True
            act()

    monkeypatch.setattr(Directory, "remove", removed)
