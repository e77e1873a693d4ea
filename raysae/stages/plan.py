"""What a run will read, write, hold and cost, from headers and a small sample of the corpus."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from raysae.corpora import Corpus
from raysae.errors import DataError, SettingsError
from raysae.finetune import longest_row, plan_tuning_memory, row_rules, training_processor
from raysae.models import ForwardPlan, model_size, plan_cache_memory
from raysae.models.checkpoint import model_directory
from raysae.sae import plan_training_memory
from raysae.sample import Rejection, Sample
from raysae.stages._hidden_states import HiddenStates, Reading
from raysae.stages.chain import Chain, FinetuneJobSettings

SAMPLED_ROWS = 64
"""Rows whose tokens are counted, spread evenly over the corpus."""

PROCESS_BYTES = 600 << 20
"""An interpreter with torch, transformers and Arrow imported."""

CPU_FLOPS_PER_CORE = 50e9
GPU_FLOPS = 300e12
"""Sustained floating-point operations a second that hours are predicted with."""

GIB = 1 << 30

TOKEN_COLUMN_BYTES = 13
"""Sample, position, token id (4 bytes each) and modality (1) beside each hidden state."""


@dataclass(frozen=True)
class CorpusPlan:
    """What the sampled rows of a corpus say of all of them.

    Attributes:
        rows: All rows.
        usable: Share [0, 1] of the sampled rows that the model can be shown.
        tokens: Predicted tokens of all usable rows.
        flops: Predicted floating-point work of the model on them.
        longest_tokens: Tokens of the longest sampled row.
        pixel_bytes: Predicted bytes of all rows' prepared image tiles.
    """

    rows: int
    usable: float
    tokens: int
    flops: float
    longest_tokens: int
    pixel_bytes: int


@dataclass(frozen=True)
class CachePlan:
    """What the cache stage needs.

    Attributes:
        corpus: What it reads.
        shards: How many it writes.
        bytes_on_disk: Hidden states and token columns.
        actor_bytes: Peak memory of one actor: the process, and either loading the model or, later,
            its weights, one batch, and a shard's prepared images and collected tokens.
        hours: Predicted actor-hours.
    """

    corpus: CorpusPlan
    shards: int
    bytes_on_disk: int
    actor_bytes: int
    hours: float


def plan_corpus(chain: Chain, corpus: Corpus, forward: ForwardPlan) -> CorpusPlan:
    """Count the tokens of a few rows, spread over the corpus, with the model's own processor.

    Raises:
        DataError: None of them can be used.
    """
    states = HiddenStates(Reading(chain.settings.model, "meta", token_budget=1))
    sampled = list(_spread_rows(corpus))
    ready = states.prepare(sampled)
    if not ready.prepared:
        first = ready.rejections[0]
        raise DataError(
            f"plan: none of {len(sampled)} sampled rows of {corpus.snapshot.name} can be used "
            f"(the first: {first.reason}, {first.detail}); mend the corpus."
        )
    usable = len(ready.prepared) / len(sampled)
    factor = corpus.snapshot.rows / len(sampled)
    lengths = [sample.n_tokens for sample in ready.prepared]
    tiles = [
        len(sample.tensors["pixel_values"]) if sample.images else 0 for sample in ready.prepared
    ]
    pixels = sum(t.nbytes for sample in ready.prepared for t in sample.tensors.values())
    flops = sum(forward.flops(n, t) for n, t in zip(lengths, tiles, strict=True))
    return CorpusPlan(
        rows=corpus.snapshot.rows,
        usable=usable,
        tokens=int(sum(lengths) * factor),
        flops=flops * factor,
        longest_tokens=max(lengths),
        pixel_bytes=int(pixels * factor),
    )


def plan_cache(chain: Chain) -> CachePlan:
    """Predict the cache stage."""
    settings = chain.settings
    forward = plan_cache_memory(settings.model, settings.run.token_budget)
    corpus = plan_corpus(chain, chain.sae_corpus, forward)
    kept = settings.cache.tokens_per_sample
    cached = min(corpus.tokens, kept * corpus.rows) if kept else corpus.tokens
    token_bytes = forward.bytes_per_token + TOKEN_COLUMN_BYTES
    shards = chain.shards(chain.sae_corpus)
    fullest = max(shard.rows for shard in shards) / corpus.rows
    shard_bytes = int(fullest * (cached * token_bytes + corpus.pixel_bytes))
    return CachePlan(
        corpus=corpus,
        shards=len(shards),
        bytes_on_disk=cached * token_bytes,
        actor_bytes=PROCESS_BYTES + max(forward.load_bytes, forward.peak_bytes + shard_bytes),
        hours=corpus.flops / _flops_per_second(chain) / 3600,
    )


def print_plan(chain: Chain) -> None:
    """Print the plan of the chain's cache and training, and of the fine-tuning if it is asked for.

    Raises:
        SettingsError: The cache will not fit the storage.
    """
    cache = plan_cache(chain)
    settings = chain.settings
    sae_bytes = PROCESS_BYTES + plan_training_memory(
        settings.sae,
        plan_cache_memory(settings.model, settings.run.token_budget).d_in,
        device="cuda" if settings.train.gpus_per_worker else "cpu",
        world_size=settings.train.workers,
    )
    free = shutil.disk_usage(chain.root).free
    dollars = cache.hours * settings.run.gpus_per_actor * settings.run.price_per_gpu_hour
    lines = {
        "rows": f"{cache.corpus.rows:,} in {cache.shards:,} shards, "
        f"{cache.corpus.usable:.0%} usable",
        "tokens": f"{cache.corpus.tokens:,}, longest row {cache.corpus.longest_tokens:,}",
        "cache": f"{cache.bytes_on_disk / GIB:,.2f} GiB on disk, {free / GIB:,.1f} GiB free",
        "actor": f"{cache.actor_bytes / GIB:,.2f} GiB of memory",
        "forward": f"{cache.corpus.flops:.2e} operations, {cache.hours:,.3f} actor-hours, "
        f"${dollars:,.2f}",
        "training": f"{settings.sae.steps * settings.sae.batch_tokens:,} tokens, "
        f"{sae_bytes / GIB:,.2f} GiB of memory for each of {settings.train.workers} rank(s)",
    }
    if isinstance(settings, FinetuneJobSettings):
        lines["tuning"] = _tuning_line(chain, settings)
    for name, line in lines.items():
        sys.stdout.write(f"plan: {name:9} {line}\n")
    if cache.bytes_on_disk > free:
        raise SettingsError(
            f"storage: the cache needs {cache.bytes_on_disk / GIB:,.1f} GiB, but {chain.root} has "
            f"{free / GIB:,.1f} GiB free; lower cache.tokens_per_sample or name another storage."
        )


def _tuning_line(chain: Chain, settings: FinetuneJobSettings) -> str:
    """Describe the fine-tuning; the subset is not known yet, so its longest row is the corpus'."""
    tune, run = chain.finetune, settings.tune
    run.accumulation(tune)
    model = model_directory(tune.model)
    rules = row_rules(training_processor(model), tune.max_tokens)
    longest = longest_row(_spread_rows(chain.corpus), rules)
    memory = PROCESS_BYTES + plan_tuning_memory(model_size(tune.model), tune, run, longest)
    steps = f"{tune.max_steps:,} steps" if tune.max_steps else f"{tune.epochs:g} epochs"
    return (
        f"{steps} of {tune.global_batch:,} pairs, longest {longest:,} tokens, "
        f"{memory / GIB:,.2f} GiB of memory for each of {run.workers} worker(s)"
    )


def _flops_per_second(chain: Chain) -> float:
    """Return the sustained speed of one actor."""
    run = chain.settings.run
    return run.gpus_per_actor * GPU_FLOPS or max(run.cpus_per_actor, 1) * CPU_FLOPS_PER_CORE


def _spread_rows(corpus: Corpus) -> Iterator[Sample | Rejection]:
    """Yield samples (or rejections) spread evenly over the corpus."""
    rows = corpus.snapshot.rows
    for ordinal in range(0, rows, max(1, rows // SAMPLED_ROWS)):
        file_index, row = corpus.snapshot.locate(ordinal)
        table = corpus.read(file_index, row, row + 1, corpus.columns)
        yield from corpus.samples(table, ordinal)
