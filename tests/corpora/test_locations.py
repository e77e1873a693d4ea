from __future__ import annotations

from pathlib import Path

import pytest

from raysae.corpora.locations import HubUri, parse_location
from raysae.errors import SettingsError
from raysae.storage.uris import LocalUri, ObjectUri


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/data/x", LocalUri(Path("/data/x"))),
        ("/data/100% #1?", LocalUri(Path("/data/100% #1?"))),
        ("file:///data/a%20b", LocalUri(Path("/data/a b"))),
        ("s3://bucket/a/b/", ObjectUri("s3", "bucket", "a/b")),
        ("abfs://container/a", ObjectUri("abfs", "container", "a")),
        ("hf://datasets/o/n", HubUri("o/n", "", "")),
        ("hf://datasets/o/n/", HubUri("o/n", "", "")),
        ("hf://datasets/o/n/a/b@c.parquet", HubUri("o/n", "", "a/b@c.parquet")),
        ("hf://datasets/o/n@v1/a", HubUri("o/n", "v1", "a")),
        ("hf://datasets/o/n@refs/pr/12/a", HubUri("o/n", "refs/pr/12", "a")),
        ("hf://datasets/o/n@refs/convert/parquet", HubUri("o/n", "refs/convert/parquet", "")),
        ("hf://datasets/o/n@refs%2Fpr%2F1/a b", HubUri("o/n", "refs/pr/1", "a b")),
    ],
)
def test_locations_are_read(path: str, location: object) -> None:
    assert parse_location(path, "corpus.path") == location
    if "%2F" not in path and path.startswith(("s3", "abfs", "hf")):
        assert str(location) == path.rstrip("/")


def test_a_path_object_is_a_path(tmp_path: Path) -> None:
    assert parse_location(tmp_path / "s3:" / "x", "x") == LocalUri(tmp_path / "s3:" / "x")


@pytest.mark.parametrize(
    "path",
    [
        "http://host/x",
        "s4://bucket/x",
        "hf://",
        "hf://datasets",
        "hf://datasets/o",
        "hf://datasets//n",
        "hf://datasets/o/@v1",
        "hf://datasets/o/n@",
        "hf://datasets/o/n/../x",
        "hf://datasets/../n",
        "hf://datasets/o/n@../x",
        "hf://spaces/o/n",
        "s3://bucket/../x",
        "file://host/x",
    ],
)
def test_others_are_refused_with_the_setting(path: str) -> None:
    with pytest.raises(SettingsError, match=r"^corpus\.path: "):
        parse_location(path, "corpus.path")
