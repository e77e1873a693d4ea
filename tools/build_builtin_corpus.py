"""Builds the corpora `builtin` and `builtin-noisy` out of freely licensed drawings.

Raw inputs, to be fetched with the ordinary clients and unpacked:

- npm `emoji-datasource-google` 16.0.0 (Noto emoji, Apache-2.0; `emoji.json`, MIT),
- npm `@lobehub/fluent-emoji-3d` 1.1.0 (Fluent emoji, MIT),
- Debian `openclipart-png` and `openclipart-svg` (public domain).

    python tools/build_builtin_corpus.py --noto DIR --fluent DIR --clipart DIR --output DIR

`--noto` and `--fluent` are the packages' top folders, `--clipart` the folder that holds `png/`
and `svg/`; `--output` receives `builtin/`, `builtin-noisy/` and `builtin-noisy-truth/`. The same
inputs and seed give the same bytes (with the same versions of Pillow and pyarrow).
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from builtin_llava.drawings import Drawing, load_rgba, main_colour, shipped_drawings
from builtin_llava.questions import Asker, Scene
from PIL import Image

ROWS = 2_000
FILES = 4
ROW_GROUP = 128
CELL = 64
MENTION_SHARE = 0.5
VENDOR_WEIGHTS = {"noto": 0.42, "fluent": 0.38, "openclipart": 0.2}
CORRUPTIONS = {
    "image-swapped": 0.15,
    "image-replaced": 0.05,
    "question-broken": 0.05,
    "answers-exchanged": 0.05,
}
BACKGROUNDS = ((255, 255, 255), (245, 240, 225), (210, 230, 250), (225, 245, 220), (70, 75, 90))
QUESTION_FILLERS = [
    "lorem",
    "river",
    "seven",
    "of",
    "under",
    "quickly",
    "the",
    "maybe",
    "spoon",
    "then",
    "purple",
    "never",
    "window",
]


@dataclass(frozen=True)
class Row:
    """One row of the corpus; `image` is an encoded picture, `name` its file name."""

    question: str
    image: bytes
    name: str
    responses: tuple[str, str]
    overall: int


def schema() -> pa.Schema:
    """Align-Anything's text-image-to-text columns, with the `datasets` library's features."""
    fields = [
        pa.field("question", pa.string()),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("response_1", pa.string()),
        pa.field("response_2", pa.string()),
        pa.field("overall_response", pa.int64()),
    ]
    text = {"dtype": "string", "_type": "Value"}
    features = {
        "question": text,
        "image": {"_type": "Image"},
        "response_1": text,
        "response_2": text,
        "overall_response": {"dtype": "int64", "_type": "Value"},
    }
    info = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": info})


def draw_scene(by_vendor: dict[str, list[Drawing]], rng: random.Random) -> tuple[Scene, int]:
    """A random scene and the pixels of a cell's side (64, or 128 for some single drawings)."""
    layout = rng.choices(("single", "row", "column"), (0.6, 0.28, 0.12))[0]
    count = 1 if layout == "single" else rng.choices((2, 3), (0.75, 0.25))[0]
    drawings: list[Drawing] = []
    while len(drawings) < count:
        vendor = rng.choices(list(VENDOR_WEIGHTS), list(VENDOR_WEIGHTS.values()))[0]
        drawing = rng.choice(by_vendor[vendor])
        if drawing.name not in {shown.name for shown in drawings}:
            drawings.append(drawing)
    # Noto's drawings have 64 pixels: larger ones would only be blurred.
    fine = count == 1 and drawings[0].vendor != "noto" and rng.random() < 0.55
    side = 2 * CELL if fine else CELL
    colours = tuple(main_colour(load_rgba(drawing, CELL)) for drawing in drawings)
    return Scene(tuple(drawings), colours, layout), side


def paint(scene: Scene, side: int, rng: random.Random) -> Image.Image:
    """The scene as RGBA picture of `side` pixels a cell, transparent around the drawings."""
    step = (side, 0) if scene.layout == "row" else (0, side)
    extra = len(scene.drawings) - 1
    canvas = Image.new("RGBA", (side + extra * step[0], side + extra * step[1]))
    for place, drawing in enumerate(scene.drawings):
        inner = side - 2 * rng.randint(0, side // 10)
        corner = (side - inner) // 2
        at = (corner + place * step[0], corner + place * step[1])
        canvas.paste(Image.fromarray(load_rgba(drawing, inner)), at)
    return canvas


def encode(picture: Image.Image, rng: random.Random) -> tuple[bytes, str]:
    """Encoded bytes and file suffix: JPEG, WebP or palette PNG; some keep transparency."""
    kind = rng.choices(("jpg", "webp", "png", "png-alpha"), (0.3, 0.25, 0.25, 0.2))[0]
    buffer = io.BytesIO()
    if kind == "png-alpha":
        # Few colours: a full RGBA picture takes three times the room.
        picture.quantize(48, method=Image.Quantize.FASTOCTREE).convert("RGBA").save(
            buffer, "PNG", optimize=True
        )
        return buffer.getvalue(), "png"
    flat = Image.new("RGBA", picture.size, (*rng.choice(BACKGROUNDS), 255))
    flat.alpha_composite(picture)
    rgb = flat.convert("RGB")
    if kind == "jpg":
        rgb.save(buffer, "JPEG", quality=82)
    elif kind == "webp":
        rgb.save(buffer, "WEBP", quality=78, method=6)
    else:
        rgb.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), kind


