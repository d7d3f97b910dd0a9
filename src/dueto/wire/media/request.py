"""The stream's URL: what a dialplan writes into it and what a gateway reads out of it."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote

from dueto.errors import LocalProtocolError, Refused

MAX_URL_BYTES = 4096
"The module takes no longer URL (`audio-websocket.md`, section 1)."
_PARTS = {
    "secretary": re.compile(r"[A-Za-z0-9._~-]{1,64}"),
    "uuid": re.compile(r"[A-Za-z0-9._:@-]{1,128}"),
    "caller": re.compile(r"[A-Za-z0-9._+*#@: -]{0,64}"),
}
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
    token: str

    @property
    def channels(self) -> int:
        """1, or 2 for stereo."""
        return _MIXES[self.mix]


class StreamPath:
    """The path of `media.path`, both ways."""

    def __init__(self, template: str) -> None:
        self._template = template
        pattern = ""
        for text, name in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
            pattern += re.escape(text) + (f"(?P<{name}>[^/]*)" if name else "")
        names = re.findall(r"\{(\w+)\}", template)
        if "uuid" not in names or len(set(names)) != len(names) or not set(names) <= set(_PARTS):
            raise LocalProtocolError(f"a stream path needs {{uuid}} and knows {{secretary}}, {{caller}}: {template}")
        self._pattern = re.compile(pattern)

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
        fields = {
            name: values[0] for name, values in parse_qs(query, keep_blank_values=True, max_num_fields=16).items()
        }
        return StreamRequest(
            unique_id=parts["uuid"],
            secretary=parts.get("secretary", ""),
            caller=parts.get("caller", ""),
            rate_hz=_rate(fields.get("rate"), default_rate_hz),
            mix=_mix(fields.get("mix", "mono")),
            token=fields.get("token", ""),
        )

    def build(self, base_url: str, request: StreamRequest) -> str:
        """Return the URL that parses to `request`; `base_url` is `ws://HOST:PORT` without a path."""
        path = self._template.format(
            secretary=quote(request.secretary or "default", safe=""),
            uuid=quote(request.unique_id, safe=""),
            caller=quote(request.caller, safe=""),
        )
        url = f"{base_url.rstrip('/')}{path}?rate={request.rate_hz}&mix={request.mix}&token={request.token}"
        if len(url) > MAX_URL_BYTES:
            raise LocalProtocolError(f"a stream URL of {len(url)} characters; the module takes {MAX_URL_BYTES}")
        return url


def _rate(text: str | None, default_hz: int) -> int:
    if text is None:
        return default_hz
    rate_hz = int(text) if text.isdigit() and len(text) < 6 else 0
    if rate_hz not in _RATES:
        raise Refused("bad_request", f"rate={text!r} is none of {', '.join(map(str, _RATES))}", status=400)
    return rate_hz


def _mix(text: str) -> str:
    if text not in _MIXES:
        raise Refused("bad_request", f"mix={text!r} is none of {', '.join(_MIXES)}", status=400)
    return text
