"""The stream's URL: what a dialplan writes into it and what a gateway reads out of it."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote

from dueto.errors import LocalProtocolError, Refused

MAX_URL_BYTES = 4096
"The module takes no longer URL (`audio-websocket.md`, section 1)."
MAX_FIELDS = 16
"A query has three: rate, mix, token."
_PARTS = {
    "secretary": re.compile(r"[A-Za-z0-9._~-]{1,64}"),
    "uuid": re.compile(r"[A-Za-z0-9._:@-]{1,128}"),
    "caller": re.compile(r"[ -.0-~]{0,64}"),  # printable; who calls may write what he likes, and is heard all the same
}
_NOT_OF_A_CALLER = re.compile(r"[^ -.0-~]")
_RATES = (8000, 16000, 24000, 32000, 48000)
_MIXES = {"mono": 1, "mixed": 1, "stereo": 2}


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a stream's URL says."""

    unique_id: str
    "The channel's `Unique-ID`, or what claims to be one: only the token proves it."
    secretary: str
    "The free routing key."
    caller: str
    "The caller's number, as the dialplan knew it."
    rate_hz: int
    mix: str
    "`mono` (what the caller says), `mixed`, or `stereo` (caller left)."
    token: str = field(repr=False)

    @property
    def channels(self) -> int:
        """1, or 2 for stereo."""
        return _MIXES[self.mix]


class StreamPath:
    """The path of `media.path`, both ways."""

    def __init__(self, template: str) -> None:
        """Raises: LocalProtocolError: the template is not one that can be written and read back without doubt."""
        pieces = re.split(r"\{(\w+)\}", template)
        texts, names = pieces[::2], pieces[1::2]
        if "uuid" not in names or len(set(names)) != len(names) or not set(names) <= set(_PARTS):
            raise LocalProtocolError(f"a stream path needs {{uuid}} and knows {{secretary}}, {{caller}}: {template}")
        if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", "".join(texts)) or not texts[0].startswith("/"):
            raise LocalProtocolError(f"a stream path begins with / and holds plain characters only: {template}")
        if any("/" not in text for text in texts[1:-1]):
            raise LocalProtocolError(f"a / must stand between the parts of a stream path: {template}")
        self._template = template
        found = "".join(f"(?P<{name}>[^/]*){re.escape(text)}" for name, text in zip(names, texts[1:], strict=True))
        self._pattern = re.compile(re.escape(texts[0]) + found)

    def parse(self, target: bytes | str, *, default_rate_hz: int) -> StreamRequest:
        """Read a request target, query included.

        Raises: Refused: `unknown_path` (404), or `bad_request` (400) where a part is too long or holds what it may not.
        """
        text = target.decode("ascii", "replace") if isinstance(target, bytes) else target
        if len(text) > MAX_URL_BYTES:
            raise Refused("bad_request", f"a request target of {len(text)} characters", status=414)
        path, _, query = text.partition("?")
        found = self._pattern.fullmatch(path)
        if found is None:
            raise Refused("unknown_path", "no such path", status=404)
        parts = {name: unquote(value, errors="replace") for name, value in found.groupdict().items()}
        for name, value in parts.items():
            if not _PARTS[name].fullmatch(value):
                raise Refused("bad_request", f"{name} in the path is too long or holds what it may not", status=400)
        fields = _fields(query)
        return StreamRequest(
            unique_id=parts["uuid"],
            secretary=parts.get("secretary", ""),
            caller=parts.get("caller", ""),
            rate_hz=_rate(fields.get("rate"), default_rate_hz),
            mix=_mix(fields.get("mix", "mono")),
            token=fields.get("token", ""),
        )

    def build(self, base_url: str, request: StreamRequest) -> str:
        """Return the URL that parses to `request`; `base_url` is `ws://HOST:PORT` without a path.

        Two things it can't say: an empty `secretary` is written `default`, and what a caller's number holds that no
        path may (whoever calls chooses it, and it must not cost the call its stream) is written `_`.
        Raises: LocalProtocolError: another part holds what `parse` would refuse, or the URL is longer than it may be.
        """
        parts = {
            "secretary": request.secretary or "default",
            "uuid": request.unique_id,
            "caller": _NOT_OF_A_CALLER.sub("_", request.caller)[:64],
        }
        for name, value in parts.items():
            if not _PARTS[name].fullmatch(value):
                raise LocalProtocolError(f"{name} is too long for a stream URL, or holds what it may not")
        path = self._template.format(**{name: quote(value, safe="") for name, value in parts.items()})
        query = f"rate={request.rate_hz}&mix={request.mix}&token={quote(request.token, safe='')}"
        url = f"{base_url.rstrip('/')}{path}?{query}"
        if len(url) > MAX_URL_BYTES:
            raise LocalProtocolError(f"a stream URL of {len(url)} characters; the module takes {MAX_URL_BYTES}")
        return url


def _fields(query: str) -> dict[str, str]:
    """Read a query; of a name that occurs twice, the first."""
    try:
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Refused("bad_request", f"a query of more than {MAX_FIELDS} fields", status=400) from None
    return {name: values[0] for name, values in fields.items()}


def _rate(text: str | None, default_hz: int) -> int:
    if text is None:
        return default_hz
    rate_hz = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if rate_hz not in _RATES:
        raise Refused("bad_request", f"rate={text!r} is none of {', '.join(map(str, _RATES))}", status=400)
    return rate_hz


def _mix(text: str) -> str:
    if text not in _MIXES:
        raise Refused("bad_request", f"mix={text!r} is none of {', '.join(_MIXES)}", status=400)
    return text
