"""Model and SAE together in an actor: samples in, tokens with their sparse codes out."""

from __future__ import annotations

from collections.abc import Iterator

from raysae.artifacts import fetched_whole
from raysae.sae import SAE_FILES, Codes, load_saelens
from raysae.sample import TokenBatch
from raysae.stages._hidden_states import HiddenStates, PreparedShard, Reading
from raysae.storage import Directory


class Encoder(HiddenStates):
    """A model and the SAE that was trained on it."""

    def __init__(self, reading: Reading, sae: Directory) -> None:
        super().__init__(reading)
        with fetched_whole(sae, SAE_FILES) as files:
            self.sae = load_saelens(files, reading.device)

    def encode(
        self, shard: PreparedShard, threshold: float = 0.0
    ) -> Iterator[tuple[list[int], TokenBatch, Codes]]:
        """Yield, batch by batch, the indices of its samples, its tokens, and their codes."""
        for indices, batch in self.run(shard):
            yield indices, batch, self.sae.encode_sparse(batch.acts_nd, threshold)
