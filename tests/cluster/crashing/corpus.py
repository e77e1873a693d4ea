"""A corpus that reads Align-Anything's columns and dies where a question says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pyarrow as pa
from PIL.JpegImagePlugin import JpegImageFile

from raysae.corpora.mapped import MappedCorpus
from raysae.sample import Rejection, Sample
from tests.cluster.crashing.deaths import die_if_told


class CrashingCorpus(MappedCorpus):
    """Align-Anything's columns; some rows kill."""

    def read(self, *arguments: Any, **options: Any) -> pa.Table:
        table = super().read(*arguments, **options)
        for question in table.column("question").to_pylist():
            die_if_told("read", question or "")
        return table

    def samples(self, table: pa.Table, first_ordinal: int) -> Iterator[Sample | Rejection]:
        for row in range(table.num_rows):
            die_if_told("samples", table.column("question")[row].as_py() or "")
            yield from super().samples(table.slice(row, 1), first_ordinal + row)


class CrashingImages(MappedCorpus):
    """Align-Anything's columns; a JPEG whose comment says so kills while it is decoded."""

    def samples(self, table: pa.Table, first_ordinal: int) -> Iterator[Sample | Rejection]:
        decode = JpegImageFile.load

        def load(image: JpegImageFile) -> object:
            die_if_told("samples", image.info.get("comment", b"").decode())
            return decode(image)

        with patch.object(JpegImageFile, "load", load):
            yield from super().samples(table, first_ordinal)
