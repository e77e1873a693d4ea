from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raysae.corpora import Corpus, CorpusSettings, objects, open_corpus
from raysae.corpora.columns import ColumnMap
from raysae.corpora.listing import Listing
from raysae.corpora.objects import list_objects
from raysae.errors import DataError, SettingsError
from raysae.storage.uris import ObjectUri
from tests.corpora.conftest import BUCKET, S3
from tests.corpora.rows import ODD_NAMES, parquet, questions, row
from tests.corpora.tables import WRITERS, feather


def opened(prefix: str, max_rows: int = 0) -> Corpus:
    return open_corpus(CorpusSettings("align-anything", f"s3://{BUCKET}/{prefix}", max_rows))


def test_a_prefix_is_a_corpus(s3: S3) -> None:
    data = {f"part-{i}": parquet([row(question=f"q{i}")]) for i in range(3)}
    for name, content in data.items():
        s3.put(f"set/{name}.parquet", content)
    s3.put("set/README.md", b"nothing")
    s3.put("set/_temporary/x.parquet", b"unfinished")
    s3.put("set-2/part-0.parquet", b"another prefix")
    s3.requests.clear()
    corpus = opened("set")
    for file, (name, content) in zip(corpus.snapshot.files, data.items(), strict=True):
        digest = hashlib.md5(content).hexdigest()
        assert file.fingerprint == f"etag:{len(content)}:{digest}"
        assert file.name == f"{name}.parquet"
        assert file.uri == f"s3://{BUCKET}/set/{name}.parquet"
    # One listing, the end of each file, and a listing to see that nothing changed meanwhile.
    assert s3.operations() == ["list_objects_v2", *["get_object"] * 3, "list_objects_v2"]
    assert questions(pickle.loads(pickle.dumps(corpus))) == ["q0", "q1", "q2"]


def test_a_single_object_is_a_corpus(s3: S3) -> None:
    s3.put("set/one.parquet", parquet([row(question="one")]))
    s3.put("set/two.parquet", parquet([row(question="two")]))
    corpus = opened("set/two.parquet")
    assert [file.name for file in corpus.snapshot.files] == ["two.parquet"]
    assert questions(corpus) == ["two"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_read(s3: S3, name: str) -> None:
    s3.put(f"odd ü/{name}", parquet([row(question=name)]))
    corpus = opened("odd ü")
    assert [file.name for file in corpus.snapshot.files] == [name]
    assert questions(corpus) == [name]


def test_only_the_rows_asked_for_are_fetched(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes
    rows = [row(question=f"q{i}", image=noise(20_000)) for i in range(60)]
    data = parquet(rows, row_group_size=20)
    s3.put("big/a.parquet", data)
    corpus = opened("big")
    for limit in (2**25, 0):  # whole row groups, and pieces of 8 MiB
        monkeypatch.setattr("raysae.corpora.reading.WHOLE_GROUPS_BYTES", limit)
        s3.requests.clear()
        table = corpus.read(0, 45, 50)
        assert table["question"].to_pylist() == [f"q{i}" for i in range(45, 50)]
        assert table.schema == corpus.schema
        gets = [options for operation, options in s3.requests if operation == "get_object"]
        # The snapshot's tag is a condition of each.
        tag = corpus.snapshot.files[0].fingerprint.rpartition(":")[2]
        assert {options["IfMatch"].strip('"') for options in gets} == {tag}
        assert sum(map(_length, gets)) < len(data) / 3 + 2**17
        assert len(gets) <= 3 or limit == 0


def _length(options: dict[str, Any]) -> int:
    first, last = options["Range"].removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def test_max_rows_needs_few_requests(s3: S3) -> None:
    for i in range(40):
        s3.put(f"many/{i:02}.parquet", parquet([row(question=f"q{i}")]))
    s3.requests.clear()
    assert questions(opened("many", 2)) == ["q0", "q1"]
    assert s3.operations().count("get_object") <= 3 + 2 * 3  # the ends of three, then the rows


def test_a_long_footer_is_fetched_in_two_requests(s3: S3) -> None:
    rows = [row(question=f"q{i}", image=b"x") for i in range(400)]
    data = parquet(rows, row_group_size=1)
    assert int.from_bytes(data[-8:-4], "little") > 2**16
    s3.put("long/a.parquet", data)
    s3.requests.clear()
    assert opened("long").snapshot.rows == 400
    assert s3.operations().count("get_object") == 2


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"s3://{BUCKET}/nothing/here", "does not exist"),
        ("s3://no-such-bucket-7/x", "does not exist"),
        (f"s3://{BUCKET}/../x", r"'\.\.'"),
        ("s3://", "no bucket"),
        ("ftp://host/x", "scheme 'ftp'.*hf://"),
    ],
)
def test_what_is_not_there_is_named(s3: S3, uri: str, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"^corpus\.path: .*{message}"):
        open_corpus(CorpusSettings("align-anything", uri))


