"""Samples through the model inside an actor: prepared, batched by length, run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysae.errors import RejectedSampleError
from raysae.models import HiddenStateModel, ModelSettings, PreparedSample, load_hidden_state_model
from raysae.sample import Modality, Rejection, Sample, TokenBatch
from raysae.stages._trials import LIMITS
from raysae.stages._watchdog import ends_process_after
from raysae.stages.chain import ChainSettings


@dataclass(frozen=True)
class PreparedShard:
    """A shard's samples, ready for the forward pass, and the rows that are not."""

    samples: list[Sample]
    prepared: list[PreparedSample]
    rejections: list[Rejection]

    def counts(self) -> dict[str, int]:
        """Count rows, rejected rows, and tokens by modality, as marks and reports name them."""
        per_modality = np.zeros(len(Modality), np.int64)
        for sample in self.prepared:
            per_modality += np.bincount(sample.modality_n, minlength=len(Modality))
        return {
            "rows": len(self.samples),
            "rejected": len(self.rejections),
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
    """

    model: ModelSettings
    device: str
    token_budget: int

    @classmethod
    def of(cls, settings: ChainSettings) -> Reading:
        """Pick what an actor needs out of a job's settings."""
        return cls(settings.model, settings.run.device, settings.run.token_budget)


class HiddenStates:
    """A model in an actor, and how much of it is used at a time."""

    def __init__(self, reading: Reading) -> None:
        self.model: HiddenStateModel = load_hidden_state_model(reading.model, reading.device)
        self.token_budget = reading.token_budget

    def prepare(self, rows: Sequence[Sample | Rejection]) -> PreparedShard:
        """Tokenise and process the usable rows; the others stay rejected, with their reasons."""
        shard = PreparedShard([], [], [])
        for row in rows:
            if isinstance(row, Rejection):
                shard.rejections.append(row)
                continue
            try:
                with ends_process_after(LIMITS.row_s):
                    prepared = self.model.prepare(row)
                shard.prepared.append(prepared)
                shard.samples.append(row)
            except RejectedSampleError as error:
                shard.rejections.append(
                    Rejection(row.sample_id, row.ordinal, error.reason, error.detail)
                )
        return shard

    def run(self, shard: PreparedShard) -> Iterator[tuple[list[int], TokenBatch]]:
        """Yield, batch by batch, the indices of its samples and their tokens' hidden states."""
        for indices in self.model.batches(shard.prepared, self.token_budget):
            yield indices, self.model.hidden_states([shard.prepared[i] for i in indices])


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
