r"""Trains the VLM `builtin-llava-next`: a small LLaVA-NeXT that knows some 2,000 drawings.

Raw inputs as for `build_builtin_corpus.py`, and npm `emoji-datasource-twitter` 16.0.0 (Twitter's
drawings, CC-BY-4.0), which is only measured on, never trained on:

    python tools/train_builtin_llava.py --noto DIR --fluent DIR --clipart DIR --twitter DIR \
        --work DIR --output raysae/models/data/builtin-llava-next --stage STAGE --minutes N

Three stages, each a run of its own that leaves its weights in `--work`:

- `tower`: the vision tower and the projector, contrastively against the words of the drawings'
  names, which is by far the quickest way to a tower that generalises;
- `text` (may run at the same time): the text model on questions and answers, noisy embeddings of
  the names standing where the projected patches will be;
- `joint`: everything on questions about pictures, most of them "is this a X?", once with the right
  X and once with a wrong one, the contrast kept on. It gauges and writes the model.

The stages end by the clock, so two runs differ; the measured figures belong into the model card.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from builtin_llava.dialogues import Writer
from builtin_llava.drawings import UNSEEN, Drawing, emoji_drawings, main_colour, shipped_drawings
from builtin_llava.gauges import measure
from builtin_llava.learner import Learner, Names
from builtin_llava.model import build_model
from builtin_llava.pixels import load_gallery
from builtin_llava.questions import Asker, Scene
from builtin_llava.tokens import build_processor, build_tokenizer
from builtin_llava.training import Material, start_text, start_tower, train_jointly
from torch.nn import functional
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor


def vocabulary(drawings: Sequence[Drawing], seed: int) -> set[str]:
    """All words that names, questions and answers use."""
    asker, rng = Asker(drawings), random.Random(seed)
    words = {word for drawing in drawings for word in drawing.name.split()}
    for _ in range(4_000):
        layout, count = rng.choice((("single", 1), ("row", 2), ("row", 3), ("column", 3)))
        shown = tuple(rng.sample(list(drawings), count))
        scene = Scene(shown, (rng.choice(("red", "grey", None)),) * count, layout)
        exchange = asker.ask(scene, rng, rng.random() < 0.5)
        text = f"{exchange.question} {exchange.better} {exchange.worse}"
        words |= set("".join(c if c.isalpha() else " " for c in text).split())
    return words


def read_material(drawings: Sequence[Drawing], names: Names, cache: Path) -> Material:
    """Drawings with their pixels, as training wants them."""
    full = load_gallery(drawings, cache)
    small = torch.cat(
        [functional.avg_pool2d(part.float(), 2).round().byte() for part in full.split(256)]
    )
    colours = []
    for pixels in small.permute(0, 2, 3, 1).float():
        rgba = pixels.clone()
        rgba[..., :3] = (rgba[..., :3] * 255 / rgba[..., 3:].clamp(min=1)).clamp(max=255)
        colours.append(main_colour(rgba.numpy()))
    labels = torch.tensor([names.index[drawing.name] for drawing in drawings])
    return Material(drawings, small, full, colours, labels)


def save(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, folder: Path
) -> None:
    """Writes weights in float16; the configuration says float32, as which they are loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: weight.half() for name, weight in model.state_dict().items()}
    half = {name: weight for name, weight in half.items() if name != "lm_head.weight"}
    model.save_pretrained(folder, state_dict=half)
    processor.save_pretrained(folder)


def gauge_printer(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    shown: dict[str, Sequence[Drawing]],
    folder: Path,
    count: int,
) -> Callable[[int], None]:
    """A function that prints both gauges on each set of drawings and saves the model."""
    begun = time.monotonic()

    def gauge(step: int) -> None:
        for name, drawings in shown.items():
            found = measure(model, processor, drawings, count)
            minutes = (time.monotonic() - begun) / 60
            print(
                f"gauge {step} {minutes:.1f} min {name}: n {found.count} "
                f"right name {found.right_name:.3f} verify {found.verify_auc:.3f}",
                flush=True,
            )
        save(model, processor, folder)

    return gauge


