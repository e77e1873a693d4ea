"""The patches reach the processes that have the directory on their path, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.run_local import REPOSITORY
from raysae.corpora import CorpusSettings, open_corpus
from raysae.errors import SettingsError
from tests.cluster.crashing.content import PYTHONPATH, write_crashing
from tests.cluster.crashing.deaths import CRASHING

READ = """
import sys
from raysae.corpora import CorpusSettings, open_corpus
from raysae.models import load_hidden_state_model, ModelSettings

step, path = sys.argv[1:]
corpus = open_corpus(CorpusSettings("crashing", path))
print(len(list(corpus.samples(corpus.read(0, 0, 2), 0))), flush=True)
if step == "prepare":
    model = load_hidden_state_model(ModelSettings(), "meta")
    samples = list(corpus.all_samples())
    model.prepare(samples[0])
    print("prepared", flush=True)
    model.prepare(samples[2])
list(corpus.samples(corpus.read(0, 0, 4), 0))
"""


@pytest.mark.parametrize(
    ("step", "said"), [("read", "2\n"), ("samples", "2\n"), ("prepare", "2\nprepared\n")]
)
def test_a_process_with_the_directory_on_its_path_dies_of_the_row(
    step: str, said: str, tmp_path: Path
) -> None:
    path = write_crashing(tmp_path / "a.parquet", 4, {2: (step, "exit")})
    done = subprocess.run(
        [sys.executable, "-c", READ, step, str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, said), done.stderr


def test_no_other_process_knows_the_corpus(tmp_path: Path) -> None:
    path = write_crashing(tmp_path / "a.parquet", 4, {})
    with pytest.raises(SettingsError, match="there is no corpus 'crashing'"):
        open_corpus(CorpusSettings(CRASHING, str(path)))


def test_nothing_of_raysae_is_imported_before_someone_asks_for_it() -> None:
    code = "import sys; print(sorted(m for m in sys.modules if m.split('.')[0] == 'raysae'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
