"""Copies of public data sets that a column map reads, and of layouts that tools expect."""

from __future__ import annotations

import base64
import json
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
    cell,
    changed,
    dataset_of,
    pair_of,
    pairs,
    truncated,
    write_by_datasets,
    write_parquet,
)


def write_ultrafeedback(directory: Path) -> None:
    """Write preferences without images; `prompt` is the first message of the answers too."""
    from datasets import List, Value

    text, turns = Value("string"), List({"content": Value("string"), "role": Value("string")})
    features = {
        "prompt": text,
        "prompt_id": text,
        "chosen": turns,
        "rejected": turns,
        "messages": turns,
        "score_chosen": Value("float64"),
        "score_rejected": Value("float64"),
    }

    def answered(pair: Pair, answer: str) -> list[dict[str, str]]:
        return [
            {"content": pair.question, "role": "user"},
            {"content": answer, "role": "assistant"},
        ]

    def rows(start: int, count: int) -> Rows:
        return [
            {
                "prompt": pair.question,
                "prompt_id": f"{pair.number:064x}",
                "chosen": answered(pair, pair.chosen),
                "rejected": answered(pair, pair.rejected),
                "messages": answered(pair, pair.chosen),
                "score_chosen": 8.5,
                "score_rejected": 7.5,
            }
            for pair in pairs(start, count)
        ]

    elsewhere = Pair(-1, "What was asked elsewhere?", b"", "", "")
    changes: dict[int, dict[str, Any]] = {
        3: {"rejected": answered(pairs()[3], "")},
        7: {"rejected": answered(pairs()[7], pairs()[7].chosen)},
        11: {"chosen": [{"content": pairs()[11].question, "role": "user"}]},
        15: {"rejected": answered(elsewhere, "Nothing.")},
    }
    train = changed(rows(0, ROWS), changes)
    write_by_datasets(directory / "data/train_prefs-00000-of-00001.parquet", train, features)
    for split in ("train_sft", "test_prefs"):
        more = rows(100, OTHER_ROWS)
        write_by_datasets(directory / f"data/{split}-00000-of-00001.parquet", more, features)


def write_llava_instruct(directory: Path) -> None:
    """Write JSON lines: base64 images, ids of two types, rows without an image, a broken line."""
    lines = []
    for pair in pairs():
        turns = [
            {"from": "human", "value": f"<image>\n{pair.question}"},
            {"from": "gpt", "value": pair.chosen},
        ]
        row: dict[str, Any] = {
            "id": pair.number if pair.number % 3 == 0 else f"{pair.number:012}",
            "image": base64.b64encode(pair.image).decode(),
            "conversations": turns,
        }
        if pair.number % 4 == 1:
            turns[0]["value"] = f"{pair.question}\n<image>"
        if pair.number % 5 == 2:
            row |= {"model": ""}
            turns[0]["value"] = pair.question
            del row["image"]
        lines.append(row)
    lines[3]["image"] = "coco/train2017/000000000003.jpg"
    lines[4]["conversations"][0]["value"] = pairs()[4].question
    lines[8]["conversations"][0]["from"] = "tool"
    lines[13]["conversations"][1]["value"] = ""
    lines[16]["conversations"][0]["value"] = "<image>\n<image>\nWhat differs?"
    written = [json.dumps(line, ensure_ascii=False) for line in lines]
    written[21] = written[21][:-40]
    text = "\n".join(written) + "\n"
    (directory / "llava_instruct.jsonl").write_text(text, "utf-8")


def instruction_of(ordinal: int) -> Good:
    good = pair_of(ordinal)._replace(rejected=None)
    return good._replace(images=()) if ordinal % 5 == 2 else good


def write_trl_images(directory: Path) -> None:
    """Write conversations of which the answers are the end, with none, one or two images."""
    from datasets import Image, List, Value

    turns = List({"role": Value("string"), "content": Value("string")})
    features = {"images": List(Image()), "chosen": turns, "rejected": turns}

    def answered(pair: Pair, answer: str) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": pair.question},
            {"role": "assistant", "content": answer},
        ]

    rows: Rows = [
        {
            "images": [cell(image) for image in several_images(pair.number).images],
            "chosen": answered(pair, pair.chosen),
            "rejected": answered(pair, pair.rejected),
        }
        for pair in pairs()
    ]
    changes: dict[int, dict[str, Any]] = {
        3: {"rejected": answered(pairs()[4], "Nothing.")},
        7: {"chosen": None},
        11: {"images": [cell(pairs()[11].image), None]},
    }
    path = directory / "data/train-00000-of-00001.parquet"
    write_by_datasets(path, changed(rows, changes), features)


def several_images(ordinal: int) -> Good:
    images = tuple(pair.image for pair in pairs(ordinal, ordinal % 3))
    return pair_of(ordinal)._replace(images=images)


def write_sharegpt_dpo(directory: Path) -> None:
    """Write LlamaFactory's layout: the answers are single messages."""
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    schema = pa.schema(
        [
            ("conversations", pa.list_(turn)),
            ("chosen", turn),
            ("rejected", turn),
            ("images", pa.list_(IMAGE)),
        ]
    )
    rows: Rows = [
        {
            "conversations": [{"from": "human", "value": f"<image>{pair.question}"}],
            "chosen": {"from": "gpt", "value": pair.chosen},
            "rejected": {"from": "gpt", "value": pair.rejected},
            "images": [cell(pair.image)],
        }
        for pair in pairs()
    ]
    changes: dict[int, dict[str, Any]] = {
        3: {"chosen": None},
        7: {"rejected": {"from": "human", "value": "Really?"}},
        11: {"conversations": []},
        15: {"conversations": [{"from": "human", "value": "<image><image>Which?"}]},
    }
    path = directory / "data/train-00000-of-00001.parquet"
    write_parquet(path, changed(rows, changes), schema)


def write_saved(directory: Path) -> None:
    """Write by `save_to_disk`, beside what a later `map` left in its cache."""
    from datasets import Image, Value

    text = Value("string")
    rows: Rows = [
        {
            "meta": {"prompt": pair.question, "number": pair.number},
            "picture": cell(pair.image),
            "good": pair.chosen,
            "bad": pair.rejected,
        }
        for pair in pairs()
    ]
    meta = {"prompt": text, "number": Value("int64")}
    changes: dict[int, dict[str, Any]] = {
        3: {"meta": {"prompt": "", "number": 3}},
        7: {"good": None},
        11: {"picture": cell(truncated(pairs()[11].image))},
    }
    features = {"meta": meta, "picture": Image(), "good": text, "bad": text}
    saved = dataset_of(changed(rows, changes), features)
    saved.save_to_disk(directory / "train", num_shards=2)
    first = directory / "train/data-00000-of-00002.arrow"
    (directory / "train/cache-0123456789abcdef.arrow").write_bytes(first.read_bytes())
