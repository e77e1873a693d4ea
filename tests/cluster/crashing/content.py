"""A corpus with rows that kill, and what lets a job's processes die of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deploy.run_local import REPOSITORY
from raysae.corpora import CorpusSettings, open_corpus
from tests.cluster.crashing.deaths import deadly

SITE = Path(__file__).with_name("site")
"""Where `sitecustomize.py` is, which is on the path of the crashing jobs alone."""

PYTHONPATH = os.pathsep.join([str(SITE), str(REPOSITORY)])


def submit_options() -> list[str]:
    """Return the options of `ray job submit` that make rows kill: driver, readers and actors."""
    return ["--runtime-env-json", json.dumps({"env_vars": {"PYTHONPATH": PYTHONPATH}})]


def write_crashing(path: Path, rows: int, deaths: Mapping[int, tuple[str, str]]) -> Path:
    """Write the built-in corpus' first rows, some of them made deadly.

    Args:
        path: The Parquet file.
        rows: How many.
        deaths: Row → the step that it kills (`read`, `samples`, `prepare`) and how, of
            `tests.cluster.crashing.deaths.DEATHS`.
    """
    table = open_corpus(CorpusSettings("builtin", max_rows=rows)).read(0, 0, rows)
    questions = table.column("question").to_pylist()
    for row, (step, death) in deaths.items():
        questions[row] = deadly(step, death)
    at = table.schema.get_field_index("question")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(questions)), path)
    return path
