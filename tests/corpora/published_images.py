"""Copies of the public data sets of images that raysae knows by name, and of their derivates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.corpora.published_rows import (
    IMAGE,
    OTHER_ROWS,
    ROWS,
    Good,
    Pair,
    Rows,
    answers_of,
    cell,
    changed,
    described,
    pairs,
    preference_of,
    truncated,
    write_by_datasets,
    write_parquet,
)

# PKU-Alignment/align-anything

_RATED = {
    "prompt_following": "p",
    "objective_rules": "o",
    "clarity": "c",
    "information_richness": "i",
    "safety": "s",
}
_RATED_IMAGES = {**_RATED, "aesthetics": "a"}


def _judged(dimensions: Mapping[str, str], what: str) -> list[tuple[str, pa.DataType]]:
    """Return the columns of the judgement of each dimension."""
    return [
        column
        for name, letter in dimensions.items()
        for column in [
            (f"{letter}_{what}", pa.int64()),
            (f"{name}_rate_1", pa.int64()),
            (f"{name}_rate_2", pa.int64()),
            (f"{letter}_rationale_1", pa.string()),
            (f"{letter}_rationale_2", pa.string()),
        ]
    ]


def _judgement(schema: pa.Schema) -> dict[str, Any]:
    """Return a value for each column: what is not of interest here, but there."""
    return {
        field.name: {pa.int64(): 2, pa.string(): "It follows the instruction."}.get(field.type)
        for field in schema
    }


def _image_to_text_schema(image: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            ("question", pa.string()),
            ("image", image),
            *[(name, pa.string()) for name in ("response_1", "response_2")],
            *[(name, pa.string()) for name in ("res_1_from", "res_2_from")],
            *_judged(_RATED, "response"),
            ("text_critique_1", pa.string()),
            ("text_critique_2", pa.string()),
            ("overall_response", pa.int64()),
            ("overall_textfeedback", pa.string()),
        ]
    )


def _image_to_text_rows(some: Sequence[Pair], schema: pa.Schema) -> Rows:
    rows = []
    for pair in some:
        first, second = answers_of(pair)
        row = {
            **_judgement(schema),
            "question": pair.question,
            "image": pair.image,
            "response_1": first,
            "response_2": second,
            "overall_response": preference_of(pair),
        }
        rows.append({name: row[name] for name in schema.names})
    return rows


def write_image_to_text(directory: Path, image: pa.DataType, below: str) -> None:
    """Write the training rows, the validation rows and an older file of other rows."""
    schema = _image_to_text_schema(image)
    schema = described(schema) if image == IMAGE else schema

    def write(name: str, rows: Rows) -> None:
        for row in rows if image == IMAGE else []:
            row["image"] = cell(row["image"])
        write_parquet(directory / below / name, rows, schema)

    changes: dict[int, dict[str, Any]] = {
        3: {"overall_response": 0},
        7: {"overall_response": 3},
        11: {"response_1": None},
        15: {"response_1": "Yes.", "response_2": "Yes. "},
        19: {"image": truncated(pairs()[19].image)},
    }
    write("train.parquet", changed(_image_to_text_rows(pairs(), schema), changes))
    for name, start in {"val_1k": 100, "new/train_40k": 0, "new/validation_1k": 100}.items():
        write(f"{name}.parquet", _image_to_text_rows(pairs(start, OTHER_ROWS), schema))


IMAGE_TO_TEXT_BAD = {
    3: "bad-preference",
    7: "bad-preference",
    11: "null-answer",
    15: "equal-answers",
    19: "truncated-image",
}


def write_to_image(directory: Path) -> None:
    schema = described(
        pa.schema(
            [
                ("prompt", pa.string()),
                ("image_1", IMAGE),
                ("image_1_model", pa.string()),
                ("image_2", IMAGE),
                ("image_2_model", pa.string()),
                *_judged(_RATED_IMAGES, "image"),
                ("text_1_feedback", pa.string()),
                ("text_2_feedback", pa.string()),
                ("overall_image", pa.int64()),
                ("overall_textfeedback", pa.string()),
            ]
        )
    )

    def rows(start: int, count: int) -> Rows:
        return [
            {
                **_judgement(schema),
                "prompt": pair.question,
                "image_1": cell(pair.image),
                "image_2": cell(other.image),
                "overall_image": preference_of(pair),
            }
            for pair, other in zip(pairs(start, count), pairs(start + 1, count), strict=True)
        ]

    def spoiled(number: int) -> dict[str, Any]:
        return cell(truncated(pairs(number, 1)[0].image))

    changes: dict[int, dict[str, Any]] = {
        3: {"overall_image": 0},
        6: {"image_2": spoiled(7)},  # the worse one: nobody looks at it
        7: {"image_2": spoiled(8)},
        11: {"prompt": " "},
        15: {"image_2": None},
    }
    write_parquet(
        directory / "text-to-image/train_30k.parquet", changed(rows(0, ROWS), changes), schema
    )
    write_parquet(directory / "text-to-image/val_2k.parquet", rows(100, OTHER_ROWS), schema)


def better_image(ordinal: int) -> Good:
    pair = pairs()[ordinal]
    shown = pairs(ordinal + preference_of(pair) - 1, 1)[0]
    return Good(pair.question, (shown.image,), None, None)


def write_image_to_text_image(directory: Path) -> None:
    schema = described(
        pa.schema(
            [
                ("question", pa.string()),
                ("image", IMAGE),
                ("response_1", pa.string()),
                ("output_image_1", IMAGE),
                ("response_2", pa.string()),
                ("output_image_2", IMAGE),
                ("overall_response", pa.int64()),
            ]
        )
    )
    rows: Rows = [
        {
            "question": pair.question,
            "image": cell(pair.image),
            **dict(zip(("response_1", "response_2"), answers_of(pair), strict=True)),
            "output_image_1": cell(pair.image),
            "output_image_2": None,
            "overall_response": preference_of(pair),
        }
        for pair in pairs()
    ]
    changes: dict[int, dict[str, Any]] = {
        3: {"image": None},
        7: {"response_2": ""},
        11: {"overall_response": None},
    }
    name = "text-image-to-text-image/train_27k.parquet"
    write_parquet(directory / name, changed(rows, changes), schema)


def write_text_to_text(directory: Path) -> None:
    names = ("question", "response_1", "response_2", "overall_response")
    schema = _image_to_text_schema(pa.null())
    schema = described(
        pa.schema([field for field in schema if field.name in names or "rate" in field.name])
    )
    changes: dict[int, dict[str, Any]] = {
        3: {"overall_response": 3},
        7: {"question": None},
        11: {"response_2": None},
    }
    rows = changed(_image_to_text_rows(pairs(), schema), changes)
    write_parquet(directory / "text-to-text/train_30k.parquet", rows, schema)
    more = _image_to_text_rows(pairs(100, OTHER_ROWS), schema)
    write_parquet(directory / "text-to-text/val_1k.parquet", more, schema)


# openbmb/RLAIF-V-Dataset and what was made of it


def write_rlaif_v(directory: Path) -> None:
    """Write two files by hand, without the metadata of `datasets`, and what training leaves."""
    names = ["ds_name", "question", "chosen", "rejected"]
    names += ["origin_dataset", "origin_split", "idx", "image_path"]
    schema = pa.schema([(name, pa.string()) for name in names]).insert(1, pa.field("image", IMAGE))
    origin = json.dumps({"model": "llava15_7b", "type": "question_answering"})
    rows: Rows = [
        {
            "ds_name": "RLAIF-V",
            "image": cell(pair.image, f"{pair.number:012}.jpg"),
            "question": pair.question,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "origin_dataset": "COCO",
            "origin_split": origin,
            "idx": str(pair.number // 2),
            "image_path": f"rlaif_v/{pair.number:012}.jpg",
        }
        for pair in pairs()
    ]
    changes: dict[int, dict[str, Any]] = {
        3: {"chosen": None},
        7: {"rejected": pairs()[7].chosen},
        11: {"image": {"bytes": None, "path": "000000000011.jpg"}},
        19: {"image": cell(truncated(pairs()[19].image))},
    }
    rows = changed(rows, changes)
    write_parquet(directory / "RLAIF-V-Dataset_000.parquet", rows[:18], schema)
    write_parquet(directory / "RLAIF-V-Dataset_001.parquet", rows[18:], schema)
    with_logp = schema.append(pa.field("logps", pa.string()))
    left = [{**row, "logps": "{}"} for row in rows]
    write_parquet(directory / "RLAIF-V-Dataset_with_logp_0-30.parquet", left, with_logp)


def _parts(text: str, images: int = 0) -> list[dict[str, Any]]:
    """Return a message's content in parts, all with all keys."""
    return [{"text": None, "type": "image"}] * images + [{"text": text, "type": "text"}]


