"""Samples through the model inside an actor: outlined, batched by length, filled, run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from raysae.errors import RejectedSampleError
from raysae.models import HiddenStateModel, ModelSettings, PreparedSample, load_hidden_state_model
from raysae.sample import Modality, Rejection, Sample, TokenBatch
from raysae.stages._filling import filled_batches
from raysae.stages._trials import LIMITS
from raysae.stages._watchdog import ends_process_if_stalled
from raysae.stages.chain import ChainSettings

SHARDS_IN_ACTOR = 2
"""Shards that an actor holds results of: one is published while the next one is worked on."""

Batch = tuple[list[int], TokenBatch]
"""Indices of a batch's samples, and their tokens."""


class PreparedShard:
    """A shard's samples, ready but for their images, and the rows that cannot be used.

    Attributes:
        samples: In the order of their rows.
        prepared: What the model's `outline` made of each.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.prepared: list[PreparedSample] = []
        self._rejections: list[Rejection] = []
        self._dropped: set[int] = set()

    def twin(self) -> PreparedShard:
        """Return a shard of the same samples from which others can be dropped."""
        twin = PreparedShard()
        twin.samples, twin.prepared = self.samples, self.prepared
        twin._rejections, twin._dropped = [*self._rejections], {*self._dropped}
        return twin

    def add(self, sample: Sample, prepared: PreparedSample) -> None:
        """Take a sample in."""
        self.samples.append(sample)
        self.prepared.append(prepared)

    def reject(self, rejection: Rejection) -> None:
        """Take a row that is no sample."""
        self._rejections.append(rejection)

    def drop(self, index: int, error: RejectedSampleError) -> None:
        """Reject a sample that was taken in; the others keep their indices."""
        sample = self.samples[index]
        self._dropped.add(index)
        self.reject(Rejection(sample.sample_id, sample.ordinal, error.reason, error.detail))

    @property
    def rejections(self) -> list[Rejection]:
        """The rejected rows, in the order of the corpus, whenever each was found out."""
        return sorted(self._rejections, key=lambda rejection: rejection.ordinal)

    def counts(self) -> dict[str, int]:
        """Count rows, rejected rows, and tokens by modality, as marks and reports name them."""
        per_modality = np.zeros(len(Modality), np.int64)
        for index, sample in enumerate(self.prepared):
            if index not in self._dropped:
                per_modality += np.bincount(sample.modality_n, minlength=len(Modality))
        return {
            "rows": len(self.samples) - len(self._dropped),
            "rejected": len(self._rejections),
            "tokens": int(per_modality.sum()),
            **{f"{m.name.lower()}_tokens": int(per_modality[m]) for m in Modality},
        }

    def mark(self) -> dict[str, Any]:
        """Return what every stage's done mark says of a shard's rows: counts and rejections."""
        return {**self.counts(), "rejections": [vars(rejection) for rejection in self.rejections]}


@dataclass(frozen=True)
class Reading:
    """How an actor reads samples: which model, where it runs, how much at once.

    Attributes:
        model: Which model, and how it is read.
        device: `cpu` or `cuda`.
        token_budget: Padded tokens in one forward pass.
        threads: How many decode and process images while the device computes.
    """

    model: ModelSettings
    device: str
    token_budget: int
    threads: int = 1

    @classmethod
    def of(cls, settings: ChainSettings) -> Reading:
        """Pick what an actor needs out of a job's settings."""
        run = settings.run
        threads = max(1, math.ceil(run.cpus_per_actor))
        return cls(settings.model, run.device, run.token_budget, threads)


