"""A file's rows brought to the columns and types of the whole corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from raysae.corpora.formats import format_of
from raysae.corpora.learned import FileSchema
from raysae.errors import DataError

JSON_TEXT = {b"raysae": b"json"}
"""Metadata of a text column whose values are JSON: the rows' own values were of several types."""

BROKEN = "raysae: broken line"
"""Column that tells, for a line that holds no row, what is wrong with it; null elsewhere."""


class UnfitError(pa.ArrowInvalid):
    """A value does not fit the type that its column has in all files together."""

    def __init__(self, field: pa.Field, error: Exception) -> None:
        super().__init__(
            f"the column {field.name!r} has a value that does not fit its type in all files, "
            f"{field.type}: {error}"
        )


def is_json_text(field: pa.Field) -> bool:
    """Whether a column holds its rows' values as JSON."""
    return (field.metadata or {}).get(b"raysae") == b"json"


def json_text(name: str) -> pa.Field:
    """Return a column that holds its rows' values as JSON."""
    return pa.field(name, pa.string(), metadata=JSON_TEXT)


def plain(schema: pa.Schema) -> pa.Schema:
    """Replace view types, of which Arrow cannot take single rows.

    Raises:
        UnicodeDecodeError: A column's name is damaged.
    """
    return pa.schema(
        [
            pa.field(field.name, _plain_type(field.type), field.nullable, field.metadata)
            for field in schema
        ],
        metadata=schema.metadata,
    )


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pt.is_struct(type_):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in type_])
    if pt.is_list(type_) or pt.is_large_list(type_):
        item = type_.value_field.with_type(_plain_type(type_.value_type))
        return pa.list_(item) if pt.is_list(type_) else pa.large_list(item)
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return views.get(type_, type_)


def with_rows(schemas: Sequence[FileSchema]) -> list[FileSchema]:
    """Return those of files that hold a good line; of the others all lines are rejected.

    Raises:
        DataError: There is no such file.
    """
    good = [entry for entry in schemas if entry.schema.names != [BROKEN]]
    if not good:
        raise DataError(
            f"{schemas[0].uri}: no line of it is a JSON object; write one object a line, in UTF-8 "
            "(what is one long array, jq -c '.[]' writes so)."
        )
    return good


def unify(schemas: Sequence[FileSchema]) -> pa.Schema:
    """Return one schema for all files: columns that a file lacks are null there, numbers widen.

    Columns of JSON lines that have no type in common are kept as JSON text.

    Raises:
        DataError: Two files' columns of one name cannot be brought together, or a file has two.
    """
    fields: dict[str, pa.Field] = {}
    for uri, schema in schemas:
        if len(set(schema.names)) < len(schema.names):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise DataError(f"{uri} has several columns {twice!r}; write it with one of each name.")
        for field in schema:
            known = fields.get(field.name)
            fields[field.name] = field if known is None else _common(known, field, uri)
    everywhere = set.intersection(*(set(schema.names) for _, schema in schemas))
    return pa.schema(
        [
            field if name in everywhere else field.with_nullable(True)
            for name, field in fields.items()
        ],
        metadata=schemas[0].schema.metadata,
    )


def _common(one: pa.Field, other: pa.Field, uri: str) -> pa.Field:
    """Return the column that holds what both hold; the other is of the file `uri`."""
    if one.equals(other, check_metadata=True):
        return one
    if is_json_text(one) or is_json_text(other):
        return json_text(one.name)
    both = [pa.schema([one]), pa.schema([other])]
    try:
        common = pa.unify_schemas(both, promote_options="permissive").field(0)
    except pa.ArrowException:
        common = None
    if common is not None and all(_survives(field.type, common.type) for field in (one, other)):
        return common
    if format_of(uri) == "JSON lines":
        return json_text(one.name)
    raise DataError(
        f"{uri} has a column of another type than the files before it ({one.name!r}: {other.type}, "
        f"there {one.type}); write the files with one schema."
    )


def _survives(type_: pa.DataType, wider: pa.DataType) -> bool:
    """Whether values of a type stay what they are in a wider one.

    Integers among floating-point numbers do up to 2⁵³, which is what pandas makes of integers with
    nulls; a larger one is an error when it is read.
    """
    if type_ == wider or pt.is_null(type_):
        return True
    if pt.is_dictionary(type_) or pt.is_dictionary(wider):
        inner = [one.value_type if pt.is_dictionary(one) else one for one in (type_, wider)]
        return _survives(*inner)
    if pt.is_struct(type_) and pt.is_struct(wider):
        return all(_survives(field.type, wider.field(field.name).type) for field in type_)
    if hasattr(type_, "value_type") and hasattr(wider, "value_type"):
        return _survives(type_.value_type, wider.value_type)
    texts = {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}
    if {type_, wider} <= texts:
        return True
    numbers = [pt.is_integer(one) or pt.is_floating(one) for one in (type_, wider)]
    return all(numbers) and bool(np.can_cast(type_.to_pandas_dtype(), wider.to_pandas_dtype()))


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give a file's rows the corpus' columns and types; what the file lacks is null.

    Raises:
        UnfitError: A value does not fit the type that other files gave its column.
    """
    columns = [
        _cast(batch.column(field.name), field)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    try:
        return pc.cast(column, field.type)
    except pa.ArrowInvalid as error:
        raise UnfitError(field, error) from error
