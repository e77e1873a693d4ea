"""The Arrow types of JSON values, over all rows of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from raysae.corpora.conform import json_text

MAX_DEPTH = 32
"""Columns that nest deeper are JSON text; Arrow's own limit is 64."""

MAX_KEYS = 1000
"""Objects with more different keys are no records but tables of their own, kept as JSON text."""

MAX_COLUMNS = 10_000
"""A file whose rows have more different keys is refused."""

_INT64 = range(-(2**63), 2**63)
_FLOAT_EXACT = range(-(2**53), 2**53 + 1)


class _Long(int):
    """Stands for whole numbers of 64 bits that not every float holds exactly."""


_SCALARS = {
    frozenset(): pa.null(),
    frozenset({str}): pa.string(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({_Long}): pa.int64(),
    frozenset({int, _Long}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
}


class _MixedError(Exception):
    """Values have types that no one Arrow type holds."""


class _Values:
    """What the values at one place of a column are: their kinds, and what is inside of them."""

    __slots__ = ("fields", "item", "kinds")

    def __init__(self) -> None:
        self.kinds: set[type] = set()
        self.item: _Values | None = None
        self.fields: dict[str, _Values] = {}

    def add(self, value: Any, depth: int = 0) -> None:
        """Look at a value, so many lists and objects inside of the column's own.

        Raises:
            _MixedError: No type will do, whatever else comes.
        """
        kind = type(value)
        if kind is dict:
            self._add_fields(value, depth + 1)
        elif kind is list:
            self.item = item = self.item or _Values()
            for element in value:
                item.add(element, depth + 1)
        elif kind is int and value not in _FLOAT_EXACT:
            kind = _Long
            if value not in _INT64:
                raise _MixedError
        if depth > MAX_DEPTH:
            raise _MixedError
        self.kinds.add(kind)

    def _add_fields(self, value: dict[str, Any], depth: int) -> None:
        fields = self.fields
        for name, element in value.items():
            if name not in fields:
                if len(fields) == MAX_KEYS:
                    raise _MixedError
                fields[name] = _Values()
            fields[name].add(element, depth)

    def type(self) -> pa.DataType:
        """Return the type that holds all values.

        Raises:
            _MixedError: There is none, or Parquet could not hold it.
        """
        kinds = frozenset(self.kinds - {type(None)})
        if kinds == {list} and self.item:
            return pa.list_(self.item.type())
        if kinds == {dict} and self.fields:
            return pa.struct([(name, values.type()) for name, values in self.fields.items()])
        if kinds not in _SCALARS:
            raise _MixedError
        return _SCALARS[kinds]


class JsonColumns:
    """The columns of rows that are added one by one, in the order in which they first occur.

    Whole numbers among fractions become fractions if all of them stay what they are (up to 2^53).
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Values | None] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Widen the columns' types by a row's values.

        Raises:
            pa.ArrowInvalid: There are too many columns.
        """
        columns = self._columns
        for name, value in row.items():
            if name not in columns:
                columns[name] = _Values()
            known = columns[name]
            if known is not None:
                try:
                    known.add(value)
                except _MixedError:
                    columns[name] = None
        if len(columns) > MAX_COLUMNS:
            raise pa.ArrowInvalid(f"its rows have more than {MAX_COLUMNS} different keys")

    def schema(self) -> pa.Schema:
        """Return the columns; one of mixed types, or of objects without any key, is JSON text."""
        return pa.schema([_field(name, values) for name, values in self._columns.items()])


def _field(name: str, values: _Values | None) -> pa.Field:
    try:
        return json_text(name) if values is None else pa.field(name, values.type())
    except _MixedError:
        return json_text(name)