def main() -> None:
    """One stage, with gauges every few minutes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("noto", "fluent", "clipart", "twitter", "work", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--stage", choices=("tower", "text", "joint"), required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument(
        "--resume", action="store_true", help="tower, text: go on from the last end"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    drawings = shipped_drawings(args.noto, args.fluent, args.clipart)
    unseen = emoji_drawings(UNSEEN, args.twitter, args.noto)
    tokenizer = build_tokenizer(vocabulary(drawings, args.seed))
    processor = build_processor(tokenizer)
    names = Names([drawing.name for drawing in drawings], tokenizer)
    learner = Learner(build_model(len(tokenizer)), names)
    # On CPU the backward pass of fused attention is slower than the plain one at 130 tokens.
    learner.model.set_attn_implementation("eager")
    material = read_material(drawings, names, args.work / "gallery.npy")
    print(
        f"{len(drawings)} drawings, {len(names.names)} names, {len(tokenizer)} tokens", flush=True
    )
    writer = Writer(tokenizer, Asker(drawings), args.seed)
    if args.resume and args.stage != "joint":
        weights = torch.load(args.work / f"{args.stage}.pt")
        learner.log_scale.data = weights.pop("log_scale")
        learner.model.load_state_dict(weights)
    if args.stage == "tower":
        probe = name_gauge(learner, names, emoji_material(unseen, names, args.work))
        start_tower(learner, material, args.minutes, probe)
        probe(-1)
        torch.save(_state(learner), args.work / "tower.pt")
        return
    if args.stage == "text":
        start_text(learner, material, writer, args.minutes)
        torch.save(_state(learner), args.work / "text.pt")
        return
    _load_stages(learner, args.work)
    emoji = [drawing for drawing in drawings if drawing.vendor != "openclipart"]
    sets = {"unseen": unseen, "seen": emoji}
    model = learner.average
    gauge = gauge_printer(model, processor, sets, args.output, count=128)
    steps = train_jointly(learner, material, writer, args.minutes, gauge)
    gauge_printer(model, processor, sets, args.output, count=500)(steps)


def _state(learner: Learner) -> dict[str, torch.Tensor]:
    return {**learner.model.state_dict(), "log_scale": learner.log_scale.detach()}


def _load_stages(learner: Learner, work: Path) -> None:
    """Tower and projector of the stage "tower", all else of the stage "text"."""
    tower = torch.load(work / "tower.pt")
    text = torch.load(work / "text.pt")
    seeing = ("model.vision_tower", "model.multi_modal_projector")
    learner.log_scale.data = tower["log_scale"]
    merged = {key: (tower if key.startswith(seeing) else text)[key] for key in tower}
    merged.pop("log_scale")
    learner.model.load_state_dict(merged)


def emoji_material(unseen: Sequence[Drawing], names: Names, work: Path) -> Material:
    """The unseen drawings whose names are known, for the gauge of the stage "tower"."""
    known = [drawing for drawing in unseen if drawing.name in names.index]
    return read_material(known, names, work / "unseen.npy")


def name_gauge(learner: Learner, names: Names, unseen: Material) -> Callable[[int], None]:
    """Prints, for the unseen drawings, how often the right name is nearer than a random one."""
    from builtin_llava.model import modality_direction, patch_embeddings
    from builtin_llava.pixels import normalise

    @torch.no_grad()
    def gauge(step: int) -> None:
        rgba = unseen.gallery.float() / 255
        tiles = normalise(rgba[:, :3] + 1 - rgba[:, 3:])
        patches = torch.cat([patch_embeddings(learner.model, t).mean(1) for t in tiles.split(256)])
        words = names.embed(learner.model.get_input_embeddings().weight)
        pictures = functional.normalize(patches - modality_direction(), dim=-1)
        near = pictures @ functional.normalize(words, dim=-1).T
        right = near.gather(1, unseen.labels[:, None])
        better = (right > near).float().mean().item()
        first = (near.argmax(1) == unseen.labels).float().mean().item()
        print(f"gauge tower {step}: right name {better:.3f}, first {first:.3f}", flush=True)

    return gauge


if __name__ == "__main__":
    main()
