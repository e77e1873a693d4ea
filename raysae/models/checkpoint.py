"""Model directories: where they are, what they contain, and which of their tensors are needed.

Only safetensors are read: a pickle can run code. `auto_map` entries (remote code) are never
followed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from raysae.artifacts import content_id, file_sha256
from raysae.errors import DataError, SettingsError
from raysae.storage import read_json

SHIPPED = Path(__file__).parent / "data"
"""Models that come with the package, one directory each."""

INDEX = "model.safetensors.index.json"

FLOAT_FORMATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
"""Formats that weights are read from, by safetensors' names."""

_CONTENT_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model"})
_CONTENT_NAMES = frozenset({"merges.txt", "vocab.txt"})
# None says anything about the hidden states; the last two are those of a tuned model's artifact.
_WITHOUT_EFFECT = frozenset(
    {"generation_config.json", "trainer_state.json", "metadata.json", "spec.json"}
)


def model_directory(path: str, setting: str = "model.path") -> Path:
    """Return the directory that a model setting names.

    Args:
        path: A directory, or the name of a shipped model.
        setting: The setting that holds it, for messages.

    Raises:
        SettingsError: There is no such directory, or it holds no configuration or no safetensors.
    """
    is_shipped = re.fullmatch(r"[\w.-]+", path) and (SHIPPED / path / "config.json").is_file()
    directory = SHIPPED / path if is_shipped else Path(path).expanduser()
    if not directory.is_dir():
        names = ", ".join(sorted(p.name for p in SHIPPED.glob("*/") if p.is_dir())) or "none"
        raise SettingsError(
            f"{setting}: {path!r} is neither a directory nor a shipped model ({names}); download "
            "the model and name its directory."
        )
    if not (directory / "config.json").is_file():
        raise SettingsError(
            f"{setting}: {directory} has no config.json; name a directory in Hugging Face format."
        )
    if not any(directory.glob("*.safetensors")):
        raise SettingsError(
            f"{setting}: {directory} has no *.safetensors file, and no other format is read; "
            "convert the weights with save_pretrained."
        )
    return directory


def model_fingerprint(path: str) -> str:
    """Return 24 hex digits over the content of a model's files, wherever they are.

    Weights, configurations, tokenizer and templates count; a README or a generation setting does
    not.

    Args:
        path: As in `ModelSettings.path`.

    Raises:
        SettingsError: The path names no usable model.
    """
    directory = model_directory(path)
    return content_id(
        {
            file.name: _sha256(file, file.stat().st_size, file.stat().st_mtime_ns)
            for file in sorted(directory.iterdir())
            if file.is_file() and _is_content(file)
        }
    )


@lru_cache(maxsize=1024)
def _sha256(file: Path, _size: int, _mtime_ns: int) -> str:
    """Hash a file once per process, as long as its size and time stay the same."""
    return file_sha256(file)


def _is_content(file: Path) -> bool:
    if file.name.startswith(".") or file.name in _WITHOUT_EFFECT:
        return False
    return file.suffix in _CONTENT_SUFFIXES or file.name in _CONTENT_NAMES


def model_type(directory: Path) -> str:
    """Return the architecture's name in `config.json`.

    Raises:
        SettingsError: It names none.
    """
    name = read_json(directory / "config.json").get("model_type")
    if not isinstance(name, str):
        raise SettingsError(f"model.path: {directory / 'config.json'} names no model_type.")
    return name


def weight_files(directory: Path, needed: Callable[[str], bool]) -> dict[Path, list[str]]:
    """Return the safetensors files that hold needed tensors, with these tensors' names.

    With an index, files without a needed tensor are not opened.

    Args:
        directory: As returned by `model_directory`.
        needed: Whether the tensor of a (checkpoint's) name is wanted.

    Raises:
        DataError: The index names a file that is not there.
    """
    files: dict[Path, list[str]] = {}
    index = directory / INDEX
    if index.is_file():
        for name, file_name in read_json(index).get("weight_map", {}).items():
            if needed(name):
                files.setdefault(directory / file_name, []).append(name)
    else:
        path = directory / "model.safetensors"
        if not path.is_file():
            raise DataError(f"{directory} has neither {INDEX} nor model.safetensors; copy it anew.")
        with open_safetensors(path) as file:
            files[path] = [name for name in file.keys() if needed(name)]  # noqa: SIM118
    for path in files:
        if not path.is_file():
            raise DataError(f"{index} names {path.name}, which is not there; copy the model again.")
    return files


def read_tensors(
    files: Mapping[Path, Sequence[str]], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Read the tensors named in `weight_files`' result, on the CPU, in one format.

    What is stored in that format stays in the mapped file until it is used. The rest is converted
    tensor by tensor, so that never more than one of them is held in two formats.

    Raises:
        DataError: A file is damaged, lacks a tensor, or stores one as something else than floating
            point.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path, names in files.items():
        others: list[str] = []
        with open_safetensors(path) as file:
            for name in names:
                stored = file.get_slice(name).get_dtype()
                if stored not in FLOAT_FORMATS:
                    raise DataError(
                        f"{path} stores {name} as {stored}, but raysae reads unquantised weights "
                        f"({', '.join(FLOAT_FORMATS)}); convert the model."
                    )
                if FLOAT_FORMATS[stored] == dtype:
                    tensors[name] = file.get_tensor(name)
                else:
                    others.append(name)
        if others:
            # Pages of a mapped file would stay beside the converted weights.
            with open_safetensors(path, backend="pread") as file:
                for name in others:
                    tensors[name] = file.get_tensor(name).to(dtype)
    return tensors


class StoredTensor(NamedTuple):
    """A tensor in a file: its format, in safetensors' names (`BF16`, `F16`, …), and its numbers."""

    format: str
    numbers: int


def stored_tensors(files: Mapping[Path, Sequence[str]]) -> list[StoredTensor]:
    """Return what the named tensors are stored as, from the files' headers alone.

    Raises:
        DataError: A file is damaged or lacks a tensor.
    """
    stored = []
    for path, names in files.items():
        with open_safetensors(path) as file:
            for name in names:
                tensor = file.get_slice(name)
                stored.append(StoredTensor(tensor.get_dtype(), math.prod(tensor.get_shape())))
    return stored


@contextmanager
def open_safetensors(path: Path, backend: str = "mmap") -> Iterator[Any]:
    """Open a safetensors file, turning its errors into one sentence.

    Args:
        path: The file.
        backend: `mmap`: its tensors are views of the mapped file; `pread`: they are copies.

    Raises:
        DataError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu", backend=backend) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); copy the model again.") from error
