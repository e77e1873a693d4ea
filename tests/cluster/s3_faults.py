"""Which request to an S3 meets which fault: a seeded plan, pure, without any network."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from urllib.parse import parse_qs, unquote, urlsplit


class Kind(StrEnum):
    """What a request asks for."""

    PUT = auto()
    GET = auto()
    HEAD = auto()
    LIST = auto()
    DELETE = auto()
    CREATE_MULTIPART = auto()
    UPLOAD_PART = auto()
    COMPLETE = auto()
    ABORT = auto()
    OTHER = auto()


WRITES = (Kind.PUT, Kind.CREATE_MULTIPART, Kind.UPLOAD_PART, Kind.COMPLETE)
READS = (Kind.GET, Kind.HEAD)
"""What S3's permissions PutObject and GetObject cover."""


class Fault(StrEnum):
    """What happens to a request.

    Attributes:
        ERROR: It is answered 500 InternalError, and nothing is done.
        SLOW_DOWN: It is answered 503 SlowDown, and nothing is done.
        DENY: It is answered 403 AccessDenied, and nothing is done.
        CONFLICT: It is answered 409, as S3 does to one of two conditional writes of a key at once.
        HIDE: It is done, but a 404 becomes a 403, as for one who may read but not list.
        DROP_BEFORE: The connection ends without an answer, and nothing is done.
        DROP_AFTER: The connection ends without an answer, but all is done.
        CUT_REQUEST: The connection ends after half of the request's body, and nothing is done.
        CUT_ANSWER: The connection ends after half of the answer's body; its length is that of all.
        DELAY: It is done later.
    """

    ERROR = auto()
    SLOW_DOWN = auto()
    DENY = auto()
    CONFLICT = auto()
    HIDE = auto()
    DROP_BEFORE = auto()
    DROP_AFTER = auto()
    CUT_REQUEST = auto()
    CUT_ANSWER = auto()
    DELAY = auto()


@dataclass(frozen=True)
class Rule:
    """Which requests meet a fault.

    Attributes:
        fault: What happens to them.
        kinds: Of which kinds they are; of any, if none is named.
        path: Pattern that is searched for in `/bucket/key`.
        nth: Only the n-th of the requests that match so far, counted from 1; all, if it is None.
        probability: How likely it happens to each of those.
        delay_s: How much later, for `Fault.DELAY`.
    """

    fault: Fault
    kinds: Sequence[Kind] = ()
    path: str = ""
    nth: int | None = None
    probability: float = 1.0
    delay_s: float = 0.5

    def matches(self, kind: Kind, path: str) -> bool:
        """Whether a request is one that this rule counts."""
        return (not self.kinds or kind in self.kinds) and bool(re.search(self.path, path))


class Plan:
    """Decides over requests, one after the other: same rules, seed and order, same decisions.

    Every rule counts and draws for itself, so that what one does leaves the others as they are.

    Args:
        rules: The first that applies decides.
        seed: Of the draws.
    """

    def __init__(self, rules: Sequence[Rule] = (), seed: int = 0) -> None:
        self._rules = tuple(rules)
        self._draws = [random.Random(f"{seed}-{index}") for index in range(len(rules))]
        self._matched = [0] * len(rules)

    def choose(self, kind: Kind, path: str) -> Rule | None:
        """Return the rule that applies to the next request, if any does."""
        applying = [
            rule
            for index, rule in enumerate(self._rules)
            if rule.matches(kind, path) and self._applies(index)
        ]
        return applying[0] if applying else None

    def _applies(self, index: int) -> bool:
        rule = self._rules[index]
        self._matched[index] += 1
        drawn = self._draws[index].random() < rule.probability
        return drawn and rule.nth in {None, self._matched[index]}


def kind_of(method: str, target: str) -> Kind:
    """Tell what a request with a path-style URL asks for.

    Args:
        method: Of HTTP.
        target: Path and query, as in the request's first line.
    """
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    if not object_path(target).strip("/").partition("/")[2]:
        return _kind_of_bucket(method, query)
    if method == "POST":
        if "uploads" in query:
            return Kind.CREATE_MULTIPART
        return Kind.COMPLETE if "uploadId" in query else Kind.OTHER
    if "uploadId" in query:
        parts = {"PUT": Kind.UPLOAD_PART, "DELETE": Kind.ABORT, "GET": Kind.LIST}
        return parts.get(method, Kind.OTHER)
    whole = {"PUT": Kind.PUT, "GET": Kind.GET, "HEAD": Kind.HEAD, "DELETE": Kind.DELETE}
    return whole.get(method, Kind.OTHER)


def object_path(target: str) -> str:
    """Return `/bucket/key` of a request's target, decoded."""
    return unquote(urlsplit(target).path)


def _kind_of_bucket(method: str, query: dict[str, list[str]]) -> Kind:
    if method == "HEAD":
        return Kind.HEAD
    if method == "POST" and "delete" in query:
        return Kind.DELETE
    listing = {"list-type", "prefix", "uploads", "versions"}
    if method == "GET" and (not query or listing & query.keys()):
        return Kind.LIST
    return Kind.OTHER