def test_no_parquet_and_no_rows(s3: S3) -> None:
    s3.put("empty/readme.md", b"x")
    with pytest.raises(DataError, match=r"no file named \*\.parquet"):
        opened("empty")
    s3.put("empty/a.parquet", b"")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet"):
        opened("empty")
    s3.put("empty/a.parquet", b"PAR1 no more")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet"):
        opened("empty")
    s3.put("empty/a.parquet", parquet([]))
    with pytest.raises(DataError, match="no rows"):
        opened("empty")


@pytest.mark.parametrize("denied", ["list_objects_v2", "get_object"])
def test_what_is_denied_is_named(s3: S3, denied: str) -> None:
    s3.put("set/a.parquet", parquet([row()]))
    expected = SettingsError if denied == "list_objects_v2" else DataError
    error = PermissionError("Access Denied")
    with failing(denied, error), pytest.raises(expected, match="Access Denied"):
        opened("set")


def test_a_client_without_credentials_is_named(s3: S3) -> None:
    class NoCredentialsError(Exception):
        """As botocore has it: no OSError."""

    s3.put("set/a.parquet", parquet([row()]))
    corpus = opened("set")
    error = NoCredentialsError("Unable to locate credentials")
    said = "NoCredentialsError: Unable to locate credentials"
    with failing("list_objects_v2", error), pytest.raises(SettingsError, match=said):
        opened("set")
    said = rf"a\.parquet cannot be read \({said}"
    with failing("get_object", error), pytest.raises(DataError, match=said):
        corpus.read(0, 0, 1)


