"""The three stages of training: the tower, the text model, then both together."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from builtin_llava.dialogues import CELLS, VERDICT_WEIGHT, Writer, draw_layout
from builtin_llava.drawings import Drawing
from builtin_llava.learner import SIDE, Learner
from builtin_llava.model import modality_direction, patch_embeddings
from builtin_llava.pixels import normalise, random_backgrounds, render, tile
from builtin_llava.questions import Scene
from builtin_llava.tokens import TILE

EXTRA_PICTURES = 48
TURNED_WORDS = frozenset("left right leftwards rightwards east west clock".split())  # noqa: SIM905


@dataclass(frozen=True)
class Material:
    """Drawings, their pixels (uint8), main colours and places among the names.

    `gallery` is (n, 4, 64, 64), `large` (n, 4, 128, 128).
    """

    drawings: Sequence[Drawing]
    gallery: torch.Tensor
    large: torch.Tensor
    colours: Sequence[str | None]
    labels: torch.Tensor

    def flippable(self, chosen: torch.Tensor) -> torch.Tensor:
        """Which drawings still fit their names in a mirror."""
        return torch.tensor(
            [
                self.drawings[place].group not in ("symbols", "flags")
                and not TURNED_WORDS & set(self.drawings[place].name.split())
                for place in chosen.tolist()
            ]
        )

    def pictures(
        self, chosen: torch.Tensor, backgrounds: torch.Tensor, strength: float, size: int = TILE
    ) -> torch.Tensor:
        """Augmented pictures (n, 3, size, size) of the chosen drawings."""
        gallery = self.gallery if size == TILE else self.large
        flippable = self.flippable(chosen)
        return render(gallery[chosen], flippable, size, backgrounds, strength=strength)


class Schedule:
    """Learning rate by the clock: a short rise, then half a cosine down to a twentieth."""

    def __init__(self, minutes: float, warmup_steps: int = 50) -> None:
        self._seconds = minutes * 60
        self._warmup = warmup_steps
        self._begun = time.monotonic()

    def done(self) -> float:
        """Share of the time that has gone."""
        return (time.monotonic() - self._begun) / self._seconds

    def factor(self, step: int) -> float:
        """What to multiply the peak rates with."""
        fall = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.done())))
        return fall * min(1.0, (step + 1) / self._warmup)


def start_tower(
    learner: Learner,
    material: Material,
    minutes: float,
    gauge: Callable[[int], None],
    batch: int = 128,
) -> None:
    """Stage "tower": a drawing's mean projected patch against the mean word embedding of its name.

    The word embeddings stay as they are, so that the text model can be trained on them at the
    same time.
    """
    model = learner.model
    parts = (model.model.vision_tower, model.model.multi_modal_projector)
    weights = [weight for part in parts for weight in part.parameters()]
    groups = [{"params": weights, "peak": 1e-3}, {"params": [learner.log_scale], "peak": 1e-2}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    schedule, step = Schedule(minutes), 0
    while schedule.done() < 1:
        loss = _contrast_loss(learner, material, batch)
        _take(optimiser, loss, schedule.factor(step))
        step += 1
        if step % 50 == 0:
            print(f"tower {step} {schedule.done():.0%} loss {loss.item():.3f}", flush=True)
        if step % 200 == 0:
            gauge(step)
    chosen = torch.randint(len(material.drawings), (batch,))
    pictures = material.pictures(chosen, random_backgrounds(batch), 0.5)
    learner.match_norms(normalise(pictures))


def start_text(learner: Learner, material: Material, writer: Writer, minutes: float) -> None:
    """Stage "text": the text model alone, noisy embeddings of the names standing for the pictures.

    What it learns there, to name and to compare, is what a trained tower lets it do with
    pictures; learning it through an untrained tower takes many times as long.
    """
    model = learner.model
    weights = [*model.model.language_model.layers.parameters(), model.model.image_newline]
    weights += [*model.model.language_model.norm.parameters()]
    optimiser = torch.optim.AdamW(
        [{"params": weights, "peak": 1.5e-3}], betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    schedule, step, rng = Schedule(minutes), 0, random.Random(2)
    while schedule.done() < 1:
        layout, count = draw_layout(rng, large=False)
        rows = 16 if count == 1 else 8
        chosen = torch.randint(len(material.drawings), (rows, count))
        scenes = [_scene(material, part, layout) for part in chosen.tolist()]
        text = writer.batch(scenes, hard=0.1, checks=3)
        with torch.autocast("cpu", torch.bfloat16):
            patches = _imagined(learner, material.labels[chosen], layout)
            image_tokens = learner.pack(patches, *CELLS[layout, count])
            losses, weights_m = learner.answers(image_tokens, text, writer.prefix)
        loss = (losses * weights_m).sum() / weights_m.sum()
        _take(optimiser, loss, schedule.factor(step))
        step += 1
        if step % 50 == 0:
            verdicts = losses[weights_m == VERDICT_WEIGHT].mean().item()
            done = f"{schedule.done():.0%} {layout}"
            print(f"text {step} {done} loss {loss.item():.3f} verdicts {verdicts:.3f}", flush=True)


@torch.no_grad()
def _imagined(learner: Learner, labels: torch.Tensor, layout: str) -> torch.Tensor:
    """Stand-ins (b, 1 + n, patches, d) for the projected patches of n drawings a picture.

    Each is the name's embedding with noise of the picture, of the patch, and some other name.
    """
    rows, count = labels.shape
    embedding = learner.model.get_input_embeddings().weight
    names = functional.normalize(learner.names.embed(embedding), dim=-1)
    wrong = torch.randint(len(names), labels.shape)
    width = names.shape[1]
    shown = names[labels] + 0.9 * torch.rand(rows, count, 1) * names[wrong]
    noise = functional.normalize(torch.randn(rows, count, width), dim=-1)
    shown = shown + 1.2 * torch.rand(rows, count, 1) * noise
    tiles = shown[:, :, None].expand(-1, -1, SIDE * SIDE, -1)
    line = torch.arange(SIDE) * count // SIDE
    grid = torch.stack([line] * SIDE, 0 if layout == "row" else 1).flatten()
    patches = torch.cat([shown[:, grid][:, None], tiles], 1)
    noise = functional.normalize(torch.randn_like(patches), dim=-1)
    patches = functional.normalize(patches + 1.2 * noise, dim=-1)
    return patches * embedding.norm(dim=-1).mean() + modality_direction()


def train_jointly(
    learner: Learner,
    material: Material,
    writer: Writer,
    minutes: float,
    gauge: Callable[[int], None],
    *,
    batch: int = 24,
) -> int:
    """Stage "joint": everything on questions, the contrast kept on; returns the steps."""
    optimiser = torch.optim.AdamW(
        _joint_groups(learner), betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    learner.average.load_state_dict(learner.model.state_dict())
    schedule, step, rng = Schedule(minutes), 0, random.Random(1)
    gauged = time.monotonic()
    while schedule.done() < 1:
        layout, count = draw_layout(rng)
        rows = batch if count == 1 else batch // 2
        answer, contrast = _joint_losses(learner, material, writer, layout, (rows, count))
        contrast = contrast + _contrast_loss(learner, material, EXTRA_PICTURES)
        _take(optimiser, answer + 0.5 * contrast, schedule.factor(step))
        learner.follow()
        step += 1
        if step % 25 == 0:
            contrast = contrast / 2
            losses = f"answers {answer.item():.3f} contrast {contrast.item():.3f}"
            print(f"joint {step} {schedule.done():.0%} {layout} {losses}", flush=True)
        if time.monotonic() - gauged > 240:
            gauge(step)
            gauged = time.monotonic()
    return step


def _contrast_loss(learner: Learner, material: Material, count: int) -> torch.Tensor:
    """Contrast of `count` single drawings with the names; their questions would cost far more."""
    chosen = torch.randint(len(material.drawings), (count,))
    tiles = normalise(material.pictures(chosen, random_backgrounds(count), 0.5))
    with torch.autocast("cpu", torch.bfloat16):
        patches = patch_embeddings(learner.model, tiles)
    return learner.contrast(patches, material.labels[chosen])


def _joint_losses(
    learner: Learner, material: Material, writer: Writer, layout: str, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the answers and of the contrast, for `shape` = (pictures, drawings in each)."""
    rows, count = shape
    chosen = torch.randint(len(material.drawings), (rows * count,))
    backgrounds = random_backgrounds(rows).repeat_interleave(count, 0)
    size = 2 * TILE if layout == "large" else TILE
    cells = material.pictures(chosen, backgrounds, 0.5, size).unflatten(0, (rows, count))
    pictures = torch.cat(list(cells.unbind(1)), 3 if layout == "row" else 2)
    scenes = [_scene(material, part, layout) for part in chosen.view(rows, count).tolist()]
    text = writer.batch(scenes, hard=0.25, checks=2)
    with torch.autocast("cpu", torch.bfloat16):
        patches = learner.patches(tile(pictures))
        image_tokens = learner.pack(patches, *CELLS[layout, count])
        losses, weights = learner.answers(image_tokens, text, writer.prefix)
    # The tiles after the squeezed picture are the drawings, in order; or parts of a large one.
    whole = patches[:, :1] if layout == "large" else patches[:, 1:]
    contrast = learner.contrast(whole.flatten(0, 1), material.labels[chosen])
    return (losses * weights).sum() / weights.sum(), contrast


def _scene(material: Material, places: list[int], layout: str) -> Scene:
    drawings = tuple(material.drawings[place] for place in places)
    return Scene(drawings, tuple(material.colours[place] for place in places), layout)


def _joint_groups(learner: Learner) -> list[dict]:
    """Weights with their peak rates: the tower has converged further than the text model."""
    model = learner.model
    tower = [
        *model.model.vision_tower.parameters(),
        *model.model.multi_modal_projector.parameters(),
    ]
    known = {id(weight) for weight in tower}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    return [
        {"params": tower, "peak": 8e-4},
        {"params": rest, "peak": 1e-3},
        {"params": [learner.log_scale], "peak": 1e-3},
    ]


def _take(optimiser: torch.optim.Optimizer, loss: torch.Tensor, factor: float) -> None:
    """One step with clipped gradients at `factor` times the groups' peak rates."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimiser.step()
