"""Thousands of damaged images, and that the run over them would notice what is wrong.

RAYSAE_IMAGE_MUTATIONS says how many (10,000), RAYSAE_IMAGE_SEED which ones. `make fuzz` runs more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.run_local import REPOSITORY
from raysae.errors import RejectedSampleError
from tests.corpora import mutation_run
from tests.corpora.bombs import bombs
from tests.corpora.image_layouts import layout
from tests.corpora.mutation_run import WrongError, run
from tests.corpora.mutations import mutation
from tests.corpora.pictures import pictures

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def start(arguments: list[str], directory: Path) -> tuple[int, str, str, int]:
    """Run the mutations in a child; return its exit code, output, log and last number."""
    number, log = directory / "number", directory / "log"
    with log.open("w") as stream:
        done = subprocess.run(
            [sys.executable, *arguments, str(number)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            check=False,
        )
    return done.returncode, done.stdout, log.read_text(errors="replace"), int(number.read_text())


@linux
def test_damaged_images_are_decoded_or_rejected(tmp_path: Path) -> None:
    seed = os.environ.get("RAYSAE_IMAGE_SEED", "1")
    count = os.environ.get("RAYSAE_IMAGE_MUTATIONS", "10000")
    module = ["-m", "tests.corpora.mutation_run"]
    code, output, log, number = start([*module, seed, "0", count], tmp_path)
    assert code == 0, (
        f"exit code {code} at mutation {number} of seed {seed}; to see it again:\n"
        f"python -m tests.corpora.mutation_run {seed} {number} 1\n{output}{log[-4000:]}"
    )
    print(f"\n{output.strip()}")


DEATHS = {"abort": "os.abort()", "hang": "while True: pass"}

DYING = """
import os, sys
from tests.corpora import mutation_run

def check_image(data, max_pixels=1 << 26):
    if mutation_run.dying:
        {death}
    return check(data, max_pixels)

def run(seed, first, count, tell):
    def tell_and_die(number):
        tell(number)
        mutation_run.dying = number == 14
    return tried(seed, first, count, tell_and_die)

check, tried = mutation_run.check_image, mutation_run.run
mutation_run.check_image, mutation_run.run = check_image, run
mutation_run.dying, mutation_run.CPU_S = False, 0.3
mutation_run.main(sys.argv[1:])
"""


@linux
@pytest.mark.parametrize("death", DEATHS)
def test_the_image_that_ends_the_process_is_told(death: str, tmp_path: Path) -> None:
    code, _, log, number = start(
        ["-c", DYING.format(death=DEATHS[death]), "1", "3", "30"], tmp_path
    )
    assert code < 0
    assert number == 14
    assert "in check_image" in log


def a_picture(*_: object) -> SimpleNamespace:
    return SimpleNamespace(mode="RGB", size=(3, 2), tobytes=lambda: b"")


def reject_oddly(*_: object) -> None:
    raise RejectedSampleError("odd", "not a reason of images")


@linux
@pytest.mark.parametrize(
    ("name", "replacement", "said"),
    [
        ("check_image", reject_oddly, "rejected for 'odd'"),
        ("decode_image", a_picture, r"became \(3, 2\)"),
        ("MOST_NOISE_BYTES", -1, "page after page"),
        ("FIXED_BYTES", -1 << 40, "are allowed"),
        ("MOST_WARNINGS", -1, "0 warnings"),
        ("GROWTH_BYTES", -1 << 40, "grew by"),
    ],
)
def test_what_is_wrong_is_noticed(
    name: str, replacement: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    intact = dict.fromkeys(pictures(), "")
    monkeypatch.setattr(mutation_run, "_intact", lambda: intact)
    monkeypatch.setattr(mutation_run, name, replacement)
    with pytest.raises(WrongError, match=said):
        run(1, 0, 40, lambda _: None)


@linux
def test_what_an_image_leaves_behind_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    pixels = iter([{"a": "1", "b": "1"}, {"a": "1", "b": "2"}])
    monkeypatch.setattr(mutation_run, "_intact", lambda: next(pixels))
    with pytest.raises(WrongError, match=r"\['b'\]"):
        run(1, 0, 1, lambda _: None)
    settings = iter([(1,), (2,)])
    monkeypatch.setattr(mutation_run, "_state", lambda: next(settings))
    monkeypatch.setattr(mutation_run, "_intact", dict)
    with pytest.raises(WrongError, match="settings"):
        run(1, 0, 1, lambda _: None)


def test_a_mutation_is_the_same_in_every_run() -> None:
    assert [mutation(3, n) for n in range(50)] == [mutation(3, n) for n in range(50)]
    assert mutation(3, 7) != mutation(4, 7)


def test_mutations_reach_every_picture_and_bomb() -> None:
    names = {mutation(1, n).name.split(", ")[0] for n in range(10_000)}
    assert names >= set(pictures())
    assert len(names & set(bombs())) > len(bombs()) / 2


def test_every_picture_has_parts_and_numbers() -> None:
    for name, data in pictures().items():
        cuts, numbers = layout(data)
        assert cuts[0] == 0, name
        assert list(cuts) == sorted(set(cuts)), name
        assert len(cuts) > 1, name
        assert len(numbers) >= (2 if name.startswith("ppm") else 4), name
        assert all(at >= 0 and at + length <= len(data) for at, length, _ in numbers), name
