"""What a run will read, write, hold and cost, from headers and a small sample of the corpora."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from raysae.activations.batches import bytes_ahead
from raysae.activations.format import MAX_BATCH_BYTES, ROW_BYTES_WITHOUT_ACTIVATION
from raysae.activations.selection import count_kept
from raysae.activations.stream import WINDOWS_IN_MEMORY
from raysae.artifacts import APPENDING_BYTES
from raysae.corpora import Corpus
from raysae.errors import DataError, RejectedSampleError, SettingsError
from raysae.finetune import longest_row, plan_tuning_memory, row_rules, training_processor
from raysae.models import ForwardPlan, model_size, plan_cache_memory
from raysae.models.checkpoint import model_directory
from raysae.sae import encoding_flops, plan_encoding_memory, plan_training_memory, training_flops
from raysae.sample import Rejection, Sample
from raysae.stages._filling import BATCHES_AHEAD, DECODING_BYTES_PER_PIXEL
from raysae.stages._hidden_states import (
    SHARDS_IN_ACTOR,
    HiddenStates,
    PreparedShard,
    Reading,
)
from raysae.stages._speed import sustained_flops
from raysae.stages.chain import Chain, FinetuneJobSettings
from raysae.stages.first_look import first_runs, is_far_too_many, too_many

MODEL_PROCESS_BYTES = 900 << 20
SAE_PROCESS_BYTES = 700 << 20
TUNING_PROCESS_BYTES = 1050 << 20
"""An interpreter with what an actor, an SAE rank and a fine-tuning worker import."""

WORKER_START_S = 15.0
"""For an interpreter to start and import what a worker needs, on a machine that is at work."""

LOADED_BYTES_PER_S = 500e6
"""At which a worker reads a model from a disk, or over a network."""

PARTS_IN_ACTOR = 4
"""Of each streamed shard: two to gather in by turns, one as a message, and one on its way to the
object store."""

GIB = 1 << 30

TOKEN_COLUMN_BYTES = ROW_BYTES_WITHOUT_ACTIVATION + 8
"""Beside each hidden state: the other columns, and its place in the samples file's index."""


@dataclass(frozen=True)
class CorpusPlan:
    """What the sampled rows of a corpus say of all of them.

    Attributes:
        rows: All rows.
        usable: Share [0, 1] of the sampled rows that the model can be shown.
        tokens: Predicted tokens of all usable rows.
        kept_tokens: Those of them that a cache would keep, by `cache.image_fraction` and
            `cache.tokens_per_sample`; what `cache.max_norm_ratio` drops, nobody can foresee.
        flops: Predicted floating-point work of the model on them.
        longest_tokens: Tokens of the longest sampled row.
        pixels_per_token: Bytes of prepared image tiles for each token.
        largest_image: Pixels of the largest image of a sampled row.
        sampled: Rows that were sampled.
        rejected: How many of them cannot be used, by reason.
    """

    rows: int
    usable: float
    tokens: int
    kept_tokens: int
    flops: float
    longest_tokens: int
    pixels_per_token: float
    largest_image: int
    sampled: int
    rejected: Mapping[str, int]


