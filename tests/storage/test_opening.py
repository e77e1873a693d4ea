from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import DataError, SettingsError
from raysae.storage import (
    FORMAT_VERSION,
    MARKER,
    Directory,
    check_format,
    open_storage,
    opening,
    retry,
    storage_at,
)
from raysae.storage.filesystems import _filesystem_of
from raysae.storage.objects import ObjectBackend
from tests.storage.fake_store import URI, Client, Store


def test_a_new_storage_holds_its_format_and_nothing_else(storage_uri: str) -> None:
    for _ in range(2):
        root = open_storage(storage_uri)
        assert [entry.key for entry in root.entries()] == [MARKER]
        assert root.read_json(MARKER) == {"format_version": FORMAT_VERSION}
        check_format(root)
    assert str(root) == storage_uri
    assert pickle.loads(pickle.dumps(root)).exists(MARKER)


def test_looking_creates_nothing(tmp_path: Path) -> None:
    storage_at(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, FORMAT_VERSION - 1, None, "2"])
def test_another_format_is_refused_and_left_as_it_is(storage_uri: str, version: object) -> None:
    root = storage_at(storage_uri)
    root.put_json(MARKER, {"format_version": version})
    with pytest.raises(DataError, match=rf"is a storage of format {version}.*{FORMAT_VERSION}"):
        open_storage(storage_uri)
    assert root.read_json(MARKER) == {"format_version": version}
    assert [entry.key for entry in root.entries()] == [MARKER]


def test_a_damaged_marker_is_named_with_what_belongs_there(storage_uri: str) -> None:
    root = open_storage(storage_uri)
    root.put_bytes(MARKER, b"garbage")
    said = rf'{MARKER} is damaged; write {{"format_version": {FORMAT_VERSION}}} into it'
    with pytest.raises(DataError, match=said):
        open_storage(storage_uri)


def test_a_directory_that_is_no_storage_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no storage of raysae's"):
        check_format(storage_at(str(tmp_path)))


def test_a_directory_that_holds_other_things_becomes_a_storage(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x")
    open_storage(str(tmp_path))
    assert (tmp_path / "other").read_bytes() == b"x"


@pytest.mark.parametrize("below", ["", "storage"])
def test_a_file_in_the_way_is_a_setting(tmp_path: Path, below: str) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"^corpus: .*cannot hold artifacts: .*a-file") as error:
        open_storage(str(tmp_path / "a-file" / below), "corpus")
    assert error.value.exit_code == 2


def test_a_bucket_that_is_not_there_is_a_setting(s3_server: str) -> None:
    with pytest.raises(SettingsError, match=r"s3://none-such/x .*there is no such bucket"):
        open_storage("s3://none-such/x")


def test_missing_credentials_are_a_setting(
    s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    client = _client_of_its_own()
    root = Directory(ObjectBackend(URI, client))
    monkeypatch.setattr(opening, "storage_at", lambda *_: root)
    with pytest.raises(SettingsError, match=r"no credentials.*environment of every node"):
        open_storage("s3://raysae-tests/x")


def _client_of_its_own() -> Any:
    import s3fs

    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


def refusing(kind: str) -> Callable[[str, str], None]:
    def step(name: str, path: str) -> None:
        if name == kind:
            raise PermissionError("Access Denied")

    return step


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Client], Directory]:
    """Opens a storage that lies behind a client."""

    def open_client(client: Client) -> Directory:
        root = Directory(ObjectBackend(URI, client))
        monkeypatch.setattr(opening, "storage_at", lambda *_: root)
        return open_storage("s3://bucket/pre fix")

    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    return open_client


@pytest.mark.parametrize("kind", ["create", "get", "list"])
def test_a_store_that_denies_what_a_job_needs_is_a_setting(
    opened: Callable[[Client], Directory], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store()
    with pytest.raises(
        SettingsError, match=r"^storage: .*cannot hold artifacts: .*denied"
    ) as error:
        opened(Client(store, refusing(kind)))
    assert "storage: s3" not in str(error.value).removeprefix("storage: s3")
    assert store.objects == {}
    assert capsys.readouterr().out == ""


def test_a_store_that_deletes_nothing_can_be_worked_with(
    opened: Callable[[Client], Directory], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store()
    opened(Client(store, refusing("delete")))
    assert "warning: nothing can be deleted" in capsys.readouterr().out
    assert json.loads(store.objects[f"bucket/pre fix/{MARKER}"])["format_version"] == FORMAT_VERSION


def test_a_store_without_conditional_writes_is_refused(
    opened: Callable[[Client], Directory],
) -> None:
    class Ignoring(Client):
        def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
            super().pipe_file(path, data)

    store = Store()
    with pytest.raises(SettingsError, match="lets two writers create one file"):
        opened(Ignoring(store))
    assert store.objects == {}


def test_a_store_that_lists_late_is_refused(opened: Callable[[Client], Directory]) -> None:
    class Late(Client):
        def find(self, path: str, detail: bool, prefix: str = "") -> dict[str, Any]:
            return {}

    store = Store()
    with pytest.raises(SettingsError, match="is not listed"):
        opened(Late(store))
    assert store.objects == {}


def test_a_store_that_reads_old_content_is_refused(opened: Callable[[Client], Directory]) -> None:
    class Old(Client):
        def cat_file(self, path: str, **named: Any) -> bytes:
            super().cat_file(path, **named)
            return b"old"

    with pytest.raises(SettingsError, match="reads otherwise than written"):
        opened(Old(Store()))


def test_opening_sends_few_requests(opened: Callable[[Client], Directory]) -> None:
    requests: list[str] = []
    client = Client(Store(), lambda name, _: requests.append(name))
    probing = ["create", "create", "get", "get", "list", "delete"]
    opened(client)
    assert requests == ["get", *probing, "create", "get"]
    requests.clear()
    opened(client)
    assert requests == ["get", *probing]


def test_nothing_is_written_to_a_storage_of_another_format(
    opened: Callable[[Client], Directory],
) -> None:
    store, requests = Store(), list[str]()
    root = Directory(ObjectBackend(URI, Client(store)))
    root.put_json(MARKER, {"format_version": FORMAT_VERSION + 1})
    with pytest.raises(DataError, match="install the raysae that made it"):
        opened(Client(store, lambda name, _: requests.append(name)))
    assert requests == ["get"]


def test_a_client_that_is_not_installed_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise ImportError("no module named gcsfs")

    monkeypatch.setattr("fsspec.filesystem", missing)
    _filesystem_of.cache_clear()
    with pytest.raises(SettingsError, match=r"pip install 'raysae\[gs\]'"):
        storage_at("gs://bucket/x", "corpus")
