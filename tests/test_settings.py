from __future__ import annotations

import re
import runpy
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import docstring_parser
import pytest
import yaml

from raysae.errors import SettingsError
from raysae.settings import RunSettings, parse_settings, print_settings, resolved_storage
from raysae.stages.chain import ChainSettings, FinetuneJobSettings, builtin_sae

JOBS = Path(__file__).parents[1] / "jobs"
JOB_NAMES = ("cache", "train", "filter", "finetune")


def settings_class_of(job: str) -> type[Any]:
    """Return the settings that a job script runs with."""
    patch = mock.patch("raysae.pipeline.run_chain_job", return_value=0)
    with patch as run, pytest.raises(SystemExit):
        runpy.run_path(str(JOBS / f"{job}.py"), run_name="__main__")
    return run.call_args.args[1]


def parse(*argv: str, settings_class: type[Any] = ChainSettings) -> Any:
    return parse_settings(settings_class, argv, "jobs/x.py", "Does things.")


def parts(settings_class: type[Any]) -> Iterator[type[Any]]:
    """Yield a settings dataclass and, recursively, those that it is made of."""
    yield settings_class
    for hint in typing.get_type_hints(settings_class).values():
        if is_dataclass(hint):
            yield from parts(typing.cast("type[Any]", hint))


def documented(settings_class: type[Any]) -> dict[str, str]:
    """Return field → documentation, those of base classes included, without line breaks."""
    return {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for parent in reversed(settings_class.__mro__)
        if is_dataclass(parent)
        for parameter in docstring_parser.parse(parent.__doc__ or "").params
    }


ALL_PARTS = sorted(set(parts(FinetuneJobSettings)), key=lambda part: part.__name__)


def test_nothing_given_means_the_defaults() -> None:
    assert parse() == ChainSettings()
    assert parse(settings_class=FinetuneJobSettings) == FinetuneJobSettings()


def test_one_field_of_a_part_leaves_the_parts_other_defaults_alone() -> None:
    sae = parse("--sae.d_sae", "64", "--sae.aux_k=8").sae
    assert (sae.d_sae, sae.aux_k) == (64, 8)
    assert (sae.k, sae.steps, sae.lr) == (builtin_sae().k, builtin_sae().steps, builtin_sae().lr)


def test_types_are_those_of_the_fields() -> None:
    settings = parse("--select.n", "7", "--sae.lr", "1e-4", "--score.bos_is_text", "true")
    assert (settings.select.n, settings.sae.lr, settings.score.bos_is_text) == (7, 1e-4, True)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--nope", "3"], "--nope"),
        (["--sae.nope", "3"], "sae.nope"),
        (["--sae.d_sae", "many"], "sae.d_sae"),
        (["--sae.d_sae", "1.5"], "sae.d_sae"),
        (["--plan", "perhaps"], "plan"),
        (["--model.dtype", "int8"], "model.dtype"),
        (["--sae.architecture", "gated"], "sae.architecture"),
        (["--sae.k", "0"], "sae.k"),
        (["--sae.k", "100", "--sae.d_sae", "64"], "sae.k"),
        (["--sae.lr", "nan"], "sae.lr"),
        (["--run.min_actors", "0"], "run.min_actors"),
        (["--run.min_actors", "3"], "run.max_actors"),
        (["--run.token_budget", "0"], "run.token_budget"),
        (["--run.gpus_per_actor", "-1"], "run.gpus_per_actor"),
        (["--run.max_rejected_fraction", "1.5"], "run.max_rejected_fraction"),
        (["--train.workers", "0"], "train.workers"),
        (["--train.checkpoint_every", "0"], "train.checkpoint_every"),
        (["--train.gpus_per_worker", "2"], "train.gpus_per_worker"),
        (["--train.max_failures", "-1"], "train.max_failures"),
        (["--shards.max_rows", "0"], "shards.max_rows"),
        (["--shards.max_bytes", "0"], "shards.max_bytes"),
        (["--run.gpus_per_actor", "1.5"], "run.gpus_per_actor: must be 0, a fraction"),
        (["--run.gpus_per_actor", "nan"], "run.gpus_per_actor"),
        (["--run.cpus_per_actor", "-1"], "run.cpus_per_actor"),
        (["--run.cpus_per_actor", "inf"], "run.cpus_per_actor"),
        (["--train.cpus_per_worker", "0"], "train.cpus_per_worker"),
        (["--cache.image_fraction", "2"], "cache.image_fraction"),
        (["--cache.tokens_per_sample", "-1"], "cache.tokens_per_sample"),
        (["--cache.max_norm_ratio", "-1"], "cache.max_norm_ratio"),
        (["--cache.seed", "-1"], "cache.seed"),
        (["--sae.seed", "-1"], "sae.seed"),
        (["--weights.min_tokens", "9"], "weights.min_tokens"),
        (["--weights.threshold", "-1"], "weights.threshold"),
        (["--weights.candidates", "joint-top-30", "--weights.top_k", "31"], "weights.top_k"),
        (["--weights.seed", "-1"], "weights.seed"),
        (["--score.threshold", "-1"], "score.threshold"),
        (["--score.seed", "-1"], "score.seed"),
        (["--select.fraction", "0"], "select.fraction"),
        (["--select.n", "0"], "select.n"),
        (["--select.min_score", "2", "--select.max_score", "1"], "select.min_score"),
        (["--config", "no-such-file.yaml"], "no-such-file.yaml"),
    ],
)
def test_a_setting_that_cannot_be_is_named_in_one_line(argv: list[str], named: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(named)) as error:
        parse(*argv)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("saee: {k: 3}", "saee"),
        ("sae: {kk: 3}", "kk"),
        ("sae: {k: many}", "sae.k"),
        ("sae: {k: -1}", "sae.k"),
        ("sae: [", "parsing config"),
    ],
)
def test_the_same_holds_in_a_file(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=named) as error:
        parse("--config", str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (["--model", "x/y"], ["--model.path", "x/y"]),
        (["--model=x/y"], ["--model.path=x/y"]),
        (["--corpus", "builtin"], ["--corpus.name", "builtin"]),
        (["--sae_corpus", "builtin-noisy"], ["--sae_corpus.name", "builtin-noisy"]),
        (["--plan"], ["--plan", "true"]),
        (["--plan", "--model", "x"], ["--plan", "true", "--model.path", "x"]),
        (["--plan", "false"], ["--plan=false"]),
    ],
)
def test_short_forms(short: Sequence[str], long: Sequence[str]) -> None:
    assert parse(*short) == parse(*long)


