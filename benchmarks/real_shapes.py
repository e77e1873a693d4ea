#!/usr/bin/env python3
"""LLaVA-NeXT 7B's shapes without its weights: what caching hidden states costs on this machine.

    python benchmarks/real_shapes.py write DIRECTORY --blocks 2
    python benchmarks/real_shapes.py run DIRECTORY --samples 4 --dtype bfloat16

`write` makes a random checkpoint of the published configuration cut to some text blocks, with a
byte-level BPE tokenizer of the published size trained on Python's standard library. `run` shows it
images of at least 512², which become 2,928 tokens each, and prints time, speed and peak memory
beside what `plan_cache_memory` predicts. Memory on the CPU is resident memory above the start.
"""

from __future__ import annotations

import argparse
import io
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from raysae.models import (
    ForwardPlan,
    HiddenStateModel,
    ModelSettings,
    PreparedSample,
    load_hidden_state_model,
    padding_share,
    plan_cache_memory,
)
from raysae.sample import ImagePart, Message, Sample, TextPart

VOCABULARY, IMAGE_ID, PAD_ID, ROWS = 32_000, 32_000, 32_001, 32_064
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    " [/INST]{% else %} {{ message['content'][0]['text'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
MIB = 2**20
T = TypeVar("T")


def published_config(blocks: int) -> Any:
    """Return the configuration of llava-v1.6-mistral-7b with that many text blocks."""
    from transformers import CLIPVisionConfig, LlavaNextConfig, MistralConfig

    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = MistralConfig(
        vocab_size=ROWS,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=blocks,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        sliding_window=None,
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def library_text(limit: int = 12 * MIB) -> Iterator[str]:
    """Yield Python's standard library, up to a number of bytes: text that is always at hand."""
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = file.read_text(errors="replace")
        limit -= len(text)
        if limit < 0:
            return
        yield text


def build_tokenizer() -> Any:
    """Train a byte-level BPE with the published special ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(library_text(), trainer)
    missing = range(tokenizer.get_vocab_size(), VOCABULARY)
    tokenizer.add_tokens([f"<unused_{number}>" for number in missing])
    tokenizer.add_special_tokens(["<image>", "<pad>"])
    if [tokenizer.token_to_id(token) for token in ("<image>", "<pad>")] != [IMAGE_ID, PAD_ID]:
        raise RuntimeError("the tokenizer's special ids are not the published ones")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def write(directory: Path, blocks: int, seed: int) -> None:
    """Write the random checkpoint: bfloat16, shards of at most 500 MB."""
    from transformers import (
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    torch.manual_seed(seed)
    config = published_config(blocks)
    # The class's own constructor for a dtype: building in float32 first would double the memory.
    model = LlavaNextForConditionalGeneration._from_config(config, dtype=torch.bfloat16)  # noqa: SLF001
    model.save_pretrained(directory, max_shard_size="500MB")
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    LlavaNextProcessor(
        image_processor,
        build_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{directory}: {parameters / 1e9:.2f} B parameters, {blocks} text blocks")


def make_samples(n: int, seed: int = 0) -> list[Sample]:
    """Return questions about JPEG photographs of soft noise, 512 to 1,024 pixels square."""
    rng = np.random.default_rng(seed)
    words = ["what", "is", "shown", "here", "and", "how", "many", "objects", "of", "each", "kind"]
    samples = []
    for number in range(n):
        edge = int(rng.integers(512, 1025))
        noise = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        buffer = io.BytesIO()
        noise.resize((edge, edge), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        question = " ".join(rng.choice(words, int(rng.integers(8, 40)))) + "?"
        message = Message("user", (ImagePart(0), TextPart(question)))
        samples.append(Sample(f"real-{number}", number, (message,), (buffer.getvalue(),)))
    return samples


class Peak:
    """Peak memory since `reset`: the GPU's allocations, or the process's resident memory."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._start = self._now("VmRSS") if not self._cuda else 0

    @staticmethod
    def _now(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    def reset(self) -> None:
        """Forget the peak so far."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        """Return the peak above the start, in bytes."""
        return (
            int(torch.cuda.max_memory_allocated())
            if self._cuda
            else self._now("VmHWM") - self._start
        )


def timed(work: Callable[[], T], device: str) -> tuple[T, float]:
    """Return the result and the seconds that it took, the GPU's included."""
    start = time.perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def count_tokens(model: HiddenStateModel, prepared: Sequence[PreparedSample]) -> int:
    """Run one batch and drop its hidden states, as a cache writer does once they are written."""
    return len(model.hidden_states(prepared))


def run(arguments: argparse.Namespace) -> None:
    """Run and print measured beside predicted."""
    settings = ModelSettings(
        path=str(arguments.directory),
        layer=arguments.layer,
        dtype=arguments.dtype,
        attention=arguments.attention,
    )
    device = arguments.device
    plan = plan_cache_memory(settings, arguments.token_budget)
    import transformers  # noqa: F401  its own memory is not the model's

    torch.ones(8, 8, device=device).sum().item()
    peak = Peak(device)
    peak.reset()
    model, load_seconds = timed(lambda: load_hidden_state_model(settings, device), device)
    load_peak = peak.bytes()
    samples = make_samples(arguments.samples, seed=0)
    prepared, prepare_seconds = timed(lambda: [model.prepare(s) for s in samples], device)
    peak.reset()
    forward_seconds = 0.0
    batches = model.batches(prepared, arguments.token_budget)
    for batch in batches:
        members = [prepared[i] for i in batch]
        n_tokens, seconds = timed(partial(count_tokens, model, members), device)
        forward_seconds += seconds
        print(f"batch of {len(members)}: {n_tokens} tokens in {seconds:.2f} s")
    report(model, plan, prepared, batches, (load_seconds, prepare_seconds, forward_seconds))
    print(f"\n{'memory, MiB':32}{'predicted':>12}{'measured':>12}")
    # On the CPU in the stored dtype the weights stay in the mapped files until they are used.
    print(f"{'loading':32}{plan.load_bytes / MIB:12.0f}{load_peak / MIB:12.0f}")
    print(f"{'weights and a batch':32}{plan.peak_bytes / MIB:12.0f}{peak.bytes() / MIB:12.0f}")


def report(
    model: HiddenStateModel,
    plan: ForwardPlan,
    prepared: Sequence[PreparedSample],
    batches: Sequence[Sequence[int]],
    seconds: tuple[float, float, float],
) -> None:
    """Print times and speeds."""
    lengths = [sample.n_tokens for sample in prepared]
    tiles = [sum(image.n_tiles for image in sample.images) for sample in prepared]
    work = sum(plan.flops(n, t) for n, t in zip(lengths, tiles, strict=True))
    load_seconds, prepare_seconds, forward_seconds = seconds
    print(f"\nblocks 0 to {model.layer}, d_in {model.d_in}, {model.dtype} on {model.device}")
    image_tokens = sum(image.n_tokens for sample in prepared for image in sample.images)
    print(f"samples {len(prepared)}, tokens {sum(lengths)}, image tokens {image_tokens}")
    print(f"padding share {padding_share(lengths, batches):.4f}")
    print(f"load {load_seconds:.2f} s, prepare {prepare_seconds / len(prepared):.3f} s a sample")
    print(f"forward {forward_seconds:.2f} s, {sum(lengths) / forward_seconds:.0f} tokens/s")
    print(f"work {work / 1e12:.2f} TFLOP predicted, {work / forward_seconds / 1e9:.0f} GFLOP/s")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("write", help="write a random checkpoint")
    writer.add_argument("directory", type=Path)
    writer.add_argument("--blocks", type=int, default=2)
    writer.add_argument("--seed", type=int, default=0)
    runner = commands.add_parser("run", help="measure hidden states")
    runner.add_argument("directory", type=Path)
    runner.add_argument("--samples", type=int, default=4)
    runner.add_argument("--layer", type=int, default=1)
    runner.add_argument("--dtype", default="bfloat16")
    runner.add_argument("--attention", default="sdpa")
    runner.add_argument("--device", default="cpu")
    runner.add_argument("--token-budget", type=int, default=6144)
    arguments = parser.parse_args()
    if arguments.command == "write":
        write(arguments.directory, arguments.blocks, arguments.seed)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
