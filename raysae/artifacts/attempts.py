"""Attempt marks: how often a shard was begun, so that one that kills its worker is found out.

A worker says that it begins a shard before it touches a row, and takes that back when the shard is
done. What stays behind are the attempts that did not end: a lost node, a killed job, or a row that
crashes whoever decodes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from raysae.errors import StorageError
from raysae.storage import Directory

ATTEMPTS = "attempts"
"""Directory of the marks, in the artifact's own."""

TRUSTED_ATTEMPTS = 2
"""After so many attempts that did not end, a shard's rows are tried one by one."""


@dataclass(frozen=True)
class Attempts:
    """The attempts at the shards of one artifact by one kind of process.

    Attributes:
        directory: Where the marks are.
        role: What the processes do: `read`, `work`.
        lasting: Whether a shard that had to be done with care has to be each time: for work that is
            done again and again.
    """

    directory: Directory
    role: str
    lasting: bool = False

    @contextmanager
    def attempt(self, shard: str) -> Iterator[bool]:
        """Count an attempt for as long as the block runs, and give whether to be careful.

        An exception ends an attempt as success does: only a process that dies leaves its mark. A
        success clears the marks of attempts before it too, unless it took care that lasts.
        """
        number = self._begin(shard)
        try:
            yield number > TRUSTED_ATTEMPTS
        except BaseException:
            self._end(shard, [number])
            raise
        lasts = self.lasting and number > TRUSTED_ATTEMPTS
        self._end(shard, [number] if lasts else range(1, number + 1))

    def _end(self, shard: str, numbers: Iterable[int]) -> None:
        # A mark too many makes a later attempt careful, which costs time alone.
        with suppress(StorageError):
            for number in numbers:
                self.directory.delete(self._name(shard, number))

    def _begin(self, shard: str) -> int:
        token = uuid.uuid4().hex.encode()
        number = 1
        while not self.directory.create(self._name(shard, number), token):
            number += 1
        return number

    def _name(self, shard: str, number: int) -> str:
        return f"{shard}.{self.role}-{number}"
