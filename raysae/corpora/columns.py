"""Which columns of a corpus hold what: the settings of `generic`, and facts of known data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

import pyarrow as pa
import pyarrow.types as pt

from raysae.corpora.conform import BROKEN, is_json_text
from raysae.corpora.conversations import CONTENT_KEYS, ROLE_KEYS
from raysae.errors import DataError, SettingsError


@dataclass(frozen=True)
class ColumnMap:
    """Names of a corpus' columns; empty where it has none (content: part of every id).

    A name may reach into structs with dots: `meta.prompt`. A text may be a string or a
    conversation: a list of messages, `{role, content}` or `{from, value}`; an answer also a single
    message. An image may be bytes, `{bytes, path}`, base64 text, or a list of such; paths and URLs
    are not followed.

    Attributes:
        question: What is asked: a text or a conversation. Empty: the answer's conversation up to
            its last message. If there are both, rows in which they differ are rejected.
        image: The images. Empty: the corpus is text alone.
        chosen: The better answer: a text, or a conversation whose last message it is. Empty: the
            last message of `question`, if that ends with the assistant's, or `response_1` and the
            others.
        rejected: The worse answer, likewise.
        response_1: One of two answers of which `preference` tells which is better.
        response_2: The other one.
        image_1: One of two images that were made for the question; the better one is shown.
        image_2: The other one.
        preference: 1 or 2: the better answer or image; rows with anything else are rejected.
        id: The source's own ids of the rows, texts or integers; of rows with the same one only the
            first is ever selected. Empty, and where it is null: ids that follow from the content.
        without_image: Whether a row without an image is used, as text alone, or rejected.
    """

    question: str = ""
    image: str = ""
    chosen: str = ""
    rejected: str = ""
    response_1: str = ""
    response_2: str = ""
    image_1: str = ""
    image_2: str = ""
    preference: str = ""
    id: str = ""
    without_image: bool = False

    @property
    def roles(self) -> dict[str, str]:
        """The columns that are named: role → name."""
        names = {role: getattr(self, role) for role in _ROLES}
        return {role: name for role, name in names.items() if name}

    @property
    def names(self) -> list[str]:
        """The columns' names, each once."""
        return list(dict.fromkeys(self.roles.values()))

    @property
    def answers(self) -> list[str]:
        """The columns of the answers: the better one first, or the two among which to choose."""
        names = (self.response_1, self.response_2, self.chosen, self.rejected)
        return [name for name in names if name]

    def check(self, setting: str) -> None:
        """Refuse a map that makes no samples.

        Args:
            setting: The field of a job's settings that holds it, for messages.

        Raises:
            SettingsError: There is neither question nor answer, or half of a pair.
        """
        answers, images = (self.response_1, self.response_2), (self.image_1, self.image_2)
        if not (self.question or self.chosen):
            problem = "names no question; give the column of the question, or of conversations"
        elif any(answers) != all(answers) or any(images) != all(images):
            problem = "names one of two answers or images; give both"
        elif bool(self.preference) != any((*answers, *images)):
            problem = "needs preference where there are response_1 or image_1, and nowhere else"
        elif any(answers) and (self.chosen or self.rejected):
            problem = "names chosen or rejected beside response_1; give one kind of answers"
        elif self.image and any(images):
            problem = "names image beside image_1; give one kind of images"
        elif self.rejected and not self.chosen:
            problem = "names rejected without chosen; give both"
        else:
            return
        raise SettingsError(f"{setting}: {problem}.")


_NAMED = 40
"""Columns that a message lists, at most."""

_ROLES = (
    "question",
    "image",
    "chosen",
    "rejected",
    "response_1",
    "response_2",
    "image_1",
    "image_2",
    "preference",
    "id",
)


def top_level(path: str, names: set[str]) -> str:
    """Return the column that a name of the map lies in."""
    return path if path in names else path.split(".", maxsplit=1)[0]


def check_columns(schema: pa.Schema, map_: ColumnMap, file: str, advice: str) -> None:
    """Refuse columns that are missing or can never hold what they are named for.

    Args:
        schema: A file's.
        map_: Which columns hold what.
        file: The file's name, for messages.
        advice: The way out, for messages.

    Raises:
        DataError: Some are; the message names the file and all of them.
    """
    problems = [
        problem
        for role, path in map_.roles.items()
        if (problem := _problem(schema, role, path)) is not None
    ]
    if problems:
        paths = _paths(schema)
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        there = ", ".join(paths[:_NAMED]) or "none"
        raise DataError(f"{file}: {'; '.join(problems)}; its columns are {there}{more}; {advice}.")


