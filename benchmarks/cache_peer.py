"""The peer's side of `cache.py`: sae-lens as released, in an environment of its own.

Reads one task a line from its input, as JSON, and answers with what it measured. It imports nothing
of raysae. Nothing of sae-lens is replaced; two methods of its objects are wrapped to be timed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from sae_lens import (
    CacheActivationsRunner,
    CacheActivationsRunnerConfig,
    LanguageModelSAERunnerConfig,
    StandardTrainingSAEConfig,
)
from sae_lens.training.activations_store import ActivationsStore
from tokenizers import Tokenizer, models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

HOOK = "layers.0"


class PrecomputedConfig(PretrainedConfig):
    """Configures a model without a forward pass.

    Args:
        d_in: Width of its states.
    """

    model_type = "precomputed"

    def __init__(self, d_in: int = 8, **others: Any) -> None:
        super().__init__(**others)
        self.d_in = d_in


class Precomputed(torch.nn.Module):
    """Returns one of two batches of states that it made when it was first called."""

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.d_in = d_in
        self.states: list[torch.Tensor] = []

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return states for tokens, (batch, context, d_in)."""
        if not self.states or self.states[0].shape[:2] != tokens.shape:
            self.states = [torch.randn(*tokens.shape, self.d_in) for _ in range(2)]
        self.states.reverse()
        return self.states[0]


class PrecomputedModel(PreTrainedModel):
    """A causal language model, to transformers and sae-lens, of which nothing is computed."""

    config_class = PrecomputedConfig

    def __init__(self, config: PrecomputedConfig) -> None:
        super().__init__(config)
        self.embedding = torch.nn.Embedding(2, 2)
        self.layers = torch.nn.ModuleList([Precomputed(config.d_in)])
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return where sae-lens looks for the device."""
        return self.embedding

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the states."""
        states: torch.Tensor = self.layers[0](tokens)
        return states


AutoConfig.register("precomputed", PrecomputedConfig)
AutoModelForCausalLM.register(PrecomputedConfig, PrecomputedModel)


def versions() -> dict[str, str]:
    """Return the versions of what counts here."""
    names = ("sae-lens", "transformer-lens", "datasets", "pyarrow", "torch", "transformers")
    return {name: version(name) for name in names}


