"""Reading a job's settings from the command line and YAML, and the settings of how a job runs.

Settings are of two kinds. *Content* settings decide the result and enter artifact ids; their
dataclasses live beside the code that they set. *Run* settings (here) say on what and how a job
runs; they never enter an id, so that a worker count cannot change a result.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from jsonargparse import ArgumentParser

from raysae.errors import SettingsError

SettingsT = TypeVar("SettingsT")

SHORT_FORMS = {
    "--model": "--model.path",
    "--corpus": "--corpus.name",
    "--sae_corpus": "--sae_corpus.name",
}
"""Options people type most, and the field that each one sets."""

SWITCHES = ("--plan", "--json", "--repair", "--delete", "--used_caches")
"""Yes/no options that may stand without a value."""


@dataclass(frozen=True)
class RunSettings:
    """How the shards of a corpus are worked on: never part of an artifact's id.

    Args:
        min_actors: Actors that hold a model, at least.
        max_actors: Actors at most; the pool grows up to here while shards are waiting.
        cpus_per_actor: CPU cores that Ray reserves for each actor.
        gpus_per_actor: GPUs that Ray reserves for each actor; fractions share one. 0 runs on the
            CPU.
        token_budget: Padded tokens in one forward pass, at most; bounds the memory of a batch.
        max_retries: How often one actor is started again over its life, and how often the reading
            of one shard is tried again, after its process or node was lost.
        max_rejected_fraction: The job fails with exit code 3 when more rows than this are rejected.
        compress_cache: `zstd` compresses the cache's token files, for those that are kept for long;
            reading them again takes room for unpacked copies on each node's own disk.
        price_per_gpu_hour: Dollars, for `--plan` only.
    """

    min_actors: int = 1
    max_actors: int = 1
    cpus_per_actor: float = 1.0
    gpus_per_actor: float = 0.0
    token_budget: int = 8192
    max_retries: int = 3
    max_rejected_fraction: float = 0.2
    compress_cache: Literal["none", "zstd"] = "none"
    price_per_gpu_hour: float = 2.5

    def __post_init__(self) -> None:
        if not 1 <= self.min_actors <= self.max_actors:
            raise SettingsError(
                f"run.min_actors: must be at least 1 and at most run.max_actors "
                f"({self.max_actors}), got {self.min_actors}."
            )
        for name in ("cpus_per_actor", "max_retries", "price_per_gpu_hour"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(
                    f"run.{name}: must be 0 or more and finite, got {getattr(self, name)}."
                )
        whole = self.gpus_per_actor >= 1 and float(self.gpus_per_actor).is_integer()
        if not (0 <= self.gpus_per_actor < 1 or whole):
            raise SettingsError(
                "run.gpus_per_actor: must be 0, a fraction below 1, or a whole number, got "
                f"{self.gpus_per_actor}."
            )
        if self.token_budget < 1:
            raise SettingsError(f"run.token_budget: must be at least 1, got {self.token_budget}.")
        if not 0 <= self.max_rejected_fraction <= 1:
            raise SettingsError(
                f"run.max_rejected_fraction: must lie in [0, 1], got {self.max_rejected_fraction}."
            )

    @property
    def device(self) -> str:
        """`cuda` if the actors hold GPUs, else `cpu`."""
        return "cuda" if self.gpus_per_actor > 0 else "cpu"


def parse_settings(
    settings_class: type[SettingsT], argv: Sequence[str], prog: str, description: str
) -> SettingsT:
    """Build a job's settings from `--config file.yaml` and `--field value` arguments.

    Args:
        settings_class: A frozen dataclass; its docstring and those of its parts become `--help`.
            What its `passed_over` names, if it has that, are settings of other jobs, which a YAML
            file may hold too.
        argv: Arguments without the program's name.
        prog: The program's name in `--help`.
        description: What the job does, for `--help`.

    Raises:
        SettingsError: A key is unknown, a value is of the wrong type, or an impossible one.
    """
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="A YAML file with any of these settings.")
    parser.add_class_arguments(settings_class, fail_untyped=True, sub_configs=True)
    _explain_parts(parser)
    arguments = _used_parts(argv, getattr(settings_class, "passed_over", frozenset()))
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            namespace = parser.parse_args(_expand_short_forms(arguments))
            built = parser.instantiate_classes(namespace)
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError(_one_line(str(error) or complaints.getvalue())) from error
    values = {key: value for key, value in vars(built).items() if key != "config"}
    return settings_class(**values)


def _used_parts(argv: Sequence[str], unused: Collection[str]) -> list[str]:
    """Replace the names of YAML files by what is used of their content."""
    if not unused:
        return list(argv)
    used = []
    for before, argument in pairwise(["", *argv]):
        name, equals, value = argument.partition("=")
        if before == "--config":
            used.append(_used_part(argument, unused))
        elif name == "--config" and equals:
            used.append(f"--config={_used_part(value, unused)}")
        else:
            used.append(argument)
    return used


def _used_part(path: str, unused: Collection[str]) -> str:
    """Return what a YAML file holds without the unused settings, as JSON; its name if all is used.

    Files that it names in turn lie beside it.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return path  # The parser says what is wrong with it.
    if not isinstance(content, dict):
        return path
    used = {key: part for key, part in content.items() if str(key).split(".")[0] not in unused}
    if len(used) == len(content):
        return path
    for key, part in used.items():
        if isinstance(part, str) and (Path(path).parent / part).is_file():
            used[key] = str((Path(path).parent / part).absolute())
    return json.dumps(used, default=str)  # YAML takes some texts for dates.