def test_a_short_form_sets_its_field_only() -> None:
    assert parse("--plan", "--model", "x").plan is True
    assert parse("--model", "x", "--model.layer", "1").model.layer == 1
    assert parse("--model", "x").model.path == "x"


def test_a_file_sets_fields_and_the_command_line_overrides_it(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"storage": "s", "sae": {"k": 4, "steps": 900}}))
    settings = parse("--config", str(path), "--sae.k", "5")
    assert (settings.storage, settings.sae.k, settings.sae.steps) == ("s", 5, 900)
    assert settings.sae.d_sae == builtin_sae().d_sae


@pytest.mark.parametrize("job", JOB_NAMES)
def test_what_is_printed_as_config_is_read_as_the_same_settings(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_class = settings_class_of(job)
    argv = ["--model", "x", "--sae.lr", "1e-05", "--select.n", "3", "--corpus.path", "a: b # c"]
    with pytest.raises(SystemExit) as stopped:
        parse(*argv, "--print_config", settings_class=settings_class)
    assert stopped.value.code == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    again = parse("--config", str(path), settings_class=settings_class)
    assert again == parse(*argv, settings_class=settings_class)
    assert again.corpus.path == "a: b # c"


@pytest.mark.parametrize("job", JOB_NAMES)
def test_help_documents_every_field(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")  # no line breaks inside a text
    settings_class = settings_class_of(job)
    with pytest.raises(SystemExit) as stopped:
        parse("--help", settings_class=settings_class)
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in parts(settings_class):
        for name, text in documented(part).items():
            assert text.rstrip(".") in shown, f"{part.__name__}.{name}"


@pytest.mark.parametrize("part", ALL_PARTS, ids=lambda part: part.__name__)
def test_settings_are_small_frozen_and_documented(part: type[Any]) -> None:
    names = {field.name for field in fields(part)}
    # A job's settings are made of parts, which its own few fields stand beside.
    hints = typing.get_type_hints(part)
    own = [name for name in names if not is_dataclass(hints[name])]
    assert len(own) <= 15
    assert part.__dataclass_params__.frozen
    texts = documented(part)
    assert texts.keys() == names
    assert all(texts.values())


def test_the_parts_are_all_there() -> None:
    names = {part.__name__ for part in ALL_PARTS}
    assert {"CorpusSettings", "ModelSettings", "SaeSettings", "FinetuneSettings"} <= names


def test_settings_are_printed_one_a_line_with_their_full_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @dataclass
    class Inner:
        k: int = 3

    @dataclass
    class Outer:
        inner: Inner
        name: str = "x"

    print_settings(Outer(Inner()))
    assert capsys.readouterr().out == "  inner.k: 3\n  name: x\n"


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.5, "cuda"), (2.0, "cuda")])
def test_device_follows_the_gpus(gpus: float, device: str) -> None:
    assert RunSettings(gpus_per_actor=gpus).device == device


def test_storage_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolved_storage("s") == str(tmp_path / "s")
    assert resolved_storage("/a/b") == "/a/b"
    with pytest.raises(SettingsError, match=r"^storage: is empty"):
        resolved_storage("")
    assert resolved_storage("file:///a/b") == "file:///a/b"


def test_relative_storage_inside_an_unpacked_working_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "runtime_resources" / "working_dir_files" / "pkg"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert resolved_storage("/a") == "/a"
    with pytest.raises(SettingsError, match=r"^storage: .*--storage"):
        resolved_storage("s")
