"""`ray job submit` of every job: exit codes, result lines, and an uploaded working directory."""

from __future__ import annotations

import shutil

import pytest

from deploy.run_local import REPOSITORY
from tests.cluster.content import (
    cached_ids,
    dataset_files,
    history,
    live_scores,
    marks,
    read,
    scored_ids,
    source_ids,
    subset,
)
from tests.cluster.harness import run_job
from tests.cluster.settings import ROWS, SCORERS, SHARDS, STEPS, TUNE_STEPS, options

pytestmark = pytest.mark.cluster

SHIPPED = ("jobs", "raysae", "pyproject.toml", ".gitignore", ".rayignore")


def last_line_of_the_job(ended) -> str:
    """What the job's own script printed last: neither the client's lines nor other processes'."""
    others = ("\x1b", "20", "(raylet)", "(autoscaler")
    printed = [line for line in ended.output.splitlines() if not line.startswith(others)]
    return [line for line in printed if line.strip()][-1]


def test_the_cache_job(undisturbed):
    ended, cache = undisturbed.ended["cache"], undisturbed.storage.artifact("activations")
    assert ended.client == 0
    assert last_line_of_the_job(ended).startswith("RAYSAE_RESULT ")
    assert ended.result == {
        "job": "cache",
        "artifact": str(cache),
        "kind": "activations",
        "rows": ROWS,
        "rejected": 0,
        "seconds": ended.result["seconds"],
        "resumed": False,
        "exit_code": 0,
    }
    assert cached_ids(cache) == source_ids("builtin", ROWS)
    assert len(dataset_files(cache)) == len(marks(cache)) == SHARDS


def test_the_train_job(undisturbed):
    ended, sae = undisturbed.ended["train"], undisturbed.storage.artifact("saes")
    assert (ended.client, ended.result["kind"]) == (0, "saes")
    assert ended.result["artifact"] == str(sae)
    assert history(sae)[-1]["step"] == STEPS
    assert not (sae / "checkpoints").exists()


def test_the_filter_job(undisturbed):
    ended, kept = undisturbed.ended["filter"], undisturbed.storage.artifact("subsets")
    assert (ended.client, ended.result["kind"]) == (0, "subsets")
    assert ended.result["rows"] == ROWS // 2 == len(subset(kept)[0])
    ids = scored_ids(live_scores(undisturbed.storage))
    assert len(ids) == SCORERS
    for scored in ids.values():
        assert scored == source_ids("builtin-noisy", ROWS)
    assert (undisturbed.storage.artifact("reports") / "report.html").stat().st_size > 0


def test_the_finetune_job(undisturbed):
    ended, tuned = undisturbed.ended["finetune"], undisturbed.storage.artifact("tuned")
    assert (ended.client, ended.result["kind"]) == (0, "tuned")
    assert ended.result["artifact"] == str(tuned)
    steps = [step["step"] for step in read(tuned / "metadata.json")["steps"]]
    assert steps == list(range(1, TUNE_STEPS + 1))
    assert (tuned / "config.json").exists()
    assert not (tuned / "work").exists()


def test_a_bad_setting_ends_with_exit_code_2(runner):
    ended = runner.run("filter", "--sae.k=129")
    assert ended.client == 1
    assert ended.exit_code == 2
    assert "sae.k" in ended.output
    assert last_line_of_the_job(ended).startswith("RAYSAE_RESULT ")
    assert list(runner.storage.root.iterdir()) == []


@pytest.fixture
def copy(tmp_path):
    """The repository's code alone, in another place; importing it there shows in the output."""
    directory = tmp_path / "copy"
    directory.mkdir()
    for name in SHIPPED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(
                source, directory / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        else:
            shutil.copy2(source, directory)
    with (directory / "raysae" / "stages" / "cache.py").open("a") as module:
        module.write('\nprint("imported from the upload", flush=True)\n')
    return directory


def test_an_uploaded_working_directory_is_what_runs(undisturbed, runner, copy):
    ended = run_job(
        runner.head,
        ["jobs/cache.py", *options(runner.storage.root, runner.model)],
        runner.logs / "uploaded.log",
        ["--working-dir", str(copy)],
        cwd=copy.parent,
    )
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    said = [line for line in ended.output.splitlines() if "imported from the upload" in line]
    assert "imported from the upload" in said, "the driver ran other code"
    assert any("MapWorker" in line for line in said), "the actors ran other code"
    assert cached_ids(runner.storage.artifact("activations")) == source_ids("builtin", ROWS)


def test_a_relative_storage_in_an_uploaded_directory_is_refused(runner, copy):
    ended = run_job(
        runner.head,
        ["jobs/filter.py", *options("storage", runner.model)],
        runner.logs / "relative.log",
        ["--working-dir", str(copy)],
        cwd=copy.parent,
    )
    assert ended.exit_code == 2
    assert "'storage' is relative" in ended.output
