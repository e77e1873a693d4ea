from __future__ import annotations

import os
import pickle
import shutil
import time
from pathlib import Path

import pytest

from raysae.corpora import Corpus, CorpusSettings, local_files, open_corpus
from raysae.errors import DataError
from tests.corpora.rows import questions, row, write_rows

CHANGED = r"a\.parquet changed since the job began; run the job again\."


def opened(directory: Path) -> Corpus:
    """Open a corpus as a worker gets it."""
    corpus = open_corpus(CorpusSettings("align-anything", str(directory)))
    return pickle.loads(pickle.dumps(corpus))


def rewrite(path: Path, question: str, after_ns: int) -> None:
    """Write another row in as many bytes, so much later as the time of writing tells."""
    before = path.stat()
    time.sleep(0.02)  # Not within one tick of the file system's clock.
    write_rows(path, [row(question=question)])
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + after_ns))


@pytest.mark.parametrize("after_ns", [0, 1_000_000])
def test_a_file_rewritten_in_as_many_bytes_is_named(tmp_path: Path, after_ns: int) -> None:
    """Even by a program that sets the time of the last write back, as `rsync -t` does."""
    path = write_rows(tmp_path / "a.parquet", [row(question="before")])
    corpus = opened(tmp_path)
    rewrite(path, "after!", after_ns)
    with pytest.raises(DataError, match=CHANGED):
        corpus.read(0, 0, 1)


def test_a_file_rewritten_while_it_is_read_is_named(tmp_path: Path) -> None:
    rows = [row(question=f"q{i}") for i in range(3)]
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=1)
    corpus = opened(tmp_path)
    batches = corpus.batches(0, ["question"], rows=1)
    next(batches)
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match=CHANGED):
        list(batches)


@pytest.mark.parametrize("question", ["same", "else"])
def test_what_is_done_to_a_file_while_it_is_read(tmp_path: Path, question: str) -> None:
    """Another name for it is no other content."""
    path = write_rows(tmp_path / "a.parquet", [row(question="same")] * 3, row_group_size=1)
    corpus, before = opened(tmp_path), path.stat()
    batches = corpus.batches(0, ["question"], rows=1)
    next(batches)
    time.sleep(0.02)
    (tmp_path / "backup").hardlink_to(path)
    if question == "same":
        assert len(list(batches)) == 2
    else:
        write_rows(path, [row(question=question)] * 3, row_group_size=1)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(DataError, match=CHANGED):
            list(batches)


def test_a_file_that_is_damaged_while_it_is_read_is_named_as_changed(tmp_path: Path) -> None:
    rows = [row(question=f"q{i}") for i in range(3)]
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=1)
    corpus = opened(tmp_path)
    batches = corpus.batches(0, rows=1)
    next(batches)
    size = path.stat().st_size
    path.write_bytes(b"")
    os.truncate(path, size)
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match=CHANGED):
        list(batches)


def test_a_damaged_file_is_no_changed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk damages it, which no stamp tells."""
    path = write_rows(tmp_path / "a.parquet", [row()])
    corpus = opened(tmp_path)
    stamps = local_files._stamps(path)
    path.write_bytes(bytes(stamps.size))
    monkeypatch.setattr(local_files, "_stamps", lambda _: stamps)
    with pytest.raises(DataError, match=r"a\.parquet cannot be read .*restore it"):
        corpus.read(0, 0, 1)


def test_a_nodes_own_copy_is_read_and_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped corpora are installed on each node at another time."""
    path = write_rows(tmp_path / "a.parquet", [row(question="same")])
    corpus = opened(tmp_path)
    shutil.copyfile(path, tmp_path / "copy")
    os.utime(tmp_path / "copy", (1, 1))
    (tmp_path / "copy").replace(path)
    hashed: list[str] = []
    digest = local_files.hashlib.file_digest
    monkeypatch.setattr(
        local_files.hashlib, "file_digest", lambda *a: [hashed.append("a"), digest(*a)][1]
    )
    local_files._sha256.cache_clear()
    assert questions(corpus) == questions(corpus) == ["same"]
    assert hashed == ["a"]


def test_a_file_that_stayed_is_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "a.parquet", [row(question="same")])
    corpus = opened(tmp_path)
    monkeypatch.setattr(local_files, "_sha256", None)
    assert questions(corpus) == ["same"]