def write(
    *, path: str, d_in: int, context: int, tokens: int, batch: int, buffer_tokens: int
) -> dict[str, float]:
    """Store states that cost nothing to compute.

    Args:
        path: Of the cache; replaced.
        d_in: Width of a state.
        context: Tokens of a sequence.
        tokens: How many to store.
        batch: Sequences in a forward pass.
        buffer_tokens: Tokens in one of its shards, `buffer_size_gb` in other words.
    """
    model = Path(path).parent / f"precomputed-{d_in}"
    PrecomputedModel(PrecomputedConfig(d_in)).save_pretrained(model)
    nothing = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=nothing).save_pretrained(model)
    sequences = np.zeros((tokens // context, context), dtype=np.int32)
    return _cache(
        path,
        datasets.Dataset.from_dict({"input_ids": sequences}),
        model_name=str(model),
        model_class_name="AutoModelForCausalLM",
        hook_name=HOOK,
        d_in=d_in,
        model_batch_size=batch,
        buffer_size_gb=_gigabytes(buffer_tokens, d_in),
        context_size=context,
        training_tokens=tokens,
    )


def forward(
    *,
    path: str,
    dataset: str,
    model: str,
    hook: str,
    d_in: int,
    batch: int,
    buffer_tokens: int,
    device: str,
    sample: str,
) -> dict[str, float]:
    """Store a model's states over tokenised sequences.

    Args:
        path: Of the cache; replaced.
        dataset: A directory of `datasets`, with the column `input_ids`.
        model: A directory in Hugging Face's format.
        hook: Where the states are taken.
        d_in: Their width.
        batch: Sequences in a forward pass.
        buffer_tokens: Tokens in one of its shards.
        device: Where the model runs.
        sample: File for the states of the first sequences.
    """
    sequences = datasets.load_from_disk(dataset)
    context = len(sequences[0]["input_ids"])
    measured = _cache(
        path,
        sequences,
        model_name=model,
        model_class_name="AutoModelForCausalLM",
        hook_name=hook,
        d_in=d_in,
        model_batch_size=batch,
        buffer_size_gb=_gigabytes(buffer_tokens, d_in),
        context_size=context,
        training_tokens=len(sequences) * context,
        device=device,
    )
    stored = datasets.load_from_disk(path).with_format("numpy")
    np.save(sample, stored[:8][hook])
    return measured


def _cache(path: str, sequences: datasets.Dataset, **settings: Any) -> dict[str, float]:
    """Run `CacheActivationsRunner`; time it, and in it the model and the loading of tokens."""
    shutil.rmtree(path, ignore_errors=True)
    config = CacheActivationsRunnerConfig(
        **{"device": "cpu", **settings},
        dataset_path="",
        new_cached_activations_path=path,
        dtype="float32",
        streaming=False,
        prepend_bos=False,
        shuffle=True,
    )
    runner = CacheActivationsRunner(config, override_dataset=sequences)
    store = runner.activations_store
    in_model = _timed(runner.model, "run_with_cache")
    in_tokens = _timed(store, "get_batch_tokens")
    started, used = time.perf_counter(), time.process_time()
    stored = runner.run()
    seconds = time.perf_counter() - started
    cores = (time.process_time() - used) / seconds
    for file in Path(path).iterdir():
        _sync(file)
    return {
        "seconds": seconds,
        "cores": cores,
        "seconds_with_sync": time.perf_counter() - started,
        "forward_seconds": sum(in_model),
        "token_seconds": sum(in_tokens),
        "tokens": len(stored) * config.context_size,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def read(
    *, path: str, d_in: int, context: int, batch: int, prompts: int, buffer_batches: int
) -> dict[str, float]:
    """Read an epoch of a cache in shuffled batches.

    Args:
        path: What `write` stored.
        d_in: Width of a state.
        context: Tokens of a sequence.
        batch: Tokens of a batch.
        prompts: Sequences loaded at a time (`store_batch_size_prompts`).
        buffer_batches: `n_batches_in_buffer`, which times the context is the buffer's size.
    """
    rows = len(datasets.load_from_disk(path))
    config = LanguageModelSAERunnerConfig(
        sae=StandardTrainingSAEConfig(d_in=d_in, d_sae=d_in),
        hook_name=HOOK,
        context_size=context,
        use_cached_activations=True,
        cached_activations_path=path,
        store_batch_size_prompts=prompts,
        n_batches_in_buffer=buffer_batches,
        train_batch_size_tokens=batch,
        training_tokens=rows * context,
        device="cpu",
        act_store_device="cpu",
    )
    tokens = datasets.Dataset.from_dict({"input_ids": np.zeros((2, context), dtype=np.int32)})
    # The model is not looked at where states are cached.
    store = ActivationsStore.from_config(torch.nn.Module(), config, override_dataset=tokens)
    batches = rows * context // batch - 1
    started = time.perf_counter()
    for _ in range(batches):
        acts = next(store)
        assert acts.shape == (batch, d_in)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens": batches * batch}


def _gigabytes(tokens: int, d_in: int) -> float:
    """Return the `buffer_size_gb` that holds so many tokens in float32, and no token more."""
    return (tokens + 0.5) * d_in * 4 / 1e9


def _timed(owner: object, name: str) -> list[float]:
    """Collect the seconds that each call of an object's method takes."""
    taken: list[float] = []
    method: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            taken.append(time.perf_counter() - started)

    setattr(owner, name, timed)
    return taken


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "versions": versions,
    "write": write,
    "forward": forward,
    "read": read,
}


def main() -> None:
    """Answer tasks until there is none."""
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # Libraries print to the standard output too.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            asked = json.loads(line)
            answers.write(json.dumps(TASKS[asked["task"]](**asked["arguments"])) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
