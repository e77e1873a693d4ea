"""A checkpoint's own Python code never runs, wherever the checkpoint names it."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, dynamic_module_utils

from raysae.errors import RaysaeError
from raysae.models import ModelSettings, load_hidden_state_model
from tests.models import language_models
from tests.models.families import Family
from tests.models.tiny import sample

CODE = """
raise SystemExit("the checkpoint's code ran")
"""
MAP = {
    "config.json": {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoModelForCausalLM": "evil.Model",
    },
    "tokenizer_config.json": {"AutoTokenizer": ["evil.Tokenizer", None]},
    "processor_config.json": {"AutoProcessor": "evil.Processor"},
    "preprocessor_config.json": {"AutoImageProcessor": "evil.ImageProcessor"},
}


def harmful(directory: Path, **changes: Any) -> Path:
    """Let every file of a checkpoint that may name code name some."""
    (directory / "evil.py").write_text(CODE)
    for name, auto_map in MAP.items():
        path = directory / name
        if path.exists():
            content = json.loads(path.read_text()) | {"auto_map": auto_map}
            path.write_text(json.dumps(content | (changes if name == "config.json" else {})))
    return directory


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    return language_models.save(language_models.build("llama"), tmp_path / "llama")


@pytest.mark.parametrize("loader", [AutoConfig, AutoTokenizer])
def test_the_code_would_run_where_it_is_trusted(
    language_model: Path, loader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(SystemExit, match="the checkpoint's code ran"):
        loader.from_pretrained(harmful(language_model), trust_remote_code=True)


def test_a_language_models_code_does_not_run(language_model: Path) -> None:
    model = language_models.load(harmful(language_model))
    assert model.prepare(language_models.said("a cat")).n_tokens > 0


def test_an_architecture_that_is_code_of_its_own_is_refused(language_model: Path) -> None:
    harmful(language_model, model_type="evil", architectures=["EvilForCausalLM"])
    with pytest.raises(RaysaeError, match="evil"):
        language_models.load(language_model)


def test_a_vision_language_models_code_does_not_run(family: Family, tmp_path: Path) -> None:
    directory = harmful(copytree(family.directories["published"], tmp_path / "copy"))
    assert (directory / "processor_config.json").exists()
    model = load_hidden_state_model(ModelSettings(path=str(directory), layer=2), "cpu")
    assert model.prepare(sample()).n_tokens > 0