def _problem(schema: pa.Schema, role: str, path: str) -> str | None:
    """Say what is wrong with a column of the map; None if nothing is."""
    type_ = _type_at(schema, path)
    if type_ is None:
        near = get_close_matches(path, _paths(schema), n=1)
        meant = f" (is {near[0]!r} meant?)" if near else ""
        return f"there is no column {path!r} for the {role}{meant}"
    if not _fits(role, type_):
        problem = f"the column {path!r} has the type {type_}, which cannot hold the {role}"
        if _FITTING[role] is _is_conversation and "struct<" in str(type_):
            problem += " (a message has a role or from, and a content or value)"
        return problem
    return None


def _paths(schema: pa.Schema) -> list[str]:
    """Return all that a map can name: columns, and fields of structs by their paths."""

    def below(name: str, type_: pa.DataType) -> Iterator[str]:
        yield name
        if pt.is_struct(type_):
            for field in type_:
                yield from below(f"{name}.{field.name}", field.type)

    columns = (field for field in schema if field.name != BROKEN)
    return [path for field in columns for path in below(field.name, field.type)]


def _type_at(schema: pa.Schema, path: str) -> pa.DataType | None:
    """Return the type of a column or of a part of it; None if it is not there."""
    name = top_level(path, set(schema.names))
    if name not in schema.names:
        return None
    field = schema.field(schema.names.index(name))  # of two the first: `unify` refuses them
    type_: pa.DataType = pa.null() if is_json_text(field) else field.type
    for part in [] if name == path else path.split(".")[1:]:
        if _is_any(type_):
            return type_
        place = type_.get_field_index(part) if pt.is_struct(type_) else -1
        if place < 0:
            return None
        type_ = type_.field(place).type
    return type_


def _is_text(type_: pa.DataType) -> bool:
    return any((pt.is_string(type_), pt.is_large_string(type_), pt.is_string_view(type_)))


def _is_list(type_: pa.DataType) -> bool:
    return any((pt.is_list(type_), pt.is_large_list(type_), pt.is_fixed_size_list(type_)))


def _is_any(type_: pa.DataType) -> bool:
    """Whether only the values tell what it is: there are none, or they are JSON."""
    return pt.is_null(type_) or isinstance(type_, pa.JsonType)


def _is_conversation(type_: pa.DataType) -> bool:
    """Whether it is text, messages, or one message."""
    if _is_list(type_):
        return _is_message(type_.value_type) or _is_any(type_.value_type)
    return _is_text(type_) or _is_message(type_)


def _is_message(type_: pa.DataType) -> bool:
    """Whether it is a struct with a role and a content; a JSON value may be one."""
    if not pt.is_struct(type_):
        return False
    names = {field.name for field in type_}
    return all(names.intersection(keys) for keys in (ROLE_KEYS, CONTENT_KEYS))


def _is_image(type_: pa.DataType) -> bool:
    """Whether it is bytes, also as a list of numbers, text, a struct of these, or a list of it."""
    if _is_list(type_):
        return pt.is_integer(type_.value_type) or _is_image(type_.value_type)
    if pt.is_struct(type_):
        place = type_.get_field_index("bytes")
        return place >= 0 and _is_image(type_.field(place).type)
    is_bytes = pt.is_binary(type_) or pt.is_large_binary(type_) or pt.is_binary_view(type_)
    return is_bytes or _is_text(type_) or _is_any(type_)


def _is_preference(type_: pa.DataType) -> bool:
    return pt.is_integer(type_) or pt.is_floating(type_) or _is_text(type_)


def _is_id(type_: pa.DataType) -> bool:
    return pt.is_integer(type_) or _is_text(type_)


_FITTING: Mapping[str, Callable[[pa.DataType], bool]] = MappingProxyType(
    {
        "question": _is_conversation,
        "image": _is_image,
        "chosen": _is_conversation,
        "rejected": _is_conversation,
        "response_1": _is_conversation,
        "response_2": _is_conversation,
        "image_1": _is_image,
        "image_2": _is_image,
        "preference": _is_preference,
        "id": _is_id,
    }
)


def _fits(role: str, type_: pa.DataType) -> bool:
    """Whether a column of that type may hold the role; one without any value may hold any."""
    if pt.is_dictionary(type_):
        type_ = type_.value_type
    return _is_any(type_) or _FITTING[role](type_)
