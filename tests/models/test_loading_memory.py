"""What loading takes, measured: a model cut at half its depth takes half of the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from tests.models.tiny import build_tokenizer

BLOCKS, HALF, WIDTH, MLP = 32, 16, 512, 1024
STORED, CONVERTED = "float16", "bfloat16"
PROBE = """
import gc, json, sys
from pathlib import Path
from raysae.models import checkpoint, load_hidden_state_model, ModelSettings, plan_cache_memory
from tests.models.language_models import said

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def loaded(directory, layer, dtype):
    model = load_hidden_state_model(ModelSettings(path=directory, layer=layer, dtype=dtype))
    # What is stored as it is used lies in mapped files until it is.
    model.hidden_states([model.prepare(said("cat"))])

opened, safe_open = set(), checkpoint.safe_open

def record(path, **kwargs):
    opened.add(path.name)
    return safe_open(path, **kwargs)

small, directory, layer, dtypes = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
for dtype in dtypes:
    loaded(small, 0, dtype)
checkpoint.safe_open = record
result = {}
for dtype in dtypes:  # first the one that leaves no freed memory behind
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    start = memory("VmRSS")
    loaded(directory, layer, dtype)
    peak = memory("VmHWM") - start
    plan = plan_cache_memory(ModelSettings(path=directory, layer=layer, dtype=dtype), 64)
    result[dtype] = {"peak": peak, "plan": plan.load_bytes}
print(json.dumps({**result, "opened": sorted(opened)}))
"""

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are reset through Linux's /proc"
)


def write(directory: Path, blocks: int, width: int, mlp: int) -> Path:
    """Write a random Llama in float16, one file a block and one for the rest."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=blocks,
        num_attention_heads=8,
        max_position_embeddings=128,
    )
    shapes = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (width, width),
        "self_attn.v_proj": (width, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (mlp, width),
        "mlp.up_proj": (mlp, width),
        "mlp.down_proj": (width, mlp),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    files = {
        f"model-{block:02}.safetensors": {
            f"model.layers.{block}.{name}.weight": torch.randn(shape).half() * 0.02
            for name, shape in shapes.items()
        }
        for block in range(blocks)
    }
    files["model-embeddings.safetensors"] = {
        "model.embed_tokens.weight": torch.randn(512, width).half()
    }
    files["model-head.safetensors"] = {
        "model.norm.weight": torch.ones(width).half(),
        "lm_head.weight": torch.randn(512, width).half(),
    }
    config.save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)
    weight_map = {}
    for name, tensors in files.items():
        save_file(tensors, directory / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def test_half_the_blocks_take_half_the_memory(tmp_path: Path) -> None:
    small = write(tmp_path / "small", 1, 64, 64)
    large = write(tmp_path / "large", BLOCKS, WIDTH, MLP)
    stored = sum(file.stat().st_size for file in large.glob("*.safetensors"))
    assert 100e6 < stored < 200e6
    found = {}
    for layer in (HALF, BLOCKS - 1):
        command = [sys.executable, "-c", PROBE, str(small), str(large), str(layer)]
        done = subprocess.run(
            [*command, STORED, CONVERTED], capture_output=True, text=True, check=True
        )
        found[layer] = json.loads(done.stdout.splitlines()[-1])
    for dtype in (STORED, CONVERTED):
        half, whole = found[HALF][dtype], found[BLOCKS - 1][dtype]
        assert whole["peak"] > 0.9 * stored  # else it was not measured
        assert half["peak"] <= 0.6 * whole["peak"]
        for result in (half, whole):
            assert 0.9 * result["plan"] < result["peak"] < 1.1 * result["plan"] + 10e6
    blocks = [f"model-{block:02}.safetensors" for block in range(HALF + 1)]
    assert found[HALF]["opened"] == sorted([*blocks, "model-embeddings.safetensors"])
