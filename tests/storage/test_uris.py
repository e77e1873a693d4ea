from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.errors import SettingsError, StorageError
from raysae.storage.uris import EXTRAS, LocalUri, ObjectUri, check_name, parse_uri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b", "/a/b"),
        ("/a b/ü#?*%41", "/a b/ü#?*%41"),
        ("c", f"{Path.cwd()}/c"),
        ("/a/", "/a"),
        ("file:///a/b", "/a/b"),
        ("file:///a%20b/%C3%BC", "/a b/ü"),
        ("file://localhost/a", "/a"),
        ("FILE:///a", "/a"),
    ],
)
def test_directories(uri: str, expected: str) -> None:
    assert parse_uri(uri) == LocalUri(Path(expected))
    assert str(parse_uri(uri)) == expected


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_uri("~/storage") == LocalUri(Path("/home/someone/storage"))


def test_dots_are_followed_through_links_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "there" / "deep")
    real = Path(os.path.realpath(tmp_path))
    assert parse_uri(f"{tmp_path}/link/../x") == LocalUri(real / "there" / "x")
    assert parse_uri(f"{tmp_path}/link/x") == LocalUri(tmp_path / "link" / "x")


@pytest.mark.parametrize(
    "uri", ["file://storage", "file://data/x", "file://", "file://localhost", "file://[x/y"]
)
def test_a_file_uri_that_names_no_absolute_path_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage: .*file:///path"):
        parse_uri(uri)


@pytest.mark.parametrize("uri", ["file:///runs#2", "file:///a?b"])
def test_a_file_uri_is_not_cut_short(uri: str) -> None:
    with pytest.raises(SettingsError, match="end the path"):
        parse_uri(uri)


@pytest.mark.parametrize(
    "uri", ["", "/a\0b", "s3://bucket/a\nb", "\t", "file:///a%00b", "file:///a%0ab"]
)
def test_what_names_nothing_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage: .*empty or has a control character"):
        parse_uri(uri)


@pytest.mark.parametrize("uri", ["s3:/bucket/a", "file:/a", "GS:/bucket"])
def test_a_lost_slash_makes_no_directory_of_that_name(uri: str) -> None:
    with pytest.raises(SettingsError, match="lacks a slash"):
        parse_uri(uri)


def test_a_home_directory_that_nobody_has_is_refused() -> None:
    with pytest.raises(SettingsError, match="is not known"):
        parse_uri("~no-such-user-here/storage")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/b", ObjectUri("s3", "bucket", "a/b")),
        ("S3://bucket/a/", ObjectUri("s3", "bucket", "a")),
        ("s3://bucket", ObjectUri("s3", "bucket", "")),
        ("s3://bucket/", ObjectUri("s3", "bucket", "")),
        ("gs://bucket/a b/ü%20", ObjectUri("gs", "bucket", "a b/ü%20")),
        ("az://box/a@b:c", ObjectUri("az", "box", "a@b:c")),
        ("abfs://box@me.dfs.x.net/a", ObjectUri("abfs", "box", "a", "me.dfs.x.net")),
    ],
)
def test_buckets(uri: str, expected: ObjectUri) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize("uri", ["s3://b", "s3://b/a/c", "gs://b/a b", "abfss://c@me.dfs.x.net/a"])
def test_a_uri_reads_as_it_was_written(uri: str) -> None:
    assert str(parse_uri(uri)) == uri
    assert parse_uri(str(parse_uri(uri))) == parse_uri(uri)


def test_clients_want_bucket_and_prefix_alone() -> None:
    parsed = parse_uri("abfs://box@me.dfs.core.windows.net/a/b")
    assert isinstance(parsed, ObjectUri)
    assert parsed.path == "box/a/b"
    assert parsed.account == "me"


@pytest.mark.parametrize(
    "uri", ["https://host/x", "hdfs://host/x", "s4://bucket", "://x", "memory://a"]
)
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage: .*scheme"):
        parse_uri(uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "gs:///"])
def test_a_bucket_is_needed(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^corpus: .*names no bucket"):
        parse_uri(uri, "corpus")


@pytest.mark.parametrize(
    "uri", ["s3://me:secret@bucket/a", "gs://secret@bucket", "s3://bucket:80/a", "az://secret@box"]
)
def test_credentials_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SettingsError, match="environment") as error:
        parse_uri(uri)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("letter", ["?", "#", "*", "\\", "[", "]"])
@pytest.mark.parametrize("place", ["s3://bucket/a{}b", "s3://buc{}ket/a", "s3://bucket/{}"])
def test_what_clients_read_as_something_else_is_refused(place: str, letter: str) -> None:
    with pytest.raises(SettingsError, match="name another prefix"):
        parse_uri(place.format(letter))


@pytest.mark.parametrize("prefix", ["a//b", "a/./b", "..", "a/..", "."])
def test_prefixes_that_stores_and_clients_read_differently_are_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="name another prefix"):
        parse_uri(f"s3://bucket/{prefix}")


def test_every_scheme_has_an_extra() -> None:
    for scheme in EXTRAS:
        assert isinstance(parse_uri(f"{scheme}://bucket/prefix"), ObjectUri)


@pytest.mark.parametrize("name", ["a", "a/b", ".tmp-x", "...", "a b", "ü", "a..b", "~", "-", "%2e"])
def test_names_below_a_storage(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/..",
        "a/./b",
        "a\\b",
        "a\0",
        "a\n",
        "\ud800",
    ],
)
def test_names_that_lead_out_of_a_storage_are_refused(name: str) -> None:
    with pytest.raises(StorageError, match="no name below a storage"):
        check_name(name)


@given(st.text())
def test_a_name_that_is_let_through_stays_below(name: str) -> None:
    try:
        check_name(name)
    except StorageError:
        return
    root = Path("/some/root")
    inside = Path(os.path.normpath(root / name))
    assert inside == root / name
    assert inside.is_relative_to(root)
    assert inside != root
    name.encode()
