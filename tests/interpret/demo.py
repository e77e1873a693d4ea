"""A report's content as a real run would give it, drawn by a seeded generator without a model."""

from __future__ import annotations

import io
import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from raysae.interpret import (
    ArtifactRef,
    DecidingFeature,
    FeatureCard,
    ModalityHealth,
    PatchExample,
    ReportContent,
    SaeSummary,
    SampleCard,
    SelectionSummary,
    StageCounts,
    TokenExample,
    TrainingPoint,
    Truth,
    auc_by_kind,
    group_rejections,
    kind_counts,
    summarize_scores,
    summarize_weights,
)
from raysae.sample import Rejection

ROWS = 1584
KINDS = ("swapped-image", "swapped-answers", "blank-image", "truncated-answer")
QUESTIONS = (
    "What is the animal on the left doing?",
    "How many red circles are in the picture, and where do they stand relative to the horizon?",
    "Describe the scene in detail, with attention to light, colour, and what is in the foreground.",
    "Is the sign in the middle of the road readable?",
)
ANSWER = (
    "The picture shows a quiet shore under an evening sky. A round red buoy floats in the middle, "
    "a little below the horizon, and its reflection breaks on the waves in front of it. "
)


@cache
def picture(seed: int, width: int = 640, height: int = 420) -> bytes:
    """Draw a sky, a sea and some shapes, as JPEG."""
    rng = np.random.default_rng(seed)
    top, bottom = rng.integers(60, 255, 3), rng.integers(20, 200, 3)
    shade = np.linspace(0, 1, height)[:, None, None]
    pixels = (top * (1 - shade) + bottom * shade + np.zeros((height, width, 1))).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, size = rng.integers(0, width), rng.integers(0, height), rng.integers(20, 120)
        colour = tuple(int(part) for part in rng.integers(0, 255, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x + size), int(y + size)), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def _truth_columns(rng: np.random.Generator) -> dict[str, np.ndarray]:
    kind_s = np.array([KINDS[row % 4] if row % 4 == row % 7 else "" for row in range(ROWS)])
    image_tokens_s = rng.integers(840, 2928, ROWS)
    text_tokens_s = rng.integers(12, 90, ROWS)
    drop_s = np.select([kind_s == "swapped-image", kind_s == "blank-image"], [4.0, 6.0], 0.0)
    cosine_s = np.clip(rng.normal(9, 2.4, ROWS) + image_tokens_s / 500 - drop_s, 0.4, None)
    return {
        "kind": kind_s,
        "image_tokens": image_tokens_s,
        "text_tokens": text_tokens_s,
        "cosine-cooccurring": cosine_s,
        "cosine-union": rng.normal(20, 3, ROWS) + image_tokens_s / 150 + drop_s / 3,
        "l0": np.where(rng.random(ROWS) < 0.02, np.nan, rng.normal(60, 9, ROWS)),
        "l0-cooccurring": np.round(cosine_s * 3 + rng.normal(0, 4, ROWS)),
        "random": rng.random(ROWS),
    }


def _sample(row: int, place: int, columns: dict[str, np.ndarray], kept: bool) -> SampleCard:
    return SampleCard(
        sample_id=f"3f9ac1d27be0-{row:06d}",
        ordinal=row,
        image=None if place == 6 else b"damaged" if place == 7 else picture(row),
        question=QUESTIONS[row % len(QUESTIONS)],
        chosen=ANSWER * (1 + row % 4),
        rejected=ANSWER[: 60 + row % 90],
        score=float(columns["cosine-cooccurring"][row]),
        kept=kept,
        text_tokens=int(columns["text_tokens"][row]),
        image_tokens=int(columns["image_tokens"][row]),
        features=tuple(
            DecidingFeature(1000 + 37 * ((row + index) % 20), 0.55 - 0.04 * index)
            for index in range(8)
        ),
        other_scores={"l0": float(columns["l0"][row]), "random": float(columns["random"][row])},
        truth=str(columns["kind"][row]),
    )


def _feature(index: int) -> FeatureCard:
    patches = tuple(
        PatchExample(
            image=picture(100 + (index * 5 + place) % 30),
            box=(x / 24, y / 24, (x + 1) / 24, (y + 1) / 24),
            value=9.4 - place - index / 9,
            sample_id=f"3f9ac1d27be0-{place:06d}",
            position=300 + place,
        )
        for place in range(5)
        for x, y in [((index * 7 + place * 5) % 24, (index * 3 + place * 11) % 24)]
    )
    words = (" buoy", " shore", " red", "\n", " horizon")
    tokens = tuple(
        TokenExample(
            "USER: How many boats lie behind the",
            word,
            " in this picture, and which",
            8.7 - place,
            f"3f9ac1d27be0-{place:06d}",
            1200 + place,
        )
        for place, word in enumerate(words)
    )
    return FeatureCard(
        1000 + 37 * index, 0.549 - index * 0.013, 5, 5, 1841 - 60 * index, 20931, patches, tokens
    )


