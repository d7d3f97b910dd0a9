"""URL encoding as FreeSWITCH's event headers use it (`switch_utils.c`, `switch_url_encode`; measured)."""

import re
from urllib.parse import unquote_to_bytes

_QUOTED = tuple(f"%{byte:02X}".encode() for byte in range(256))
_TO_QUOTE = re.compile(rb"(%(?=[0-9A-F]{2}))|[^!$'()*,\-./0-9A-Z_a-z~]")


def quote(value: bytes) -> bytes:
    """Return `value` as the switch writes it in an event header.

    A `%` that already stands before two upper-case hex digits is kept: the switch does not encode twice, so what it
    sends can't always be told apart from what it was given.
    """
    return _TO_QUOTE.sub(_quoted, value)


def _quoted(found: "re.Match[bytes]") -> bytes:
    return b"%" if found.lastindex else _QUOTED[found[0][0]]


def unquote(value: bytes) -> str:
    """Return an event header's value as text; bytes that are no UTF-8 become U+FFFD."""
    if b"%" in value:
        value = unquote_to_bytes(value)
    return value.decode("utf-8", "replace")


def utf8(text: str) -> bytes:
    """Return `text` as bytes, whatever it holds: bytes that were read in as surrogates go out as they were.

    Where it holds half a surrogate pair that stands for no byte (JSON can write one), every surrogate becomes `?`.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