def _trl_rows(some: Sequence[Pair]) -> Rows:
    return [
        {
            "chosen": [{"content": _parts(pair.chosen), "role": "assistant"}],
            "rejected": [{"content": _parts(pair.rejected), "role": "assistant"}],
            "images": [cell(pair.image)],
            "prompt": [{"content": _parts(pair.question, 1), "role": "user"}],
        }
        for pair in some
    ]


_TRL_CHANGES: Mapping[int, dict[str, Any]] = {
    3: {"chosen": []},
    7: {"images": []},
    11: {"rejected": [{"content": _parts("What else?"), "role": "user"}]},
    15: {"prompt": [{"content": _parts("Which differs?", 2), "role": "user"}]},
}
TRL_BAD = {
    3: "null-answer",
    7: "no-image",
    11: "wrong-type",
    15: "image-placeholders",
}


def write_rlaif_v_formatted(directory: Path) -> None:
    from datasets import Image, List, Value

    part = {"text": Value("string"), "type": Value("string")}
    turns = List({"content": List(part), "role": Value("string")})
    features = {"chosen": turns, "rejected": turns, "images": List(Image()), "prompt": turns}
    rows = changed(_trl_rows(pairs()), _TRL_CHANGES)
    write_by_datasets(directory / "data/train-00000-of-00001.parquet", rows, features)
    more = _trl_rows(pairs(100, OTHER_ROWS))
    write_by_datasets(directory / "data/test-00000-of-00001.parquet", more, features)


