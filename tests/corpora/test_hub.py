from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.corpora.columns import ColumnMap
from raysae.errors import DataError, SettingsError
from tests.corpora.hub_server import Hub
from tests.corpora.rows import ODD_NAMES, parquet, questions, row
from tests.corpora.tables import WRITERS

HERE = "hf://datasets/owner/pairs"


def opened(uri: str = HERE, max_rows: int = 0) -> Corpus:
    return open_corpus(CorpusSettings("align-anything", uri, max_rows))


def test_a_data_set_is_a_corpus(hub: Hub) -> None:
    data = {f"data/{i}.parquet": parquet([row(question=f"q{i}")]) for i in range(3)}
    commit = hub.push({**data, "README.md": b"#", "data/_tmp/x.parquet": b"unfinished"})
    corpus = opened(f"{HERE}/data")
    for file, (path, content) in zip(corpus.snapshot.files, data.items(), strict=True):
        assert file.fingerprint == hashlib.sha256(content).hexdigest()
        assert file.uri == f"{HERE}@{commit}/{path}"
    assert questions(corpus) == ["q0", "q1", "q2"]
    assert [file.name for file in opened().snapshot.files] == list(data)


def test_large_files_have_the_ids_of_their_local_copies(hub: Hub, tmp_path: Path) -> None:
    data = {"a.parquet": parquet([row(), row()]), "b.parquet": parquet([row(question="b")])}
    hub.push(data)
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    local = open_corpus(CorpusSettings("align-anything", str(tmp_path)))
    assert opened().snapshot.to_json() == local.snapshot.to_json()
    assert opened().snapshot.sample_id(2) == local.snapshot.sample_id(2)


def test_small_files_have_their_blobs_hash(hub: Hub) -> None:
    content = parquet([row()])
    hub.plain.add("a.parquet")
    hub.push({"a.parquet": content})
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert opened().snapshot.files[0].fingerprint == f"git:{blob}"


def test_a_push_changes_nothing_for_an_open_corpus(hub: Hub) -> None:
    hub.push({"a.parquet": parquet([row(question="before")])})
    corpus = opened()
    hub.push({"a.parquet": parquet([row(question="after")])})
    assert questions(corpus) == ["before"]
    assert questions(opened()) == ["after"]


@pytest.mark.parametrize("revision", ["v1.0", "refs/convert/parquet", "refs%2Fpr%2F3", "refs/pr/3"])
def test_revisions_are_found(hub: Hub, revision: str) -> None:
    hub.push({"x/a.parquet": parquet([row(question="old")])}, revision.replace("%2F", "/"))
    hub.push({"x/a.parquet": parquet([row(question="new")])})
    assert questions(opened(f"{HERE}@{revision}/x")) == ["old"]
    assert questions(opened(f"{HERE}/x")) == ["new"]


@pytest.mark.parametrize("name", [*ODD_NAMES, "a@b.parquet", "refs/pr/1/x.parquet"])
def test_odd_names_are_read(hub: Hub, name: str) -> None:
    hub.push({f"odd ü/{name}": parquet([row(question=name)])})
    corpus = opened(f"{HERE}/odd ü")
    assert [file.name for file in corpus.snapshot.files] == [name]
    assert questions(corpus) == [name]


def test_a_single_file_is_a_corpus(hub: Hub) -> None:
    hub.push({"x/one.parquet": parquet([row(question="one")]), "x/two.parquet": b""})
    corpus = opened(f"{HERE}/x/one.parquet")
    assert [file.name for file in corpus.snapshot.files] == ["one.parquet"]
    assert questions(corpus) == ["one"]


def test_requests_are_few(hub: Hub) -> None:
    """A page of the tree for each thousand files, and no look at single ones."""
    content = parquet([row()])
    hub.push({f"{i:04}.parquet": content for i in range(2500)})
    hub.requests.clear()
    opened(max_rows=1)
    trees = [request for request in hub.requests if "/tree/" in request]
    assert len(trees) <= 4
    assert len(hub.requests) - len(trees) <= 2 + 3  # the revision twice, and some ends
    corpus = opened(max_rows=3)
    hub.requests.clear()
    corpus.read(0, 0, 1)
    assert len(hub.requests) == 2  # the end and the rows, each by its range


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://datasets/owner/other", "does not exist"),
        (f"{HERE}@no-such-tag", "does not exist"),
        (f"{HERE}/no/such/directory", "does not exist"),
        ("hf://owner/model", "names no data set"),
        ("hf://datasets/squad", "names no data set"),
        ("hf://buckets/owner/x", "names no data set"),
        (f"{HERE}/../x", r"'\.\.'"),
        (f"{HERE}@/x", "empty part"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, uri: str, message: str) -> None:
    hub.push({"a.parquet": parquet([row()])})
    with pytest.raises(SettingsError, match=rf"^corpus\.path: .*{message}"):
        opened(uri)


def test_no_parquet_is_named(hub: Hub) -> None:
    hub.push({"train.jsonl.gz": b"{}"})
    with pytest.raises(DataError, match=r"no file named \*\.parquet.*refs/convert/parquet"):
        opened()


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_denied_is_named(hub: Hub, status: int) -> None:
    hub.push({"a.parquet": parquet([row()])})
    corpus = opened()
    hub.status = status
    with pytest.raises(SettingsError, match=r"does not exist|permission denied"):
        opened()
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        corpus.read(0, 0, 1)


def test_offline_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.push({"a.parquet": parquet([row()])})
    corpus = opened()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SettingsError, match="HF_HUB_OFFLINE is set; unset it, or download"):
        opened()
    with pytest.raises(DataError, match=r"a\.parquet cannot be read.*offline mode"):
        corpus.read(0, 0, 1)


def test_an_unreachable_server_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SettingsError, match=r"cannot be listed .*; see to the network"):
        opened()


def test_a_file_that_vanished_is_named(hub: Hub) -> None:
    commit = hub.push({"a.parquet": parquet([row()])})
    corpus = opened()
    del hub.commits[commit]["a.parquet"]
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        corpus.read(0, 0, 1)


@pytest.mark.parametrize("end", [".jsonl", ".arrow", ".feather"])
def test_other_formats_are_read_as_local_ones(hub: Hub, tmp_path: Path, end: str) -> None:
    table = pa.table({"question": [f"{i} {'x' * 2000}" for i in range(300)]})
    data = WRITERS[end](table)
    hub.plain.add(f"d/a{end}")
    hub.push({f"d/a{end}": data, "d/dataset_info.json": b"{}"})
    (tmp_path / f"a{end}").write_bytes(data)
    remote, local = (
        open_corpus(CorpusSettings("generic", place, columns=ColumnMap(question="question")))
        for place in (f"{HERE}/d", str(tmp_path))
    )
    assert remote.schema == local.schema
    assert remote.snapshot.file_rows == [300]
    hub.requests.clear()
    for start, stop in [(0, 300), (63, 129), (200, 201), (299, 300)]:
        assert remote.read(0, start, stop) == local.read(0, start, stop)
    assert len(hub.requests) <= (4 if end == ".jsonl" else 20)


def test_several_formats_are_refused(hub: Hub) -> None:
    hub.push({"a.jsonl": b"{}\n", "b.parquet": parquet([row()])})
    with pytest.raises(DataError, match=r"1 of JSON lines, 1 of Parquet.*name the directory"):
        opened()