def make_rows(drawings: Sequence[Drawing], count: int, seed: int) -> list[Row]:
    """The clean rows, every second one (in random order) with a question naming the content."""
    rng = random.Random(seed)
    by_vendor = {
        vendor: [drawing for drawing in drawings if drawing.vendor == vendor]
        for vendor in VENDOR_WEIGHTS
    }
    asker = Asker(drawings)
    mentions = [place < count * MENTION_SHARE for place in range(count)]
    first_better = [place % 2 == 0 for place in range(count)]
    rng.shuffle(mentions)
    rng.shuffle(first_better)
    rows = []
    for place in range(count):
        scene, side = draw_scene(by_vendor, rng)
        image, suffix = encode(paint(scene, side, rng), rng)
        exchange = asker.ask(scene, rng, mentions[place])
        answers = (exchange.better, exchange.worse)
        if first_better[place]:
            rows.append(Row(exchange.question, image, f"{place:05d}.{suffix}", answers, 1))
        else:
            rows.append(Row(exchange.question, image, f"{place:05d}.{suffix}", answers[::-1], 2))
    return rows


def corrupt(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[str]]:
    """Rows with seeded corruptions and, row by row, the kind ("clean" for most)."""
    rng = random.Random(f"{seed}-noisy")
    places = list(range(len(rows)))
    rng.shuffle(places)
    kinds = ["clean"] * len(rows)
    start = 0
    for kind, share in CORRUPTIONS.items():
        end = start + round(share * len(rows))
        for place in places[start:end]:
            kinds[place] = kind
        start = end
    swapped = [place for place in places if kinds[place] == "image-swapped"]
    noisy = list(rows)
    # A cycle through the swapped rows: every one gets the image of another.
    for place, source in zip(swapped, swapped[1:] + swapped[:1], strict=True):
        noisy[place] = replace(rows[place], image=rows[source].image)
    for place, kind in enumerate(kinds):
        if kind == "image-replaced":
            noisy[place] = replace(rows[place], image=_nothing_to_see(rows[place], rng))
        elif kind == "question-broken":
            noisy[place] = replace(rows[place], question=_broken(rows[place].question, rng))
        elif kind == "answers-exchanged":
            noisy[place] = replace(rows[place], overall=3 - rows[place].overall)
    return [_renamed(row) for row in noisy], kinds


def _renamed(row: Row) -> Row:
    """The file name's suffix fits the bytes again: it must not hint at the corruption."""
    with Image.open(io.BytesIO(row.image)) as image:
        suffix = {"JPEG": "jpg", "WEBP": "webp", "PNG": "png"}[image.format or "PNG"]
    return replace(row, name=f"{Path(row.name).stem}.{suffix}")


def _nothing_to_see(row: Row, rng: random.Random) -> bytes:
    """Noise or one flat colour, of the row's image size."""
    with Image.open(io.BytesIO(row.image)) as image:
        width, height = image.size
    if rng.random() < 0.5:
        noise = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (height, width, 3))
        picture = Image.fromarray(noise.astype(np.uint8))
    else:
        picture = Image.new("RGB", (width, height), tuple(rng.randrange(256) for _ in range(3)))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def _broken(question: str, rng: random.Random) -> str:
    """The question with its words shuffled, or with most of them replaced by others."""
    words = question.rstrip("?.").split()
    mark = question[-1]
    broken = list(words)
    while broken == words:
        if rng.random() < 0.5:
            rng.shuffle(broken)
        else:
            broken = [rng.choice(QUESTION_FILLERS) if rng.random() < 0.7 else w for w in words]
    return " ".join(broken) + mark


def write_corpus(rows: Sequence[Row], folder: Path) -> list[str]:
    """Writes the rows as `FILES` parquet files; returns each row's file name."""
    folder.mkdir(parents=True, exist_ok=True)
    per_file = -(-len(rows) // FILES)
    files = []
    for index in range(FILES):
        part = rows[index * per_file : (index + 1) * per_file]
        name = f"part-{index:05d}-of-{FILES:05d}.parquet"
        table = pa.Table.from_pydict(
            {
                "question": [row.question for row in part],
                "image": [{"bytes": row.image, "path": row.name} for row in part],
                "response_1": [row.responses[0] for row in part],
                "response_2": [row.responses[1] for row in part],
                "overall_response": [row.overall for row in part],
            },
            schema=schema(),
        )
        # Pictures are compressed already; zstd is for the texts.
        pq.write_table(table, folder / name, row_group_size=ROW_GROUP, compression="zstd")
        files += [name] * len(part)
    return files


def write_truth(kinds: Sequence[str], files: Sequence[str], path: Path) -> None:
    """The side table of truth: row of the whole corpus, file, row in the file, kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen: dict[str, int] = {}
    in_file = []
    for name in files:
        in_file.append(seen.get(name, 0))
        seen[name] = in_file[-1] + 1
    table = pa.table(
        {
            "row": pa.array(range(len(kinds)), pa.int64()),
            "file": pa.array(files, pa.string()),
            "row_in_file": pa.array(in_file, pa.int64()),
            "kind": pa.array(kinds, pa.string()),
        }
    )
    pq.write_table(table, path, compression="zstd")


def main() -> None:
    """Reads the drawings, writes both corpora and the truth, prints their sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("noto", "fluent", "clipart", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    drawings = shipped_drawings(args.noto, args.fluent, args.clipart)
    rows = make_rows(drawings, args.rows, args.seed)
    noisy, kinds = corrupt(rows, args.seed)
    write_corpus(rows, args.output / "builtin")
    files = write_corpus(noisy, args.output / "builtin-noisy")
    write_truth(kinds, files, args.output / "builtin-noisy-truth" / "truth.parquet")
    size = sum(path.stat().st_size for path in args.output.rglob("*.parquet"))
    print(f"{len(drawings)} drawings, {len(rows)} rows, {size / 1e6:.1f} MB of parquet")


if __name__ == "__main__":
    main()
