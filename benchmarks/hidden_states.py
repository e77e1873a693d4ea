#!/usr/bin/env python3
"""Samples a second to hidden states at mid depth, beside the plain way with transformers.

    python benchmarks/hidden_states.py
    python benchmarks/hidden_states.py --model CHECKPOINT --layer 16 --dtype bfloat16 --device cuda

The plain way loads the whole model, takes the samples in batches as they come, lets the processor
prepare each batch when its turn has come, asks for `output_hidden_states`, and keeps those of the
block that are no padding. raysae loads the blocks up to that one, forms batches of like length, and
prepares images in threads. Both get the same encoded images and prompts, keep the hidden states on
the host, and run in turns in one process; the hidden states are compared. The operations that
raysae's forward passes need, padding aside, are told as a share of what the device's matrix
products reach in the same process, and the time in vision tower and text blocks of one more run.
Without `--model` the built-in model is shown the built-in corpus; a checkpoint of real shapes gets
the photographs of `real_shapes.py` of mixed sizes. Results go to
`benchmarks/results/hidden_states*.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from measured import RESULTS, circumstances, spread, store
from real_shapes import make_samples

from raysae.corpora import CorpusSettings, open_corpus
from raysae.models import ModelSettings, decode_image, padding_share, plan_cache_memory
from raysae.models.checkpoint import model_directory
from raysae.sample import Sample
from raysae.stages._hidden_states import HiddenStates, Reading, split_by_sample
from raysae.stages._speed import matrix_rate

States = dict[str, torch.Tensor]
"""Sample id → hidden states of its tokens, (n, d_in), on the host."""


class Plain:
    """What a script of a page would do with transformers."""

    def __init__(self, settings: ModelSettings, device: str, batch: int) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        directory = model_directory(settings.path)
        self.processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
        self.processor.tokenizer.padding_side = "right"
        self.model = AutoModelForImageTextToText.from_pretrained(
            directory, dtype=getattr(torch, settings.dtype), local_files_only=True
        ).to(device)
        self.model.eval()
        self.layer, self.batch, self.device = settings.layer, batch, device

    def run(self, samples: Sequence[Sample]) -> tuple[States, float]:
        """Return hidden states and the share of padding."""
        states: States = {}
        used = computed = 0
        for start in range(0, len(samples), self.batch):
            part = samples[start : start + self.batch]
            inputs = self.processor(
                images=[[decode_image(image) for image in sample.images] for sample in part],
                text=[_prompt(sample) for sample in part],
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            with torch.no_grad():
                output = self.model(**inputs, output_hidden_states=True)
            hidden_btd = output.hidden_states[self.layer + 1].cpu()
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            for row, (sample, length) in enumerate(zip(part, lengths, strict=True)):
                states[sample.sample_id] = hidden_btd[row, :length].clone()
            used += sum(lengths)
            computed += len(part) * max(lengths)
        return states, 1 - used / computed


class Ours:
    """raysae's way, as an actor does it."""

    def __init__(self, settings: ModelSettings, device: str, budget: int, threads: int) -> None:
        self.reading = Reading(settings, device, budget, threads)
        self.states = HiddenStates(self.reading)

    def run(self, samples: Sequence[Sample]) -> tuple[States, float]:
        """Return hidden states and the share of padding."""
        states: States = {}
        shard = self.states.prepare(samples)
        for indices, batch in self.states.run(shard):
            for index, tokens in zip(indices, split_by_sample(batch), strict=True):
                states[shard.samples[index].sample_id] = tokens.acts_nd.cpu()
        lengths = [one.n_tokens for one in shard.prepared]
        batches = self.states.model.batches(shard.prepared, self.states.token_budget)
        return states, padding_share(lengths, batches)

    def flops(self, samples: Sequence[Sample]) -> float:
        """Return the operations that the samples' hidden states need, without padding."""
        plan = plan_cache_memory(self.reading.model, self.reading.token_budget)
        return sum(
            plan.flops(one.n_tokens, sum(image.n_tiles for image in one.images))
            for one in self.states.prepare(samples).prepared
        )

    def parts(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Return milliseconds a sample in the model's parts, of one more run."""
        model: Any = self.states.model
        modules = {
            "vision_tower": model._model.vision_tower,  # noqa: SLF001
            "text_blocks": model._text_model,  # noqa: SLF001
        }
        taken = dict.fromkeys(modules, 0.0)
        undo = []
        for name, module in modules.items():
            started: list[float] = []
            undo.append(module.register_forward_pre_hook(lambda *_, at=started: at.append(_now())))

            def ended(*_: Any, name: str = name, at: list[float] = started) -> None:
                taken[name] += _now() - at.pop()

            undo.append(module.register_forward_hook(ended))
        self.run(samples)
        for hook in undo:
            hook.remove()
        return {name: 1000 * seconds / len(samples) for name, seconds in taken.items()}


def _now() -> float:
    """Return seconds, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _prompt(sample: Sample) -> str:
    images = "<image> " * len(sample.images)
    return f"USER: \n{images}{sample.messages[0].text}\nASSISTANT: "


def built_in_samples(rows: int) -> list[Sample]:
    """Return the first rows of the built-in corpus."""
    corpus = open_corpus(CorpusSettings("builtin", max_rows=rows))
    return [row for row in corpus.all_samples() if isinstance(row, Sample)]


def timed(work: Callable[[Sequence[Sample]], Any], samples: Sequence[Sample]) -> tuple[Any, float]:
    """Return the result and the seconds it took."""
    started = time.perf_counter()
    result = work(samples)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def largest_difference(one: States, other: States) -> float:
    """Return the largest difference of two runs' hidden states, as a share of their norm."""
    shares: Iterator[float] = (
        float((one[name] - other[name]).float().norm() / one[name].float().norm()) for name in one
    )
    return max(shares)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin-llava-next")
    parser.add_argument("--layer", type=int, default=2, help="2: half of the built-in model's 6")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--plain-batch", type=int, default=16)
    parser.add_argument("--token-budget", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--name", default="hidden_states")
    arguments = parser.parse_args()
    settings = ModelSettings(
        path=arguments.model,
        layer=arguments.layer,
        dtype=arguments.dtype,
        image_backend="torchvision",
    )
    is_built_in = arguments.model == "builtin-llava-next"
    samples = (built_in_samples if is_built_in else make_samples)(arguments.rows)
    np.random.default_rng(0).shuffle(samples)  # type: ignore[arg-type]
    plain = Plain(settings, arguments.device, arguments.plain_batch)
    ours = Ours(settings, arguments.device, arguments.token_budget, arguments.threads)
    seconds: dict[str, list[float]] = {"plain": [], "raysae": []}
    padding, difference = {}, 0.0
    # The first repetition warms up and does not count.
    for repetition in range(arguments.repetitions + 1):
        runs = {}
        for name, way in (("plain", plain), ("raysae", ours)):
            (runs[name], padding[name]), taken = timed(way.run, samples)
            print(f"{repetition} {name}: {len(samples) / taken:.2f} samples/s", flush=True)
            if repetition:
                seconds[name].append(taken)
        difference = max(difference, largest_difference(runs["plain"], runs["raysae"]))
    rate = matrix_rate(arguments.device.split(":")[0], arguments.dtype, arguments.threads)
    flops = ours.flops(samples)
    results = {
        **circumstances(arguments.device),
        "arguments": {name: value for name, value in vars(arguments).items() if name != "name"},
        "tokens": sum(len(state) for state in runs["raysae"].values()),
        "samples_per_second": {
            name: spread([len(samples) / one for one in taken]) for name, taken in seconds.items()
        },
        "times_faster": spread(
            [peer / one for peer, one in zip(seconds["plain"], seconds["raysae"], strict=True)]
        ),
        "matrix_rate": rate,
        "share_of_matrix_rate": spread([flops / one / rate for one in seconds["raysae"]]),
        "milliseconds_a_sample": ours.parts(samples),
        "padding": padding,
        "largest_relative_difference": difference,
    }
    print(json.dumps(results, indent=2))
    store(results, RESULTS / f"{arguments.name}.json")


if __name__ == "__main__":
    main()
