"""The settings of the whole chain, and the ids of everything in it.

Ids are computed from settings and content alone, before anything runs: a finished artifact is found
by its id, whoever made it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from raysae.activations import CacheSettings, ReadingSettings
from raysae.artifacts import (
    Artifact,
    ArtifactSpec,
    RowGroup,
    ShardPlan,
    ShardSpec,
    content_id,
    rows_per_shard,
)
from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.errors import SettingsError
from raysae.finetune import FinetuneRunSettings, FinetuneSettings, check_model
from raysae.models import ForwardPlan, ModelSettings, model_fingerprint, plan_cache_memory
from raysae.models.checkpoint import SHIPPED, model_directory
from raysae.sae import SaeSettings
from raysae.scoring import (
    SAE_SCORERS,
    SCORERS,
    UNIMODAL_SCORERS,
    ScoreSettings,
    SelectionSettings,
    WeightSettings,
)
from raysae.settings import RunSettings, resolved_storage
from raysae.storage import Directory, open_storage, storage_at

SNAPSHOT_VERSION = 1
CACHE_VERSION = 2
SAE_VERSION = 3
WEIGHTS_VERSION = 1
SCORER_VERSION = 1
SUBSET_VERSION = 1
TUNED_VERSION = 1
REPORT_VERSION = 2
"""Each is part of the ids of what its stage makes; a change of results bumps it."""

TEXT_TOKENS_BOUND = 1024
"""Text tokens of a row that shards are planned for, unless `shards.row_tokens` says otherwise."""


@dataclass(frozen=True)
class ShardSettings:
    """How a corpus is cut into shards, the unit of work and of retry (content: part of the ids).

    Args:
        max_rows: Rows in a shard, at most.
        max_bytes: Bytes of hidden states in a shard, at most, if every row had `row_tokens`.
        row_tokens: Tokens that a row is taken to have; 0 means the model's largest image and 1,024
            tokens of text. Rows with more, of several images or of long texts, make their shards
            and the actors' memory as much larger.
    """

    max_rows: int = 256
    max_bytes: int = 1 << 30
    row_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise SettingsError(f"shards.max_rows: must be at least 1, got {self.max_rows}.")
        if self.max_bytes < 1:
            raise SettingsError(f"shards.max_bytes: must be at least 1, got {self.max_bytes}.")
        if self.row_tokens < 0:
            raise SettingsError(f"shards.row_tokens: must be 0 or more, got {self.row_tokens}.")


@dataclass(frozen=True)
class TrainRunSettings:
    """How SAE training runs: never part of an artifact's id.

    Args:
        workers: Data-parallel ranks; each takes a slice of the same global batches.
        cpus_per_worker: CPU cores that Ray reserves for each rank.
        gpus_per_worker: GPUs for each rank, 0 or 1.
        checkpoint_every: Steps between checkpoints; a lost node costs at most these.
        max_failures: How often training is restarted from its last checkpoint.
    """

    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: int = 0
    checkpoint_every: int = 500
    max_failures: int = 3

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise SettingsError(f"train.workers: must be at least 1, got {self.workers}.")
        if self.checkpoint_every < 1:
            raise SettingsError(
                f"train.checkpoint_every: must be at least 1, got {self.checkpoint_every}."
            )
        if self.gpus_per_worker not in (0, 1):
            raise SettingsError(
                f"train.gpus_per_worker: must be 0 or 1, got {self.gpus_per_worker}."
            )
        if not (self.cpus_per_worker > 0 and math.isfinite(self.cpus_per_worker)):
            raise SettingsError(
                f"train.cpus_per_worker: must be a number above 0, got {self.cpus_per_worker}."
            )
        if self.max_failures < 0:
            raise SettingsError(
                f"train.max_failures: must not be negative, got {self.max_failures}."
            )


def builtin_sae() -> SaeSettings:
    """Return SAE settings that suit the built-in model: minutes on two cores.

    For a 7-billion-parameter model give a preset: `--config raysae/presets/sae-v-llava-next.yaml`.
    """
    return SaeSettings(
        architecture="topk",
        d_sae=2048,
        k=16,
        steps=600,
        batch_tokens=2048,
        lr=1e-3,
        lr_warmup_steps=50,
        lr_decay_steps=150,
        dead_after_tokens=200_000,
        aux_k=64,
    )


@dataclass(frozen=True)
class ChainSettings:
    """Settings of every stage from corpus to subset; a job uses those of the stages it makes.

    Args:
        storage: Where all artifacts are: a directory on a disk that every node sees, or
            s3://bucket/prefix, gs://… or abfs://….
        sae_corpus: The corpus that the SAE is trained on.
        corpus: The corpus that is scored and filtered.
        model: The vision-language model whose hidden states are read.
        shards: How corpora are cut into shards.
        cache: Which tokens of the hidden states are kept for training.
        reading: In what order training reads them.
        sae: The sparse autoencoder and its training.
        weights: How features are weighed (Algorithm 1, Eq. 7 of SAE-V).
        score: How samples are scored.
        select: Which samples are kept.
        run: Actors, devices and retries.
        train: Ranks and checkpoints of SAE training.
        plan: Print rows, tokens, bytes, hours and dollars, and stop.
    """

    storage: str = "storage"
    sae_corpus: CorpusSettings = field(default_factory=lambda: CorpusSettings("builtin"))
    corpus: CorpusSettings = field(default_factory=lambda: CorpusSettings("builtin-noisy"))
    model: ModelSettings = field(default_factory=ModelSettings)
    shards: ShardSettings = field(default_factory=ShardSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    sae: SaeSettings = field(default_factory=builtin_sae)
    weights: WeightSettings = field(default_factory=WeightSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    select: SelectionSettings = field(default_factory=SelectionSettings)
    run: RunSettings = field(default_factory=RunSettings)
    train: TrainRunSettings = field(default_factory=TrainRunSettings)
    plan: bool = False


@dataclass(frozen=True)
class CacheJobSettings(ChainSettings):
    """Settings of the chain and of which layers are cached.

    Args:
        layers: Blocks whose outputs are cached in one pass, each as the cache that `model.layer`
            alone would give; `model.layer` if there are none.
    """

    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.layers)) < len(self.layers) or any(layer < 0 for layer in self.layers):
            raise SettingsError(
                f"layers: must be different blocks, counted from 0, got {list(self.layers)}."
            )


@dataclass(frozen=True)
class FinetuneJobSettings(ChainSettings):
    """Settings of the chain and of the fine-tuning on its subset.

    Args:
        finetune: What decides the tuned model; an empty `finetune.model` tunes the model whose
            hidden states were read (`model.path`).
        tune: How fine-tuning runs.
    """

    finetune: FinetuneSettings = field(default_factory=lambda: FinetuneSettings(model=""))
    tune: FinetuneRunSettings = field(default_factory=FinetuneRunSettings)


class Chain:
    """The artifacts that some settings determine, each computed when it is first asked for.

    Args:
        settings: Relative paths in them are those of this process; `Chain.settings` has them
            absolute, because every worker has a working directory and a home of its own.

    Raises:
        SettingsError: The storage cannot be written, or a model's path names no model.
    """

    def __init__(self, settings: ChainSettings) -> None:
        path = _resolved_model(settings.model.path, "model.path")
        model = replace(settings.model, path=path).with_layer
        if isinstance(settings, CacheJobSettings) and settings.layers:
            model = replace(model, layer=max(settings.layers))
        storage = resolved_storage(settings.storage)
        resolved = replace(settings, storage=storage, model=model)
        if isinstance(resolved, FinetuneJobSettings) and resolved.finetune.model:
            tuned = _resolved_model(resolved.finetune.model, "finetune.model")
            resolved = replace(resolved, finetune=replace(resolved.finetune, model=tuned))
        self.settings = resolved
        # A plan needs no storage, and leaves none behind.
        self.root: Directory = storage_at(storage) if settings.plan else open_storage(storage)
        self._lineages: dict[tuple[int, str], str] = {}

    @cached_property
    def model_content(self) -> dict[str, Any]:
        """The model's settings with its files' fingerprint instead of its path."""
        content = asdict(self.settings.model)
        path = content.pop("path")
        return {**content, "fingerprint": model_fingerprint(path)}

    @cached_property
    def sae_corpus(self) -> Corpus:
        """The corpus that the SAE is trained on."""
        return _opened(self.settings.sae_corpus, "sae_corpus")

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus that is filtered."""
        if self.settings.corpus == self.settings.sae_corpus:
            return self.sae_corpus
        return _opened(self.settings.corpus, "corpus")

    @cached_property
    def forward(self) -> ForwardPlan:
        """What a forward pass of the model costs."""
        return plan_cache_memory(self.settings.model, self.settings.run.token_budget)

    @cached_property
    def rows_per_shard(self) -> int:
        """Rows whose hidden states fit a shard's bytes even in the worst case."""
        bounds = self.settings.shards
        row_bytes = self.row_tokens * self.forward.bytes_per_token
        return rows_per_shard(row_bytes, bounds.max_rows, bounds.max_bytes)

    @property
    def row_tokens(self) -> int:
        """Tokens that a row is taken to have where shards are cut."""
        usual = self.forward.max_image_tokens + TEXT_TOKENS_BOUND
        return self.settings.shards.row_tokens or usual

    def shards(self, corpus: Corpus) -> ShardPlan:
        """Cut a corpus into shards."""
        return ShardPlan(corpus.snapshot.file_rows, self.rows_per_shard)

    @cached_property
    def sae_snapshot(self) -> Artifact:
        """The list of `sae_corpus`' files."""
        return self._snapshot(self.sae_corpus)

    @cached_property
    def snapshot(self) -> Artifact:
        """The list of `corpus`' files."""
        same = self.corpus is self.sae_corpus
        return self.sae_snapshot if same else self._snapshot(self.corpus)

    def _snapshot(self, corpus: Corpus) -> Artifact:
        """Name a corpus' snapshot by its files' names and contents.

        Other artifacts name it instead of repeating a list that may be of 10⁵ files.
        """
        content = {"files": content_id({**corpus.snapshot.to_json(), **corpus.reading()})}
        return self._artifact("snapshots", SNAPSHOT_VERSION, {}, content)

    @cached_property
    def activations(self) -> Artifact:
        """The cache of hidden states of `sae_corpus`, of several layers that of the last one."""
        return self.caches[self.settings.model.layer]

    @cached_property
    def caches(self) -> Mapping[int, Artifact]:
        """The caches that are made in one pass, by layer, ascending."""
        settings = self.settings
        layers: tuple[int, ...] = (settings.model.layer,)
        if isinstance(settings, CacheJobSettings) and settings.layers:
            layers = tuple(sorted(settings.layers))
        return {layer: self._cache(layer) for layer in layers}

    def _cache(self, layer: int) -> Artifact:
        """Name a layer's cache, the same whichever others are made along with it."""
        return self._artifact(
            "activations",
            CACHE_VERSION,
            {
                "model": {**self.model_content, "layer": layer},
                "cache": asdict(self.settings.cache),
            },
            {
                "corpus": self.sae_snapshot.id,
                "rows_per_shard": self.rows_per_shard,
            },
        )

    @cached_property
    def sae(self) -> Artifact:
        """The SAE trained on `activations`, or on the same tokens without a cache of them."""
        settings = self.settings
        reading = asdict(settings.reading)
        if reading.pop("stream"):
            model = {"model": self.model_content, "cache": asdict(settings.cache)}
            return self._artifact(
                "saes",
                SAE_VERSION,
                {"sae": asdict(settings.sae), "reading": {**reading, "stream": True}, **model},
                {"corpus": self.sae_snapshot.id, "rows_per_shard": self.rows_per_shard},
            )
        return self._artifact(
            "saes",
            SAE_VERSION,
            {"sae": asdict(settings.sae), "reading": reading},
            # The corpus too: a used-up cache may be removed, and with it what it was made from.
            {"activations": self.activations.id, "corpus": self.sae_snapshot.id},
        )

    @cached_property
    def weights(self) -> Artifact:
        """The weight of every feature, from a sample of `corpus`."""
        return self._artifact(
            "weights",
            WEIGHTS_VERSION,
            {"weights": asdict(self.settings.weights), "model": self.model_content},
            {"sae": self.sae.id, "corpus": self.snapshot.id},
        )

    def row_group(self, shard: ShardSpec, scorer: str) -> RowGroup:
        """Name a shard's row group in the score table.

        Every scorer is keyed by the model, which decides which rows are usable. A scorer that needs
        no SAE is not keyed by one, so that a new SAE does not redo it. The file's place in the
        snapshot counts, because ordinals are stored: the same file after another one, or twice, has
        other rows in the table.
        """
        name = self.settings.corpus.name
        lineage = self._lineage(shard.file_index, scorer)
        return RowGroup(name, scorer, lineage, shard.start, shard.stop)

    def score_inputs(self, scorer: str) -> dict[str, str]:
        """Return what scores are made from, so that nobody removes it while they are there."""
        return {"corpus": self.snapshot.id, **self._scored_by(scorer)}

    @cached_property
    def series(self) -> str:
        """Names all that is scored together: every row of `corpus` once by every scorer."""
        return content_id(
            {
                "corpus": [self.settings.corpus.name, self.snapshot.id],
                "lineages": [self._lineage(0, scorer) for scorer in SCORERS],
            }
        )

    def _scored_by(self, scorer: str) -> dict[str, str]:
        """Return the artifacts beside the corpus that determine a scorer's scores."""
        if scorer in SAE_SCORERS:
            return {"sae": self.sae.id, "weights": self.weights.id}
        return {}

    def _lineage(self, file_index: int, scorer: str) -> str:
        """Hash everything but the row range that determines a row group, once for each file."""
        known = self._lineages.get((file_index, scorer))
        if known is None:
            content: dict[str, Any] = {
                "file": self.corpus.snapshot.files[file_index].fingerprint,
                "first_ordinal": self.corpus.snapshot.first_ordinal(file_index),
                "corpus": self.settings.corpus.name,
                **self.corpus.reading(),
                "scorer": scorer,
                "version": SCORER_VERSION,
                "settings": asdict(self.settings.score),
                "model": self.model_content,
                **self._scored_by(scorer),
            }
            known = self._lineages[file_index, scorer] = content_id(content)
        return known

    @cached_property
    def subset(self) -> Artifact:
        """The kept rows, in the source's schema."""
        scorer = self.settings.select.scorer
        if scorer not in SCORERS:
            raise SettingsError(
                f"select.scorer: {scorer!r} is not a scorer; choose one of {', '.join(SCORERS)}."
            )
        if scorer not in UNIMODAL_SCORERS and not self._shows_images:
            raise SettingsError(
                f"select.scorer: {scorer!r} compares text with image tokens, but this model is "
                f"shown none of this corpus; choose one of {', '.join(UNIMODAL_SCORERS)}."
            )
        # One id of all, because each of them would be in every listing of artifacts.
        keys = [self.row_group(shard, scorer).key for shard in self.shards(self.corpus)]
        return self._artifact(
            "subsets",
            SUBSET_VERSION,
            {"select": asdict(self.settings.select)},
            {**self.score_inputs(scorer), "scores": content_id(keys)},
        )

    @property
    def _shows_images(self) -> bool:
        """Whether the model is shown any image of `corpus`."""
        return self.corpus.has_images and self.forward.max_image_tokens > 0

    @cached_property
    def report(self) -> Artifact:
        """The page that shows what was done, for one subset."""
        return self._artifact(
            "reports",
            REPORT_VERSION,
            {},
            {"subset": self.subset.id, "sae": self.sae.id, "weights": self.weights.id},
        )

    @cached_property
    def finetune(self) -> FinetuneSettings:
        """Settings of the fine-tuning, with the model that is tuned filled in."""
        settings = self.settings
        assert isinstance(settings, FinetuneJobSettings), "only that job's settings have them"
        model = settings.finetune.model or settings.model.path
        return replace(settings.finetune, model=model)

    @cached_property
    def tuned(self) -> Artifact:
        """The model fine-tuned on `subset`."""
        if not self.corpus.has_pairs:
            raise SettingsError(
                "corpus: fine-tuning compares two answers, of which this corpus has none or one; "
                "name a corpus with both."
            )
        # Here, because the chain before it may cost days.
        check_model(model_directory(self.finetune.model, "finetune.model"), self.finetune)
        content = asdict(self.finetune)
        fingerprint = model_fingerprint(content.pop("model"))
        return self._artifact(
            "tuned",
            TUNED_VERSION,
            {"finetune": content},
            {"subset": self.subset.id, "model": fingerprint},
        )

    def _artifact(
        self, kind: str, version: int, settings: dict[str, Any], inputs: dict[str, Any]
    ) -> Artifact:
        """Name an artifact by what determines it."""
        return Artifact(self.root, ArtifactSpec(kind, version, settings, inputs))


def _opened(settings: CorpusSettings, setting: str) -> Corpus:
    """Open a corpus, and say how many of its files are not meant."""
    corpus = open_corpus(settings, setting)
    if corpus.left_out:
        sys.stdout.write(
            f"{setting}: {corpus.left_out:,} corpus file(s) beside the {settings.name} files are "
            f"left out; --{setting}.files says which are meant\n"
        )
    return corpus


def _resolved_model(path: str, setting: str) -> str:
    """Return a model's absolute path, or the name itself if it is a shipped model's."""
    directory = model_directory(path, setting)
    return path if directory == SHIPPED / path else str(directory.absolute())
