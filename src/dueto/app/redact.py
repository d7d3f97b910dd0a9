"""What may not stand in a log line, and how it is taken out."""

import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

MASK = "***"
MAX_CHARACTERS = 2000
"A longer text is cut; a traceback may have ten times as much."
MAX_ITEMS = 50
MAX_DEPTH = 4

_SECRET_KEYS = re.compile(
    r"(^|_)(token|secret|password|passwd|api_?key|authorization|cookie|credentials?)$", re.IGNORECASE
)
_DIGIT_KEYS = re.compile(r"(^|_)(digits?|dtmf|pin)$", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(
    r"(\b(?:token|secret|password|api_?key)\b[\"']?\s*[=:]\s*[\"']?)[^\s&\"'<>,;]+"
    r"|(\bauthorization:\s*\w+\s+|^auth )\S+",
    re.IGNORECASE,
)
# Controls (C0, DEL, C1), line separators, marks that turn the direction of the text around, halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNPRINTABLE_BUT_NEWLINE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_HARMLESS = re.compile(r"[A-Za-z0-9_.-]*").fullmatch
"Most of what is logged. A secret in a text needs a `=`, a `:` or a space before it."
SHORT = 200
"Texts up to that length are mostly causes, states and ids, which come again and again."


def redact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` fit for a log: no secrets, no digits that a caller typed, nothing that could fake a line."""
    cleaned: dict[str, Any] = {}
    for key, value in fields.items():
        name, kind = _known(key)
        if kind is not _PLAIN:
            cleaned[name] = _value(key, value, MAX_DEPTH)
        elif type(value) in _AS_THEY_ARE:
            cleaned[name] = value
        elif type(value) is str and len(value) <= SHORT and key != "exception":
            cleaned[name] = _short(value)
        else:
            cleaned[name] = _value(key, value, MAX_DEPTH)
    return cleaned


class _Kind(Enum):
    PLAIN = 0
    SECRET = 1
    DIGITS = 2


_PLAIN = _Kind.PLAIN
"Looked up once: a member of an Enum costs as much as a call."
_AS_THEY_ARE = frozenset({int, float, bool, type(None)})


@lru_cache(maxsize=1024)
def _kind(key: str) -> _Kind:
    """What a field's name says of its value. The names are few and come again with every line."""
    if _SECRET_KEYS.search(key):
        return _Kind.SECRET
    return _Kind.DIGITS if _DIGIT_KEYS.search(key) else _Kind.PLAIN


def clean(text: str, *, newlines: bool = False) -> str:
    """Return `text` with secrets masked and unprintable characters written out (`\\x1b`, `\\ud800`)."""
    if len(text) <= SHORT and not newlines:
        return _short(text)
    limit = MAX_CHARACTERS * (10 if newlines else 1)
    text = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    return _masked(text, _UNPRINTABLE_BUT_NEWLINE if newlines else _UNPRINTABLE)


@lru_cache(maxsize=1024)
def _short(text: str) -> str:
    return text if _HARMLESS(text) else _masked(text, _UNPRINTABLE)


def _masked(text: str, unprintable: re.Pattern[str]) -> str:
    text = _SECRET_IN_TEXT.sub(lambda found: (found[1] or found[2]) + MASK, text)
    return unprintable.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@lru_cache(maxsize=1024)
def _known(key: str) -> tuple[str, _Kind]:
    """How a field's name stands in a line, and what it says of the value."""
    return clean(key), _kind(key)


def _value(key: str, value: Any, depth: int) -> Any:
    kind = _kind(key)
    if kind is _Kind.SECRET:
        return MASK if value not in (None, "", False) else value
    if kind is _Kind.DIGITS:
        return "*" * len(str(value)) if value is not None else None
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return clean(value, newlines=key == "exception")
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case BaseException():
            return clean(f"{type(value).__name__}: {value}" if str(value) else type(value).__name__)
        case _ if depth == 0:
            return "..."
        case Mapping():
            items = list(value.items())[:MAX_ITEMS]
            return {clean(str(name)): _value(str(name), inner, depth - 1) for name, inner in items}
        case list() | tuple() | set() | frozenset():
            return [_value("", inner, depth - 1) for inner in list(value)[:MAX_ITEMS]]
    return clean(str(value))