@dataclass(frozen=True)
class StagePlan:
    """What one stage needs.

    Attributes:
        flops: Floating-point operations, over all workers.
        seconds: Worker-seconds, the start of the workers included.
        worker_bytes: Peak memory of one actor or rank, its process included.
        disk_bytes: What it leaves in the storage.
        cpus: Cores of one worker.
        gpus: GPUs of one worker, or the fraction of one.
    """

    flops: float
    seconds: float
    worker_bytes: int
    disk_bytes: int
    cpus: float
    gpus: float

    @property
    def hours(self) -> float:
        """Worker-hours."""
        return self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours: those of the workers times the GPUs, or the fraction, that each has."""
        return self.hours * self.gpus


class Plan:
    """The plan of a chain: each stage as if nothing of it were finished.

    Args:
        chain: What would be run.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.settings = chain.settings
        self.forward: ForwardPlan = chain.forward

    @cached_property
    def sae_corpus(self) -> CorpusPlan:
        """The corpus that the SAE is trained on."""
        return plan_corpus(self.chain, self.chain.sae_corpus, self.forward)

    @cached_property
    def corpus(self) -> CorpusPlan:
        """The corpus that is filtered."""
        if self.chain.corpus is self.chain.sae_corpus:
            return self.sae_corpus
        return plan_corpus(self.chain, self.chain.corpus, self.forward)

    def cache(self) -> StagePlan:
        """Plan the cache of hidden states, or one of each layer."""
        corpus, layers = self.sae_corpus, len(self.chain.caches)
        disk = layers * corpus.kept_tokens * (self.forward.bytes_per_token + TOKEN_COLUMN_BYTES)
        # One shard is published while the next one is collected.
        one = self._fullest_shard(self.chain.sae_corpus) * disk
        writing = min(one, 2 * MAX_BATCH_BYTES) + min(one, APPENDING_BYTES)
        written = int(self._shards_at_once * (one + writing))
        # Of each further layer a batch's states, with their padding and without.
        batch = max(self.settings.run.token_budget, corpus.longest_tokens)
        noted = 2 * (layers - 1) * batch * self.forward.bytes_per_token
        return self._model_stage(corpus, 1.0, disk, written + noted)

    def stream(self) -> StagePlan:
        """Plan the actors of a training without a cache: each rank has a pool of its own.

        One more pool makes the tokens that the SAE is judged by.
        """
        sae, run = self.settings.sae, self.settings.run
        passes = sae.steps * sae.batch_tokens / max(1, self.sae_corpus.kept_tokens)
        # A shard's parts are handed over while the next one is collected, or handed over, too.
        parts = PARTS_IN_ACTOR * min(self._shard_bytes, MAX_BATCH_BYTES)
        held = self._shards_at_once * (self._shard_bytes + parts)
        one_pool = self._model_stage(self.sae_corpus, passes, 0, held)
        starts = self.settings.train.workers * run.min_actors * self._actor_start_s
        return replace(one_pool, seconds=one_pool.seconds + starts)

    @property
    def _shards_at_once(self) -> int:
        """Shards of `sae_corpus` that an actor holds."""
        return min(SHARDS_IN_ACTOR, len(self.chain.shards(self.chain.sae_corpus)))

    @property
    def _shard_bytes(self) -> int:
        """Bytes of the fullest shard's kept tokens."""
        row = self.forward.bytes_per_token + ROW_BYTES_WITHOUT_ACTIVATION
        share = self._fullest_shard(self.chain.sae_corpus)
        return int(share * self.sae_corpus.kept_tokens * row)

    @property
    def _window_bytes(self) -> int:
        """Bytes of the windows that a rank holds, which has no more than its shards."""
        shards = len(self.chain.shards(self.chain.sae_corpus))
        mixed = min(self.settings.reading.mix_shards, -(-shards // self.settings.train.workers))
        return WINDOWS_IN_MEMORY * mixed * self._shard_bytes

    def train(self) -> StagePlan:
        """Plan the training of the SAE."""
        sae, train = self.settings.sae, self.settings.train
        d_in = self.forward.d_in
        device = "cuda" if train.gpus_per_worker else "cpu"
        memory = plan_training_memory(sae, d_in, device=device, world_size=train.workers)
        streamed = self.settings.reading.stream
        ahead = bytes_ahead(
            -(-sae.batch_tokens // train.workers),
            self.forward.bytes_per_token,
            is_local=self.chain.root.is_local or streamed,
        )
        ahead += self._window_bytes if streamed else 0
        flops = training_flops(sae, d_in) * sae.steps * sae.batch_tokens
        speed = sustained_flops(device, "float32", _threads(train.cpus_per_worker))
        return StagePlan(
            flops=flops,
            seconds=train.workers * WORKER_START_S + flops / speed,
            worker_bytes=SAE_PROCESS_BYTES + memory + ahead,
            disk_bytes=plan_encoding_memory(sae, d_in),
            cpus=train.cpus_per_worker,
            gpus=train.gpus_per_worker,
        )

    def weights(self) -> StagePlan:
        """Plan the feature weights, with the states that shards leave behind."""
        weights, corpus = self.settings.weights, self.corpus
        share = min(1.0, (weights.n_samples or corpus.rows) / corpus.rows)
        shards = len(self.chain.shards(self.chain.corpus))
        retained = 2 * weights.top_k * self.settings.sae.d_sae
        in_shard = share * corpus.tokens / shards
        state = int(min(in_shard, retained)) * self.forward.bytes_per_token
        held = (1 + min(SHARDS_IN_ACTOR, shards)) * state + self._sae_bytes
        return self._model_stage(corpus, share, (shards + 1) * state, held, encoded=True)

    def score(self) -> StagePlan:
        """Plan the scores."""
        return self._model_stage(self.corpus, 1.0, 0, self._sae_bytes, encoded=True)

    def finetune(self) -> StagePlan:
        """Plan the fine-tuning on the subset."""
        settings = self.settings
        assert isinstance(settings, FinetuneJobSettings), "only that job makes tuned models"
        tune, run = self.chain.finetune, settings.tune
        run.accumulation(tune)
        size = model_size(tune.model)
        rows = round(self.corpus.rows * self.corpus.usable * settings.select.fraction)
        pairs = tune.steps(max(1, round(rows * (1 - tune.eval_fraction)))) * tune.global_batch
        longest = self.longest_pair
        # The reference runs forward, the policy forward and, for twice that, backward.
        flops = pairs * 2 * longest * 4 * size.text.flops(longest)
        device = "cuda" if run.use_gpu else "cpu"
        speed = sustained_flops(device, tune.dtype, _threads(run.cpus_per_worker))
        return StagePlan(
            flops=flops,
            seconds=run.workers * WORKER_START_S + flops / speed,
            worker_bytes=TUNING_PROCESS_BYTES + plan_tuning_memory(size, tune, run, longest),
            disk_bytes=size.parameters * (2 if tune.dtype == "bfloat16" else 4),
            cpus=run.cpus_per_worker,
            gpus=float(run.use_gpu),
        )

    @cached_property
    def longest_pair(self) -> int:
        """Tokens of the longest sampled row with an answer; the subset is not known yet."""
        tune = self.chain.finetune
        rules = row_rules(training_processor(model_directory(tune.model)), tune.max_tokens)
        return longest_row(_sampled_rows(self.chain.corpus), rules)

    def _model_stage(
        self,
        corpus: CorpusPlan,
        share: float,
        disk_bytes: int,
        held_bytes: int,
        *,
        encoded: bool = False,
    ) -> StagePlan:
        """Plan a stage whose actors hold the model, and `held_bytes` beside it and a batch.

        The pixels of the batches ahead are held besides; a batch's own are in the forward plan.

        Args:
            corpus: What is read.
            share: Of its rows, how many.
            disk_bytes: What is written.
            held_bytes: What an actor holds beside the model and a batch.
            encoded: Whether the SAE encodes every token.
        """
        run = self.settings.run
        forward = share * corpus.flops
        encoding = share * self._encoding_flops(corpus) if encoded else 0.0
        ahead = BATCHES_AHEAD * min(run.token_budget, corpus.tokens)
        batch = self.forward
        if corpus.longest_tokens > run.token_budget:
            # It has a batch of its own.
            batch = plan_cache_memory(self.settings.model, corpus.longest_tokens)
        running = batch.peak_bytes + held_bytes + int(ahead * corpus.pixels_per_token)
        running += _threads(run.cpus_per_actor) * DECODING_BYTES_PER_PIXEL * corpus.largest_image
        return StagePlan(
            flops=forward + encoding,
            seconds=self._actor_seconds(forward, encoding),
            worker_bytes=MODEL_PROCESS_BYTES + max(self.forward.load_bytes, running),
            disk_bytes=disk_bytes,
            cpus=run.cpus_per_actor,
            gpus=run.gpus_per_actor,
        )

    def _actor_seconds(self, forward: float, encoding: float) -> float:
        """Predict how long actors start and work, taken together."""
        run = self.settings.run
        cpus = _threads(run.cpus_per_actor)
        part = run.gpus_per_actor if 0 < run.gpus_per_actor < 1 else 1.0
        seconds = forward / sustained_flops(run.device, self.settings.model.dtype, cpus)
        # An SAE encodes in float32, whatever the model's format.
        seconds += encoding / sustained_flops(run.device, "float32", cpus)
        return run.min_actors * self._actor_start_s + seconds / part

    @property
    def _actor_start_s(self) -> float:
        return WORKER_START_S + self.forward.load_bytes / LOADED_BYTES_PER_S

    def _encoding_flops(self, corpus: CorpusPlan) -> float:
        return encoding_flops(self.settings.sae, self.forward.d_in) * corpus.tokens

    @property
    def _sae_bytes(self) -> int:
        return plan_encoding_memory(self.settings.sae, self.forward.d_in)

    def _fullest_shard(self, corpus: Corpus) -> float:
        """Return the share of the corpus that its largest shard holds."""
        return max(shard.rows for shard in self.chain.shards(corpus)) / corpus.snapshot.rows


def _threads(cpus: float) -> int:
    """Return how many threads Ray lets a worker with so many CPUs multiply with."""
    return max(1, int(cpus))


def plan_corpus(chain: Chain, corpus: Corpus, forward: ForwardPlan) -> CorpusPlan:
    """Count the tokens of a few rows, spread over the corpus, with the model's own processor.

    Raises:
        DataError: None of them can be used.
    """
    states = HiddenStates(Reading(chain.settings.model, "meta", token_budget=1))
    sampled = list(_sampled_rows(corpus))
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
    tiles = [sum(image.n_tiles for image in sample.images) for sample in ready.prepared]
    flops = sum(forward.flops(n, t) for n, t in zip(lengths, tiles, strict=True))
    kept = sum(count_kept(one.modality_n, chain.settings.cache) for one in ready.prepared)
    return CorpusPlan(
        rows=corpus.snapshot.rows,
        usable=usable,
        tokens=int(sum(lengths) * factor),
        kept_tokens=int(kept * factor),
        flops=flops * factor,
        longest_tokens=max(lengths),
        pixels_per_token=sum(tiles) * _tile_bytes(states, ready) / sum(lengths),
        largest_image=max(
            (image.width * image.height for one in ready.prepared for image in one.images),
            default=0,
        ),
        sampled=len(sampled),
        rejected=Counter(rejection.reason for rejection in ready.rejections),
    )


def _tile_bytes(states: HiddenStates, ready: PreparedShard) -> float:
    """Return the bytes of one image tile, as the processor makes them of the first usable image."""
    for sample, outlined in zip(ready.samples, ready.prepared, strict=True):
        if outlined.images:
            with suppress(RejectedSampleError):
                tensors = states.model.fill(sample, outlined).tensors.values()
                tiles = sum(image.n_tiles for image in outlined.images)
                return sum(tensor.nbytes for tensor in tensors) / tiles
    return 0.0


STREAM = "stream"
"""Stands for what makes the tokens of a training without a cache, and is no kind of artifact."""

PLANNED = {
    "activations": ("cache", Plan.cache),
    STREAM: ("stream", Plan.stream),
    "saes": ("train", Plan.train),
    "weights": ("weights", Plan.weights),
    "scores": ("score", Plan.score),
    "tuned": ("finetune", Plan.finetune),
}
"""Kind of artifact → the stage that makes it and its plan; the others cost seconds."""


def print_plan(chain: Chain, kinds: Collection[str]) -> None:
    """Print what it takes to make artifacts from nothing.

    Args:
        chain: The settings.
        kinds: Kinds of artifacts, what they need included.

    Raises:
        SettingsError: What is written will not fit the storage.
    """
    plan = Plan(chain)
    if chain.settings.reading.stream and "saes" in kinds:
        kinds = {*kinds, STREAM}
    sys.stdout.write("plan: everything from nothing; what is finished already costs nothing\n")
    _print_corpus("sae_corpus", plan.sae_corpus, chain)
    if "weights" in kinds:
        _print_corpus("corpus", plan.corpus, chain)
    price = chain.settings.run.price_per_gpu_hour
    stages = {name: make(plan) for kind, (name, make) in PLANNED.items() if kind in kinds}
    for name, stage in stages.items():
        sys.stdout.write(f"plan: {name:10} {_described(stage, price)}\n")
    hours = sum(stage.hours for stage in stages.values())
    gpu_hours = sum(stage.gpu_hours for stage in stages.values())
    disk = sum(stage.disk_bytes for stage in stages.values())
    free = chain.root.free_bytes()
    left = "" if free is None else f" of {free / GIB:,.1f} GiB free"
    sys.stdout.write(
        f"plan: together   {_hours(hours, gpu_hours, price)}, {disk / GIB:,.2f} GiB on disk{left}\n"
    )
    if free is not None and disk > free:
        raise SettingsError(
            f"storage: the run needs {disk / GIB:,.1f} GiB, but {chain.root} has "
            f"{free / GIB:,.1f} GiB free; lower cache.tokens_per_sample or name another storage."
        )


def _print_corpus(name: str, corpus: CorpusPlan, chain: Chain) -> None:
    sys.stdout.write(
        f"plan: {name:10} {corpus.rows:,} rows, {corpus.usable:.0%} usable, "
        f"{corpus.tokens:,} tokens, longest row {corpus.longest_tokens:,}\n"
    )
    limit = chain.settings.run.max_rejected_fraction
    found = too_many(corpus.rejected, corpus.sampled, limit)
    if found is not None:
        is_all = corpus.sampled == corpus.rows
        would = is_all or is_far_too_many(sum(corpus.rejected.values()), corpus.sampled, limit)
        told = "would" if would else "may"
        sys.stdout.write(f"plan: warning: {found}; the job {told} stop for that\n")
    if corpus.longest_tokens > chain.row_tokens:
        sys.stdout.write(
            f"plan: warning: shards are cut for rows of {chain.row_tokens:,} tokens; with more of "
            "them set --shards.row_tokens\n"
        )


def _described(stage: StagePlan, price: float) -> str:
    """Describe a stage in a line."""
    return (
        f"{stage.flops:.2e} operations, {_hours(stage.hours, stage.gpu_hours, price)}, "
        f"{stage.worker_bytes / GIB:,.2f} GiB of memory a worker, "
        f"{stage.disk_bytes / GIB:,.2f} GiB on disk"
    )


def _hours(hours: float, gpu_hours: float, price: float) -> str:
    """Describe working time, and what it costs where it is a GPU's."""
    return f"{hours:,.3f} worker-hours, {gpu_hours:,.3f} GPU-hours, ${gpu_hours * price:,.2f}"


def _sampled_rows(corpus: Corpus) -> Iterator[Sample | Rejection]:
    for run in first_runs(corpus):
        yield from corpus.read_samples(run)