def _sae() -> SaeSummary:
    steps = range(0, 30001, 50)
    noise = np.random.default_rng(3).normal(0, 1, len(steps))
    curve = tuple(
        TrainingPoint(
            step,
            4200 * math.exp(-step / 1500) + 160 + float(noise[index]) * 6,
            min(0.95 * math.exp(-step / 3000) + 0.11 + float(noise[index]) * 0.004, 1.0),
            900 * math.exp(-step / 2500) + 94 + float(noise[index]) * 3,
        )
        for index, step in enumerate(steps)
    )
    health = (
        ModalityHealth("all", 1_048_576, 94.5, 0.118, 0.457, 0.543, 0.0031),
        ModalityHealth("text", 91_204, 88.1, 0.204, 0.312, 0.688, 0.0026),
        ModalityHealth("image", 957_372, 95.1, 0.109, 0.398, 0.602, 0.0034),
    )
    return SaeSummary(
        "relu", 4096, 65536, "llava-v1.6-mistral-7b", "align-anything", 16, health, curve
    )


def _rejections() -> list[Rejection]:
    rows = [
        Rejection(
            f"3f9ac1d27be0-{row:06d}", row, "truncated-image", "the JPEG ends after 812 bytes"
        )
        for row in range(7, 1600, 140)
    ]
    bomb = "36,000 × 36,000 pixels; at most 50,000,000 are decoded"
    return [*rows, Rejection("3f9ac1d27be0-000901", 901, "image-bomb", bomb)]


def _stages() -> tuple[StageCounts, ...]:
    return (
        StageCounts("cache", 1584, 16, 91_204, 2_957_372, 3168, 431.2),
        StageCounts("train", 0, 0, 3_600_000, 118_400_000, 880_000, 13_320.0),
        StageCounts("weights", 1000, 10, 57_000, 1_867_000, 2000, 274.0),
        StageCounts("score", 1584, 16, 91_204, 2_957_372, 3168, 455.9),
        StageCounts("select", 1584, 0, 0, 0, 0, 1.2),
    )


@cache
def demo_content() -> ReportContent:
    """Return the content of a report on a corrupted corpus."""
    rng = np.random.default_rng(42)
    columns = _truth_columns(rng)
    scorers = ("cosine-cooccurring", "cosine-union", "l0", "l0-cooccurring", "random")
    order = np.argsort(-columns["cosine-cooccurring"], kind="stable")
    kept_s = np.zeros(ROWS, dtype=bool)
    kept_s[order[:800]] = True
    weights_f = np.where(rng.random(65536) < 0.043, rng.normal(0.178, 0.07, 65536), 0.0)
    return ReportContent(
        corpus="builtin-noisy",
        selection=SelectionSummary(
            "cosine-cooccurring",
            "highest",
            corpus_rows=1600,
            rejected=16,
            kept=800,
            threshold=float(columns["cosine-cooccurring"][order[799]]),
            rule="n 800",
        ),
        stages=_stages(),
        artifacts=tuple(
            ArtifactRef(kind, f"{kind}/{index:024x}", "2026-02-11T09:12:44Z")
            for index, kind in enumerate(("activations", "saes", "weights", "scores", "subsets"))
        ),
        settings={
            "job": "filter",
            "corpus": {"name": "builtin-noisy", "path": "", "max_rows": 0},
            "model": {"path": "builtin-llava-next", "layer": 16, "dtype": "bfloat16"},
            "scoring": {"threshold": 1.0, "weights": {"n_samples": 1000, "top_k": 5}},
        },
        packages={"python": "3.12.3", "raysae": "0.1.0", "torch": "2.11.0", "ray": "2.60.0"},
        rejections=group_rejections(_rejections()),
        scorers=tuple(
            summarize_scores(
                name,
                columns[name],
                kept_s=kept_s,
                text_tokens_s=columns["text_tokens"],
                image_tokens_s=columns["image_tokens"],
            )
            for name in scorers
        ),
        best=tuple(_sample(int(row), i, columns, True) for i, row in enumerate(order[:12])),
        worst=tuple(_sample(int(row), i, columns, False) for i, row in enumerate(order[:-13:-1])),
        features=tuple(_feature(index) for index in range(20)),
        sae=_sae(),
        weights=summarize_weights(weights_f),
        truth=Truth(
            auc_by_kind({name: columns[name] for name in scorers}, columns["kind"]),
            kind_counts(columns["kind"], kept_s),
        ),
        created_at="2026-02-11T12:40:09Z",
    )