def _explain_parts(parser: ArgumentParser) -> None:
    """Say in `--help` what an option that stands for a whole part of the settings takes."""
    for action in parser._actions:  # noqa: SLF001 - jsonargparse's text for them has no setting
        if action.help == "Path to a configuration file.":
            (option,) = action.option_strings
            action.metavar = "FILE"
            action.help = "A YAML file with these settings alone."
            if option in SHORT_FORMS:
                action.metavar = "VALUE"
                action.help = f"Short for {SHORT_FORMS[option]}."


def _expand_short_forms(argv: Sequence[str]) -> list[str]:
    """Rewrite `--model X` as `--model.path X` and a bare `--plan` as `--plan=true`."""
    expanded = []
    for argument, following in pairwise([*argv, "--"]):
        name, equals, value = argument.partition("=")
        if name in SWITCHES and not equals and following.startswith("--"):
            equals, value = "=", "true"
        expanded.append(SHORT_FORMS.get(name, name) + equals + value)
    return expanded


def _one_line(message: str) -> str:
    """Fold a parser's message of several lines into one sentence."""
    cause = message.strip().splitlines()
    return "settings: " + " ".join(line.strip(" -") for line in cause if line.strip())


def resolved_storage(uri: str) -> str:
    """Return the storage as an absolute path or URI, the same for the driver and every worker.

    Raises:
        SettingsError: It is empty; or a relative path inside a working directory that Ray unpacked,
            which would vanish with the job.
    """
    if not uri:
        raise SettingsError("storage: is empty; name a directory, or a URI with its scheme.")
    if "://" in uri or Path(uri).expanduser().is_absolute():
        return uri
    if "runtime_resources" in Path.cwd().parts:
        raise SettingsError(
            f"storage: {uri!r} is relative, but this job runs in a temporary directory that Ray "
            "unpacked; give an absolute path on a disk that every node sees, with --storage."
        )
    return str(Path(uri).expanduser().absolute())


def print_settings(settings: object, prefix: str = "") -> None:
    """Print resolved settings, one `name: value` a line."""
    for name, value in vars(settings).items():
        if is_dataclass(value) and not isinstance(value, type):
            print_settings(value, f"{prefix}{name}.")
        else:
            sys.stdout.write(f"  {prefix}{name}: {value}\n")
