from __future__ import annotations

from pathlib import Path

import pytest

from raysae.artifacts.uses import USES, using
from raysae.storage import Directory, open_storage


def held(root: Directory) -> list[list[str]]:
    return [(root / USES).read_json(entry.key)["artifacts"] for entry in (root / USES).entries()]


def test_a_use_is_there_as_long_as_the_block_runs(tmp_path: Path) -> None:
    root = open_storage(str(tmp_path))
    with using(root, ["saes/b", "saes/a"]), using(root, ["scores"]):
        assert sorted(held(root)) == [["saes/a", "saes/b"], ["scores"]]
    assert held(root) == []


def test_an_exception_ends_it_too(tmp_path: Path) -> None:
    root = open_storage(str(tmp_path))
    with pytest.raises(KeyError), using(root, ["saes/a"]):
        raise KeyError
    assert held(root) == []
