from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysae.errors import DataError, SettingsError
from raysae.models import checkpoint


def copy(directory: Path, to: Path) -> Path:
    return Path(shutil.copytree(directory, to))


def test_fingerprint_is_of_content_not_of_place(model_directory: Path, tmp_path: Path) -> None:
    elsewhere = copy(model_directory, tmp_path / "elsewhere")
    (elsewhere / "README.md").write_text("new words")
    (elsewhere / "generation_config.json").write_text("{}")
    assert checkpoint.model_fingerprint(str(elsewhere)) == checkpoint.model_fingerprint(
        str(model_directory)
    )


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model-00001-of-*.safetensors"])
def test_fingerprint_changes_with_the_files(
    model_directory: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = copy(model_directory, tmp_path / "elsewhere")
    before = checkpoint.model_fingerprint(str(elsewhere))
    (file,) = elsewhere.glob(name)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, (1, 1))
    after = checkpoint.model_fingerprint(str(elsewhere))
    assert len(after) == 24
    assert after != before


def test_shipped_name_and_directory(
    model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(model_directory, tmp_path / "my-model")
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    assert checkpoint.model_directory("my-model") == tmp_path / "my-model"
    assert checkpoint.model_directory(str(model_directory)) == model_directory
    with pytest.raises(SettingsError, match="my-model"):
        checkpoint.model_directory("../my-model")


def test_directory_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"config\.json"):
        checkpoint.model_directory(str(tmp_path))


def test_directory_without_safetensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(SettingsError, match="safetensors"):
        checkpoint.model_fingerprint(str(tmp_path))
    with pytest.raises(SettingsError, match="model_type"):
        checkpoint.model_type(tmp_path)


def test_only_files_with_needed_tensors(model_directory: Path) -> None:
    files = checkpoint.weight_files(model_directory, lambda name: name == "image_newline")
    assert list(files.values()) == [["image_newline"]]
    (path,) = files
    read = checkpoint.read_tensors(files, torch.float32)
    assert read["image_newline"].equal(load_file(path)["image_newline"])
    assert checkpoint.stored_tensors(files) == [("F32", 32)]


def test_single_file(model_directories: dict[str, Path]) -> None:
    files = checkpoint.weight_files(model_directories["single-file"], lambda name: "norm" in name)
    assert len(files) == 1
    assert all("norm" in name for names in files.values() for name in names)


def test_stored_tensors_are_all_of_the_model(whole_model: Any, model_directory: Path) -> None:
    stored = checkpoint.stored_tensors(checkpoint.weight_files(model_directory, lambda _: True))
    assert sum(t.numbers for t in stored) == sum(p.numel() for p in whole_model.parameters())
    assert {tensor.format for tensor in stored} == {"F32"}


def test_tensors_are_converted_as_torch_does(tmp_path: Path) -> None:
    whole = {"a": torch.randn(3, 5), "b": torch.randn(7).to(torch.bfloat16)}
    save_file(whole, tmp_path / "x.safetensors")
    read = checkpoint.read_tensors({tmp_path / "x.safetensors": ["a", "b"]}, torch.bfloat16)
    assert read["a"].equal(whole["a"].to(torch.bfloat16))
    assert read["b"].equal(whole["b"])


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, dtype=torch.int8)}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="stores a as I8"):
        checkpoint.read_tensors({tmp_path / "x.safetensors": ["a"]}, torch.float32)


def test_missing_file(model_directory: Path, tmp_path: Path) -> None:
    elsewhere = copy(model_directory, tmp_path / "elsewhere")
    (file,) = elsewhere.glob("model-00001-of-*")
    file.unlink()
    with pytest.raises(DataError, match=file.name):
        checkpoint.weight_files(elsewhere, lambda _: True)


def test_neither_index_nor_single_file(model_directory: Path, tmp_path: Path) -> None:
    elsewhere = copy(model_directory, tmp_path / "elsewhere")
    (elsewhere / checkpoint.INDEX).unlink()
    with pytest.raises(DataError, match="neither"):
        checkpoint.weight_files(elsewhere, lambda _: True)


def test_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"garbage that is no header")
    with pytest.raises(DataError, match="damaged"):
        checkpoint.read_tensors({file: ["x"]}, torch.float32)
