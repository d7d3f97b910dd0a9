"""URL encoding as FreeSWITCH's event headers use it (`switch_utils.c`, `switch_url_encode`; measured)."""

import re
from urllib.parse import unquote_to_bytes

_ALWAYS = frozenset(b'#%&+:;<=>?@[\\]^{|}"` ') | frozenset(range(0x20)) | frozenset(range(0x7F, 0x100))
_QUOTED = tuple(f"%{byte:02X}".encode() if byte in _ALWAYS else bytes((byte,)) for byte in range(256))
_NEEDS_WORK = re.compile(rb"[^!$'()*,\-./0-9A-Z_a-z~]")
_ALREADY = re.compile(rb"%[0-9A-F]{2}")


def quote(value: bytes) -> bytes:
    """Return `value` as the switch writes it in an event header.

    A `%` that already stands before two upper-case hex digits is kept: the switch does not encode twice, so what it
    sends can't always be told apart from what it was given.
    """
    if not _NEEDS_WORK.search(value):
        return value
    kept = {match.start() for match in _ALREADY.finditer(value)} if b"%" in value else ()
    return b"".join(b"%" if at in kept else _QUOTED[byte] for at, byte in enumerate(value))


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
