"""Claim `end_to_end` of `cache.py`: texts to hidden states on the disk, with the same small model.

The text is the same to the token: ours tokenises rows of a Parquet file, the peer gets a data set
of what came out, as its documentation advises. Both stop after the block whose output is taken.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cache_ray import work_in_plain_loop
from cache_tools import Bench, new_directory, ratio, say, settle, spreads

from raysae.activations import CachedShard, CacheReader
from raysae.corpora import CorpusSettings, open_corpus
from raysae.corpora.columns import ColumnMap
from raysae.models import HiddenStateModel, ModelSettings, load_hidden_state_model
from raysae.models.checkpoint import model_directory
from raysae.sample import Message, Sample, TextPart
from raysae.settings import RunSettings
from raysae.stages.chain import Chain, ChainSettings

CONTEXT = 128
BATCH = 64
"""The peer's sequences in a forward pass: as many tokens as ours has by default."""

COMPARED = 8
"""Samples whose states are compared."""


class Shape(NamedTuple):
    """A model of random weights.

    Attributes:
        width: Of the hidden states.
        inner: Width inside the MLPs.
        heads: Of attention.
        layers: Blocks; the states are those after half of them.
        rows: Samples of `CONTEXT` tokens in a run.
        buffer_tokens: Tokens in one of the peer's shards, about 32 MiB.
    """

    width: int
    inner: int
    heads: int
    layers: int
    rows: int
    buffer_tokens: int

    @property
    def layer(self) -> int:
        """The block whose output is taken, counted from 0."""
        return self.layers // 2 - 1


SHAPES = {
    "builtin_text": Shape(192, 512, 6, 6, 1024, 32768),
    "pythia_70m": Shape(512, 1368, 8, 6, 512, 16384),
}
"""The text half of the model that raysae ships, and 70 million parameters, as a Llama."""


def measure_end_to_end(bench: Bench) -> dict[str, Any]:
    """Measure each model."""
    return {name: _measure(bench, name, shape) for name, shape in SHAPES.items()}


def _measure(bench: Bench, name: str, shape: Shape) -> dict[str, Any]:
    peer, ours = [], []
    with new_directory(bench.work) as place:
        settings = ModelSettings(path=str(place / "model"), layer=shape.layer)
        _write_model(place / "model", shape)
        corpus = _write_corpus(place, settings, shape)
        for repetition in range(bench.repetitions + 1):
            settle()
            peer.append(_peer(bench, place, shape))
            with new_directory(bench.work) as storage:
                settle()
                run, states = _ours(bench, storage, settings, corpus)
            ours.append(run)
            rates = [one[-1]["tokens_per_second"] for one in (peer, ours)]
            say(f"end to end {name} {repetition}", peer=rates[0], ours=rates[1])
        difference = _difference(states, np.load(place / "states.npy"))
    return {
        "model": shape._asdict(),
        "tokens": shape.rows * CONTEXT,
        "context": CONTEXT,
        "sae_lens": spreads(peer[1:]),
        "raysae": spreads(ours[1:]),
        "times_faster": ratio(
            [run["seconds"] for run in peer[1:]], [run["seconds"] for run in ours[1:]]
        ),
        "relative_difference": float(f"{difference:.3g}"),
    }


def _write_model(directory: Path, shape: Shape) -> None:
    """Write a Llama with random weights, and the tokenizer of the model that is shipped."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(model_directory("builtin-llava-next"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _write_corpus(place: Path, settings: ModelSettings, shape: Shape) -> CorpusSettings:
    """Write rows of `CONTEXT` tokens each, and what the tokenizer makes of them for the peer."""
    import datasets

    model = load_hidden_state_model(settings, "cpu")
    words = _single_tokens(model)
    generator = np.random.default_rng(0)
    length = CONTEXT - _tokens(model, "a")
    questions = [" ".join(["a", *generator.choice(words, length)]) for _ in range(shape.rows)]
    file = place / "corpus" / "rows.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"question": questions}), file)
    columns = ColumnMap(question="question")
    corpus = CorpusSettings("generic", str(file.parent), columns=columns)
    rows = [row for row in open_corpus(corpus).all_samples() if isinstance(row, Sample)]
    ids = [model.outline(row).token_id_n.tolist() for row in rows]
    assert len(ids) == shape.rows
    assert {len(one) for one in ids} == {CONTEXT}
    datasets.Dataset.from_dict({"input_ids": ids}).save_to_disk(place / "tokens")
    return corpus


def _single_tokens(model: HiddenStateModel) -> list[str]:
    """Return words that are one token each, behind another word."""
    decoded = {model.decode_token(number).strip() for number in range(100, 2500)}
    words = sorted(word for word in decoded if word.isalpha())
    return [word for word in words if _tokens(model, f"a {word} {word}") - _tokens(model, "a") == 2]


def _tokens(model: HiddenStateModel, question: str) -> int:
    message = Message("user", (TextPart(question),))
    return model.outline(Sample("", 0, (message,), ())).n_tokens


def _peer(bench: Bench, place: Path, shape: Shape) -> dict[str, float]:
    cache = place / "peer"
    run = bench.peer.ask(
        "forward",
        path=cache,
        dataset=place / "tokens",
        model=place / "model",
        hook=f"model.layers.{shape.layer}",
        d_in=shape.width,
        batch=BATCH,
        buffer_tokens=shape.buffer_tokens,
        device=bench.device,
        sample=place / "states.npy",
    )
    shutil.rmtree(cache)
    assert run["tokens"] == shape.rows * CONTEXT
    return {
        "tokens_per_second": run["tokens"] / run["seconds"],
        "seconds": run["seconds"],
        "seconds_in_model": run["forward_seconds"],
        "peak_gib": run["peak_gib"],
    }


def _ours(
    bench: Bench, storage: Path, settings: ModelSettings, corpus: CorpusSettings
) -> tuple[dict[str, float], npt.NDArray[np.float32]]:
    """Work as an actor does, in a plain loop; return rates, and the states of the first samples."""
    chain = Chain(
        ChainSettings(
            storage=str(storage),
            sae_corpus=corpus,
            model=settings,
            run=RunSettings(
                cpus_per_actor=bench.threads, gpus_per_actor=float(bench.device != "cpu")
            ),
        )
    )
    run = work_in_plain_loop(chain)
    (marks,) = (list(one.marks(chain.shards(chain.sae_corpus))) for one in chain.caches.values())
    seconds = run["seconds"]
    measured = {
        "tokens_per_second": run["tokens"] / seconds,
        "seconds": seconds,
        "loading_seconds": run["loading_seconds"],
    }
    first = CachedShard.of_mark(marks[0], str(storage))
    reader = CacheReader(chain.activations.directory, [first.data], [first.rows])
    tokens = reader.read_rows(0, np.arange(first.rows))
    order_n = np.lexsort((tokens.position_n, tokens.sample_n))[: COMPARED * CONTEXT]
    states: npt.NDArray[np.float32] = tokens.acts_nd.numpy()[order_n]
    return measured, states.reshape(COMPARED, CONTEXT, -1)


def _difference(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of a state, as a share of its norm."""
    apart = np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)
    return float(apart.max())