def write_trl_rlaif_v(directory: Path) -> None:
    """Write it as `datasets` does today: parts with differing keys as JSON, images as a struct."""
    from datasets import Json, List, Value

    def bare(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: part[key] for key in part if part[key] is not None} for part in content]

    rows = changed(_trl_rows(pairs()), _TRL_CHANGES)
    for row in rows:
        row["prompt"] = [{**turn, "content": bare(turn["content"])} for turn in row["prompt"]]
    part = {"type": Value("string"), "text": Value("string")}
    turns = List({"role": Value("string"), "content": List(part)})
    features = {
        "prompt": List({"role": Value("string"), "content": List(Json())}),
        "images": List({"bytes": Value("binary"), "path": Value("string")}),
        "chosen": turns,
        "rejected": turns,
    }
    write_by_datasets(directory / "data/train-00000-of-00001.parquet", rows, features)


# sqrti/SPA-VL


def write_spa_vl(directory: Path) -> None:
    from datasets import Image, Value

    text = Value("string")
    asked = {"image": Image(), "question": text}
    answered = {**asked, "chosen": text, "rejected": text}
    classes = {"class1": text, "class2": text, "class3": text}

    def rows(start: int, count: int, features: Mapping[str, Any]) -> Rows:
        return [
            {
                name: {
                    "image": cell(pair.image),
                    "question": pair.question,
                    "chosen": pair.chosen,
                    "rejected": pair.rejected,
                    "image_name": f"{pair.number}.png",
                }.get(name, "Representation & Toxicity Harms")
                for name in features
            }
            for pair in pairs(start, count)
        ]

    features = {**answered, "image_name": text}
    changes: dict[int, dict[str, Any]] = {
        1: {"question": f"<image>\n{pairs()[1].question}"},
        2: {"question": f"{pairs()[2].question}\n<image>"},
        3: {"question": "<image>"},
        7: {"chosen": "", "rejected": "I cannot help with that."},
        11: {"image": None},
        15: {"rejected": pairs()[15].chosen},
    }
    train = changed(rows(0, ROWS, features), changes)
    for file, half in enumerate([train[:15], train[15:]]):
        write_by_datasets(directory / f"data/train-{file:05}-of-00002.parquet", half, features)
    for name, features in {
        "validation/validation": {**answered, **classes},
        "test/harm": {**asked, **classes},
        "test/help": {**asked, **classes},
    }.items():
        more = rows(100, OTHER_ROWS, features)
        write_by_datasets(directory / f"{name}-00000-of-00001.parquet", more, features)
