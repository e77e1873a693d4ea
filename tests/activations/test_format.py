"""The format against its document, and against pyarrow and numpy alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raysae.activations.format import (
    DTYPE_KEY,
    SAMPLES_SCHEMA,
    TORCH_DTYPES,
    as_numpy,
    as_torch,
    dtype_name,
    row_bytes,
    tokens_schema,
)
from raysae.artifacts.marks import write_mark
from raysae.errors import SettingsError
from tests.activations.caches import DTYPES, bits, token_batch, write_shard
from tests.reference.activations import bfloat16_to_float
from tests.storages import at

DOCUMENT = Path(__file__).parents[2] / "docs" / "activation-cache.md"


def table_under(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading, without backquotes."""
    section = DOCUMENT.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    end = next(
        (i for i, line in enumerate(lines[2:], 2) if line.startswith("|---")), len(lines) + 1
    )
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in lines[2 : end - 1]
    ]


def test_document_names_the_token_columns() -> None:
    rows = table_under("Token file")
    schema = tokens_schema(7, "float32")
    assert [row[0] for row in rows] == schema.names
    for name, type_, _ in rows[:-1]:
        assert str(schema.field(name).type) == type_
    activation = rows[-1][1]
    assert activation == "fixed-size list[d_in] of float32, float16 or uint16"
    assert schema.field("activation").type == pa.list_(pa.float32(), 7)


def test_document_names_the_samples_columns() -> None:
    rows = table_under("Samples file")
    assert [(row[0], row[1]) for row in rows] == [
        (field.name, str(field.type)) for field in SAMPLES_SCHEMA
    ]


def test_document_names_what_a_mark_holds(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, [token_batch(5, 4, "float32")]).shard
    named = [name for row in table_under("The mark") for name in row[0].split(", ")]
    assert sorted(named) == sorted(shard.to_json())
    assert all(f"`{rule}`" in DOCUMENT.read_text() for rule in shard.dropped)


def test_document_names_the_dtypes() -> None:
    pattern = re.compile(r"^\| `(\w+)` \| (\w+) \| (?:IEEE|the bits)", re.MULTILINE)
    written = pattern.findall(DOCUMENT.read_text())
    assert written == [
        (dtype, str(tokens_schema(2, dtype).field("activation").type.value_type))
        for dtype in DTYPES
    ]


def documented_snippet() -> str:
    """Return the document's reading example, as code that collects what it reads."""
    block = DOCUMENT.read_text().split("## With pyarrow and numpy alone\n")[1]
    code = "\n".join(line.removeprefix("    ") for line in block.strip("\n").splitlines())
    return code + "\n            # each batch\n        collected.append(acts_nd)\n"


@pytest.mark.parametrize("dtype", DTYPES)
def test_documented_example_reads_a_cache(tmp_path: Path, dtype: str) -> None:
    batch = token_batch(50, 4, dtype)
    files = write_shard(tmp_path, [batch])
    path = tmp_path / files.shard.data
    collected: list[np.ndarray] = []
    exec(documented_snippet(), {"path": str(path), "collected": collected})
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    position_n = table.column("position").to_numpy()
    read_nd = np.concatenate(collected)
    expected_nd = as_numpy(batch.acts_nd)[position_n]
    if dtype == "bfloat16":
        expected_nd = np.array(
            [[bfloat16_to_float(x) for x in row] for row in expected_nd.tolist()], np.float32
        )
    assert np.array_equal(read_nd, expected_nd, equal_nan=True)


def test_documented_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "activations" / "some-id"
    batches, data_files = [token_batch(n, 4, seed=n) for n in (50, 30)], []
    for number in range(3):
        name = f"shard-{number:05d}"
        files = write_shard(cache, batches, name)
        write_mark(at(cache), name, files.records, {"cached": files.shard.to_json()})
        data_files.append(files.shard.data)
    at(cache).put_json("metadata.json", {"data_files": data_files})
    block = DOCUMENT.read_text().split("## From Python\n")[1].split("\nIn a bucket")[0]
    code = "\n".join(line.removeprefix("    ") for line in block.strip("\n").splitlines())
    names: dict[str, Any] = {"storage": str(tmp_path), "cache_id": "some-id"}
    exec(code, names)
    assert capsys.readouterr().out.count("torch.Size([128, 4])") == 10
    expected = b"".join(bits(batch.acts_nd[3]) for batch in batches)
    assert bits(names["acts_nd"]) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_stands_in_the_field(dtype: str) -> None:
    field = tokens_schema(3, dtype).field("activation")
    assert field.metadata == {DTYPE_KEY: dtype.encode()}
    assert dtype_name(TORCH_DTYPES[dtype]) == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_and_torch_views_share_memory(dtype: str) -> None:
    acts_nd = token_batch(3, 4, dtype).acts_nd
    there_and_back = as_torch(as_numpy(acts_nd), dtype)
    assert there_and_back.data_ptr() == acts_nd.data_ptr()
    assert bits(there_and_back) == bits(acts_nd)


def test_a_row_takes_its_numbers_and_columns() -> None:
    assert row_bytes(4096, "bfloat16") == 2 * 4096 + 4 + 4 + 4 + 1 + 4


def test_unknown_dtype_is_named() -> None:
    with pytest.raises(SettingsError, match="int8"):
        tokens_schema(2, "int8")
