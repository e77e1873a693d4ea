"""Conversations in a row's columns, and the answers that end them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple, cast

from raysae.corpora.values import text_of, whole
from raysae.errors import RejectedSampleError
from raysae.sample import Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value")
"""Under which names a message has who speaks, and what is said."""

PLACEHOLDER = "<image>"
"""What stands for an image in the texts of many data sets (LLaVA's notation)."""

_WRITTEN_LIST = re.compile(r"\s*\[\s*\{.*\}\s*\]\s*", re.DOTALL)
_WRITTEN_ROLE = re.compile(rf"""(['"])(role|from)\1\s*:\s*(['"])({"|".join(_ROLES)})\3""")
_WRITTEN_CONTENT = re.compile(r"""(['"])(content|value)\1\s*:""")


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, with `PLACEHOLDER` where its images stand."""

    role: Role
    text: str


class Answer(NamedTuple):
    """An answer, and the conversation before it, where the source repeats that."""

    text: str
    before: tuple[Turn, ...] = ()


def turns_of(value: Any, what: str, reason: str) -> tuple[Turn, ...]:
    """Return a conversation: a text is one turn of the user's, a list has a turn each.

    Args:
        value: A text, a message, or a list of messages: `{role, content}` or `{from, value}`, where
            the content is a text or a list of parts (`{type: text, text}`, `{type: image}`). The
            list may also be a text itself, as JSON or Python write it.
        what: Its column, for the message.
        reason: Why a row without it is rejected.

    Raises:
        RejectedSampleError: `reason`, `wrong-type` or `undecodable-text`.
    """
    value = _messages(value, what)
    if not isinstance(value, list):
        return (Turn("user", text_of(value, what, reason)),)
    if not value:
        raise RejectedSampleError(reason, f"{what} is an empty list")
    return tuple(_turn(message, what) for message in value)


def answer_of(value: Any, what: str) -> Answer:
    """Return an answer: a text, or the last message of a conversation, if it is the assistant's.

    Raises:
        RejectedSampleError: `null-answer`, `empty-answer`, `wrong-type`, `undecodable-text`, or
            `image-placeholders`: an image is part of the answer.
    """
    value = _messages(value, what)
    if value is None:
        raise RejectedSampleError("null-answer", f"{what} is null")
    if not isinstance(value, list):
        return Answer(text_of(value, what, "empty-answer"))
    *before, last = turns_of(value, what, "null-answer")
    if last.role != "assistant":
        detail = f"{what} ends with a message of the {last.role}, not of the assistant"
        raise RejectedSampleError("wrong-type", detail)
    if PLACEHOLDER in last.text:
        raise RejectedSampleError("image-placeholders", f"{what} has an image in the answer")
    return Answer(text_of(last.text, what, "empty-answer"), tuple(before))


def _messages(value: Any, what: str) -> Any:
    """Return a list for whatever is messages: one alone, or a list that was written as text."""
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, str) or not _WRITTEN_LIST.fullmatch(value):
        return value
    if not (_WRITTEN_ROLE.search(value) and _WRITTEN_CONTENT.search(value)):
        return value
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    # Python's parser says MemoryError of what nests too deep.
    with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(value)
    detail = f"{what} is a text like a list of messages, but neither JSON nor Python"
    raise RejectedSampleError("wrong-type", detail)


def _turn(message: Any, what: str) -> Turn:
    message = _object(message)
    if not isinstance(message, Mapping):
        raise RejectedSampleError("wrong-type", f"{what} is a list, but not of messages")
    role = next((message[key] for key in ROLE_KEYS if message.get(key) is not None), None)
    content = next((message[key] for key in CONTENT_KEYS if message.get(key) is not None), None)
    known = _ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise RejectedSampleError("wrong-type", f"{what} has a message with the role {short(role)}")
    if isinstance(content, list):
        content = "\n".join(_part(part, what) for part in content)
    if not isinstance(content, str):
        raise RejectedSampleError("wrong-type", f"{what} has a message without a text")
    return Turn(known, whole(content, what))


def _part(part: Any, what: str) -> str:
    """Return a part of a message as text; files that give all parts all keys leave some null."""
    part = _object(part)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return cast("str", part["text"])
    if kind == "image":
        return PLACEHOLDER
    raise RejectedSampleError("wrong-type", f"{what} has a part of the type {short(kind)}")


def _object(value: Any) -> Any:
    """Return what JSON text says: a program that does not know Arrow's JSON type leaves it so."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