class HiddenStates:
    """A model in an actor, and how much of it is used at a time."""

    def __init__(self, reading: Reading) -> None:
        self.model: HiddenStateModel = load_hidden_state_model(reading.model, reading.device)
        self.token_budget = reading.token_budget
        self.threads = reading.threads

    def prepare(self, rows: Sequence[Sample | Rejection]) -> PreparedShard:
        """Tokenise the usable rows; the others stay rejected, with their reasons."""
        shard = PreparedShard()
        with ends_process_if_stalled(LIMITS.row_s) as going_on:
            for row in rows:
                going_on()
                try:
                    if isinstance(row, Rejection):
                        shard.reject(row)
                    else:
                        shard.add(row, self.model.outline(row))
                except RejectedSampleError as error:
                    shard.reject(Rejection(row.sample_id, row.ordinal, error.reason, error.detail))
        return shard

    def run(self, shard: PreparedShard) -> Iterator[Batch]:
        """Yield, batch by batch, the indices of its samples and their tokens' hidden states.

        A sample whose images cannot be processed, or whose hidden states are not all finite, is
        dropped from the shard.
        """
        for _, batch in self.run_layers({self.model.layer: shard}):
            yield batch

    def run_layers(
        self, shards: Mapping[int, PreparedShard], *, on_host: bool = False
    ) -> Iterator[tuple[int, Batch]]:
        """Yield the hidden states of several blocks, each with its block's number.

        Args:
            shards: By block, one that `prepare` returned and twins of it: what is dropped for the
                hidden states of one block stays with the others.
            on_host: Whether the hidden states are wanted in the host's memory. From a GPU they are
                copied there while the next batch is at work.
        """
        launched: list[_Launched] = []
        for indices, prepared in self._filled(list(shards.values())):
            batches = self.model.hidden_states_at(prepared, list(shards))
            ready = launched
            launched = [
                _Launched.of(layer, indices, batch, on_host=on_host)
                for layer, batch in batches.items()
            ]
            del prepared, batches
            if launched[0].done is None:
                # Nothing is gained by holding a batch back that is computed already.
                ready, launched = launched, []
            while ready:
                yield from _finite(shards, ready.pop(0))
        while launched:
            yield from _finite(shards, launched.pop(0))

    def _filled(
        self, shards: Sequence[PreparedShard]
    ) -> Iterator[tuple[list[int], list[PreparedSample]]]:
        """Yield the batches with their images, without what cannot be processed."""
        shard = shards[0]
        batches = self.model.batches(shard.prepared, self.token_budget)
        filled = filled_batches(self.model, shard.samples, shard.prepared, batches, self.threads)
        for indices, samples in zip(batches, filled, strict=True):
            kept: list[int] = []
            prepared: list[PreparedSample] = []
            for index, sample in zip(indices, samples, strict=True):
                if isinstance(sample, RejectedSampleError):
                    for one in shards:
                        one.drop(index, sample)
                else:
                    kept.append(index)
                    prepared.append(sample)
            del samples
            if kept:
                yield kept, prepared


class _Launched(NamedTuple):
    """A batch whose hidden states may still be computed.

    Attributes:
        layer: The block that they are of.
        indices: Its samples.
        batch: Their tokens.
        finite_n: bool (n,), whether each hidden state is finite, in the host's memory.
        done: When all of it is there; None if it is now.
    """

    layer: int
    indices: list[int]
    batch: TokenBatch
    finite_n: torch.Tensor
    done: torch.cuda.Event | None

    @classmethod
    def of(cls, layer: int, indices: list[int], batch: TokenBatch, *, on_host: bool) -> _Launched:
        """Begin to copy to the host what is wanted there, without waiting for it."""
        finite_n = batch.acts_nd.isfinite().all(dim=1)
        if not batch.acts_nd.is_cuda:
            return cls(layer, indices, batch, finite_n, None)
        if on_host:
            batch = replace(batch, acts_nd=_copied(batch.acts_nd))
        copied_n, done = _copied(finite_n), torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        return cls(layer, indices, batch, copied_n, done)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """Begin to copy a GPU's tensor into pinned memory, in the order of the GPU's work."""
    copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)


def _finite(
    shards: Mapping[int, PreparedShard], launched: _Launched
) -> Iterator[tuple[int, Batch]]:
    """Yield a batch without the samples of which any hidden state is not finite."""
    layer, indices, batch = launched.layer, launched.indices, launched.batch
    if launched.done is not None:
        launched.done.synchronize()
    finite = launched.finite_n.numpy()
    if finite.all():
        yield layer, (indices, batch)
        return
    bad = set(batch.sample_n[~finite].tolist())
    for place in sorted(bad):
        broken = int((~finite[batch.sample_n == place]).sum())
        detail = f"the hidden states of {broken} of its tokens are infinite or no numbers"
        shards[layer].drop(indices[place], RejectedSampleError("non-finite", detail))
    kept = [place for place in range(len(indices)) if place not in bad]
    if kept:
        yield layer, ([indices[place] for place in kept], _only(batch, kept))


def _only(batch: TokenBatch, places: Sequence[int]) -> TokenBatch:
    """Return the tokens of some of a batch's samples, numbered anew."""
    token_n = np.flatnonzero(np.isin(batch.sample_n, places))
    rows = torch.from_numpy(token_n).to(batch.acts_nd.device)
    return TokenBatch(
        sample_n=np.searchsorted(places, batch.sample_n[token_n]).astype(np.int32),
        position_n=batch.position_n[token_n],
        token_id_n=batch.token_id_n[token_n],
        modality_n=batch.modality_n[token_n],
        acts_nd=batch.acts_nd.index_select(0, rows),
    )


def split_by_sample(batch: TokenBatch) -> list[TokenBatch]:
    """Cut a batch into one `TokenBatch` per sample, in order; hidden states stay views."""
    bounds = np.flatnonzero(np.diff(batch.sample_n)) + 1
    starts, stops = [0, *bounds.tolist()], [*bounds.tolist(), len(batch)]
    return [
        TokenBatch(
            sample_n=batch.sample_n[start:stop],
            position_n=batch.position_n[start:stop],
            token_id_n=batch.token_id_n[start:stop],
            modality_n=batch.modality_n[start:stop],
            acts_nd=batch.acts_nd[start:stop],
        )
        for start, stop in zip(starts, stops, strict=True)
    ]