@contextmanager
def failing(denied: str, error: Exception) -> Iterator[None]:
    """Let one operation of S3 raise an error."""
    import s3fs

    send = s3fs.S3FileSystem._call_s3

    async def refuse(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method == denied:
            raise error
        return await send(self, method, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_call_s3", refuse)
        yield


def test_an_object_that_changed_or_vanished_is_named(s3: S3) -> None:
    s3.put("set/a.parquet", parquet([row(question="before")]))
    corpus = opened("set")
    s3.put("set/a.parquet", parquet([row(question="after!")]))
    with pytest.raises(DataError, match=r"a\.parquet changed since the job began"):
        corpus.read(0, 0, 1)
    s3.files.rm(f"{BUCKET}/set/a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        corpus.read(0, 0, 1)


def test_an_object_that_changes_while_it_is_read_is_named(s3: S3) -> None:
    rows = [row(question=f"q{i}") for i in range(300)]
    s3.put("set/a.parquet", parquet(rows, row_group_size=100))
    corpus = opened("set")
    batches = corpus.batches(0, ["question"])
    next(batches)
    s3.put("set/a.parquet", parquet(rows[::-1], row_group_size=100))
    with pytest.raises(DataError, match=r"a\.parquet changed since the job began"):
        list(batches)


def test_a_change_while_the_corpus_is_opened_is_named(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("set/a.parquet", parquet([row(question="before")]))
    listings: list[Listing] = []

    def list_then_write(location: ObjectUri, setting: str) -> Listing:
        listings.append(list_objects(location, setting))
        s3.put("set/a.parquet", parquet([row(), row()]))
        return listings[-1]

    monkeypatch.setattr("raysae.corpora.taking.list_objects", list_then_write)
    with pytest.raises(DataError, match=r"a\.parquet changed while the corpus was opened"):
        opened("set")


class StoredObjects:
    """A client of another store: what it lists is given."""

    def __init__(self, infos: dict[str, dict[str, Any]]) -> None:
        self.infos = infos

    def find(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
        return {key: info for key, info in self.infos.items() if key.startswith(path)}


def test_other_stores_clients_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    google = {
        "b/p/a.parquet": {"size": 5, "md5Hash": "CY9rzUYh03PK3k6DJie09g==", "etag": "x="},
        "b/p/composed.parquet": {"size": 5, "etag": "CKih16GjycICEAE=", "generation": "1"},
    }
    azure = {"b/p/a.parquet": {"size": 5, "etag": '"0x8D"', "last_modified": moment}}
    for scheme, infos in {"gs": google, "abfs": azure}.items():
        store = StoredObjects(infos)
        monkeypatch.setattr(objects, "object_filesystem", lambda *_, s=store: s)
        listing = list_objects(ObjectUri(scheme, "b", "p"), "corpus.path")
        kinds = [file.fingerprint.split(":")[0] for file in listing.files]
        assert kinds == (["md5", "version"] if scheme == "gs" else ["version"])
        assert listing.root == f"{scheme}://b/p"


@pytest.mark.parametrize("tail", ["set", "set/a@b.parquet"])
def test_the_account_of_a_uri_is_asked(monkeypatch: pytest.MonkeyPatch, tail: str) -> None:
    data = parquet([row(question="azure")])
    accounts: list[str] = []

    class Azure(StoredObjects):
        def find(self, path: str, detail: bool) -> Any:
            return [path] if path in self.infos else super().find(path, detail)

        def cat_file(self, path: str, start: int, end: int) -> bytes:
            assert path in self.infos
            return data[start:end]

        def info(self, path: str) -> dict[str, Any]:
            return self.infos[path]

        def open(self, path: str, mode: str, cache_type: str) -> Any:
            handle = io.BytesIO(data)
            handle.details = self.infos[path]  # type: ignore[attr-defined]
            return handle

    def open_client(scheme: str, setting: str, account: str = "") -> Azure:
        accounts.append(account)
        return Azure({"box/set/a@b.parquet": {"size": len(data), "etag": '"0x8D"'}})

    monkeypatch.setattr(objects, "object_filesystem", open_client)
    place = "abfs://box@me.dfs.core.windows.net"
    corpus = open_corpus(CorpusSettings("align-anything", f"{place}/{tail}"))
    assert [file.uri for file in corpus.snapshot.files] == [f"{place}/set/a@b.parquet"]
    assert questions(corpus) == ["azure"]
    assert set(accounts) == {"me"}


def test_a_store_without_tags_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store = StoredObjects({"b/p/a.parquet": {"size": 5}})
    monkeypatch.setattr(objects, "object_filesystem", lambda *_: store)
    with pytest.raises(SettingsError, match="no entity tag"):
        list_objects(ObjectUri("s3", "b", "p"), "corpus.path")


def test_a_local_copy_has_other_ids_but_the_same_rows(s3: S3, tmp_path: Path) -> None:
    data = parquet([row(question="same")])
    s3.put("set/a.parquet", data)
    (tmp_path / "a.parquet").write_bytes(data)
    local = open_corpus(CorpusSettings("align-anything", str(tmp_path)))
    remote = opened("set")
    assert remote.read(0, 0, 1) == local.read(0, 0, 1)
    assert remote.snapshot.sample_id(0) != local.snapshot.sample_id(0)


NUMBERED = pa.Table.from_batches(
    [
        pa.record_batch({"question": [f"{i} {'x' * 2000}" for i in range(first, first + 50)]})
        for first in range(0, 500, 50)
    ]
)


def mapped(place: Path | str, max_rows: int = 0) -> Corpus:
    columns = ColumnMap(question="question", chosen="question")
    return open_corpus(CorpusSettings("generic", str(place), max_rows, columns=columns))


@pytest.mark.parametrize("end", [".jsonl", ".arrow", ".feather"])
def test_other_formats_are_read_as_local_ones(s3: S3, tmp_path: Path, end: str) -> None:
    for number in range(2):
        data = WRITERS[end](NUMBERED.slice(200 * number, 130))
        s3.put(f"set/{number}{end}", data)
        (tmp_path / f"{number}{end}").write_bytes(data)
    s3.requests.clear()
    remote, local = mapped(f"s3://{BUCKET}/set"), mapped(tmp_path)
    operations = s3.operations()
    assert operations.count("list_objects_v2") == 2
    # A file's end says where its batches are, and they are read from its start.
    assert operations.count("get_object") <= (2 * 4 if end == ".feather" else 2)
    assert remote.schema == local.schema
    for index, start, stop in [(0, 0, 130), (0, 49, 51), (1, 64, 128), (1, 129, 130), (1, 7, 7)]:
        assert remote.read(index, start, stop) == local.read(index, start, stop)
    first = mapped(f"s3://{BUCKET}/set", 7)
    assert list(first.all_samples())[6].chosen == NUMBERED["question"][6].as_py()
    assert first.snapshot.rows == 7
    s3.put(f"set/0{end}", WRITERS[end](NUMBERED.slice(10, 130)))
    with pytest.raises(DataError, match=rf"0\{end} changed since the job began"):
        remote.read(0, 0, 5)


@pytest.mark.parametrize("end", [".jsonl", ".arrow", ".feather"])
def test_a_range_of_other_formats_is_fetched_alone(
    s3: S3, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr("raysae.corpora.reading.ARROW_BUFFER_BYTES", 2**14)
    data = (
        WRITERS[end](NUMBERED) if end != ".feather" else feather(NUMBERED, "uncompressed", chunk=50)
    )
    s3.put(f"big/a{end}", data)
    corpus = mapped(f"s3://{BUCKET}/big")
    s3.requests.clear()
    table = corpus.read(0, 320, 340)
    assert table["question"].to_pylist() == NUMBERED["question"].to_pylist()[320:340]
    gets = [options for operation, options in s3.requests if operation == "get_object"]
    tag = corpus.snapshot.files[0].fingerprint.rpartition(":")[2]
    assert {options["IfMatch"].strip('"') for options in gets} == {tag}
    assert sum(map(_length, gets)) < 70 * 2100 + 5 * 2**14
    assert len(gets) <= (1 if end == ".jsonl" else 8)


def test_lines_that_change_while_they_are_read_are_named(s3: S3) -> None:
    s3.put("set/a.jsonl", WRITERS[".jsonl"](NUMBERED))
    corpus = mapped(f"s3://{BUCKET}/set")
    batches = corpus.batches(0)
    next(batches)
    s3.put("set/a.jsonl", WRITERS[".jsonl"](NUMBERED.take(np.arange(500)[::-1])))
    with pytest.raises(DataError, match=r"a\.jsonl changed since the job began"):
        list(batches)


@pytest.mark.parametrize("name", ["a.jsonl", "a.arrow"])
def test_damaged_objects_of_other_formats_are_named(s3: S3, name: str) -> None:
    data = WRITERS[Path(name).suffix](NUMBERED)
    s3.put(f"set/{name}", data[:-20])
    if name == "a.arrow":
        with pytest.raises(DataError, match=r"a\.arrow cannot be read as Arrow"):
            mapped(f"s3://{BUCKET}/set")
    else:
        *_, last = mapped(f"s3://{BUCKET}/set").all_samples()
        assert (last.ordinal, last.reason) == (499, "broken-json")
