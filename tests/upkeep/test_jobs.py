"""The three scripts, as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysae.upkeep.collect import CollectSettings, run_collect
from raysae.upkeep.status import StatusSettings, run_status
from raysae.upkeep.verify import VerifySettings, run_verify
from tests.upkeep.builders import (
    INPUTS,
    WEEK,
    age,
    new_storage,
    odd_files,
    row_group,
    sharded,
    tree,
    write_scores,
)

JOBS = Path(__file__).parents[2] / "jobs"


def run(name: str, *arguments: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(JOBS / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(JOBS.parent)},
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("name", ["status", "verify", "collect"])
def test_a_job_prints_its_settings_its_lines_and_the_result(tmp_path: Path, name: str) -> None:
    root = new_storage(tmp_path / "a storage ü")
    sharded(root)
    write_scores(root, row_group())
    code, lines = run(name, "--storage", str(root))
    assert code == 0
    assert lines[0] == f"{name}: settings"
    marker, _, content = lines[-1].partition(" ")
    assert marker == "RAYSAE_RESULT"
    result = json.loads(content)
    assert (result["job"], result["kind"], result["artifact"]) == (name, name, str(root))
    code, lines = run(name, "--storage", str(root), "--json")
    assert code == 0
    assert json.loads(lines[-2])["storage"] == str(root)


@pytest.mark.parametrize("json", [False, True])
def test_names_that_are_no_text_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], json: bool
) -> None:
    root = new_storage(tmp_path)
    made, half = sharded(root, "subsets"), sharded(root, done=1)
    write_scores(root, row_group(), extra=INPUTS)
    owners = (made.name, half.name, "scores/data", "scores/marks", "saes", "uses", ".probes")
    odd = [
        f"{owner}/".encode() + b"\xff" + end for owner in owners for end in (b".done.json", b"/x")
    ]
    odd_files(tmp_path, *odd, b"no\xfftes/x")
    before = tree(tmp_path)
    age(tmp_path, 2 * WEEK)
    run_status(StatusSettings(str(tmp_path), json=json))
    run_verify(VerifySettings(str(tmp_path), json=json))
    run_collect(CollectSettings(str(tmp_path), delete=True, json=json))
    said = capsys.readouterr().out
    assert "saes/" + (r"\\xff" if json else r"\xff") in said
    gone = before.keys() - tree(tmp_path).keys()
    assert gone
    assert all(name.startswith(half.name) and "\udcff" not in name for name in gone)


@pytest.mark.parametrize("name", ["status", "verify", "collect"])
def test_no_storage_is_bad_data(tmp_path: Path, name: str) -> None:
    code, lines = run(name, "--storage", str(tmp_path))
    assert code == 3
    assert lines[-2].startswith(f"{name}: error: {tmp_path} has no raysae.json")


def test_damage_is_exit_code_3(tmp_path: Path) -> None:
    made = sharded(new_storage(tmp_path))
    made.directory.delete("shard-00000.samples.parquet")
    code, lines = run("verify", "--storage", str(tmp_path), "--repair")
    assert code == 3
    assert "verify: error: 1 thing is damaged" in lines[-2]


def test_lists_and_switches_on_the_command_line(tmp_path: Path) -> None:
    new_storage(tmp_path)
    code, lines = run(
        "collect",
        *("--storage", str(tmp_path), "--delete", "--keep_kinds=[saes,weights]", "--used_caches"),
    )
    assert code == 0
    assert "  keep_kinds: ('saes', 'weights')" in lines
    assert "  delete: True" in lines


@pytest.mark.parametrize("name", ["status", "verify", "collect"])
def test_neither_ray_nor_torch_is_imported(name: str) -> None:
    code = (
        f"import raysae.job, raysae.upkeep.{name}, sys; "
        "assert not {'ray', 'torch', 'transformers', 's3fs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=JOBS.parent)
