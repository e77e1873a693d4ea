from __future__ import annotations

import pyarrow as pa

from raysae.corpora.learned import Schemas


def test_equal_schemas_are_one_object() -> None:
    schemas = Schemas()
    first = schemas.intern(pa.schema([("a", pa.int64())]))
    assert schemas.intern(pa.schema([("a", pa.int64())])) is first
    assert schemas.read(first.serialize().to_pybytes()) is first
    assert schemas.intern(pa.schema([("a", pa.int32())])) is not first
    assert schemas.intern(first.with_metadata({"x": "y"})) is not first


def test_a_schema_read_is_the_one_that_was_written() -> None:
    schema = pa.schema([pa.field("a", pa.int64(), metadata={"b": "c"})], {"x": "y"})
    schemas = Schemas()
    read = schemas.read(schema.serialize().to_pybytes())
    assert read.equals(schema, check_metadata=True)
    assert schemas.intern(schema) is read
