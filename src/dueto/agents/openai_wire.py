"""OpenAI Realtime's messages, as far as a telephone call needs them: the GA protocol, `session.type` "realtime".

Field names and meanings: the vendor's own client, `openai.types.realtime` (3.57). What it sends and we don't need is
passed over; what we know and can't read raises.
"""

import re
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from dueto.errors import Fault, RemoteProtocolError

APPEND: Final = b'{"type":"input_audio_buffer.append","audio":"'
END: Final = b'"}'


def append(audio: bytes) -> bytes:
    """Return `input_audio_buffer.append`: built from pieces, for it goes out fifty times a second."""
    return APPEND + b2a_base64(audio, newline=False) + END


_encode = msgspec.json.Encoder().encode


def command(type: str, **fields: Any) -> bytes:
    """Return a client event."""
    return _encode({"type": type, **fields})


def message(role: str, text: str) -> bytes:
    """Return the event that adds a line of text to the conversation: role `user`, `assistant` or `system`."""
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    return command("conversation.item.create", item={"type": "message", "role": role, "content": [part]})


# -- what the server says


class Event(msgspec.Struct, tag_field="type"):
    """A server event. `type` tells which."""


class Limit(msgspec.Struct):
    """What is read of a session."""

    expires_at: int | None = None
    "Seconds since 1970."


class SessionCreated(Event, tag="session.created"):
    session: Limit


class SessionUpdated(Event, tag="session.updated"):
    pass


class ErrorDetails(msgspec.Struct):
    """Why something was refused."""

    message: str = ""
    type: str = ""
    code: str | None = None
    event_id: str | None = None
    "That of our event it answers."
    param: str | None = None


class Error(Event, tag="error"):
    error: ErrorDetails


class SpeechStarted(Event, tag="input_audio_buffer.speech_started"):
    audio_start_ms: int = 0


class SpeechStopped(Event, tag="input_audio_buffer.speech_stopped"):
    audio_end_ms: int = 0


class Item(msgspec.Struct):
    """Part of the conversation: a message, or a function call."""

    id: str = ""
    type: str = ""
    role: str = ""
    name: str = ""
    call_id: str = ""
    arguments: str = ""
    status: str = ""


class ItemAdded(Event, tag="conversation.item.added"):
    item: Item


class CallerTranscribed(Event, tag="conversation.item.input_audio_transcription.completed"):
    item_id: str
    transcript: str


class Tokens(msgspec.Struct):
    """How the tokens of one direction divide."""

    audio_tokens: int | None = None
    text_tokens: int | None = None
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """What a response cost."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: Tokens | None = None
    output_token_details: Tokens | None = None

    def amounts(self) -> dict[str, int]:
        """Return it by name; without what is nought."""
        found = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        for direction, details in (("input", self.input_token_details), ("output", self.output_token_details)):
            if details is not None:
                found[f"{direction}_audio_tokens"] = details.audio_tokens
                found[f"{direction}_text_tokens"] = details.text_tokens
                found[f"{direction}_cached_tokens"] = details.cached_tokens
        return {name: amount for name, amount in found.items() if amount}


class StatusDetails(msgspec.Struct):
    error: ErrorDetails | None = None
    reason: str | None = None


class Response(msgspec.Struct):
    """An answer of the model."""

    id: str = ""
    status: str = ""
    status_details: StatusDetails | None = None
    usage: Usage | None = None


class ResponseCreated(Event, tag="response.created"):
    response: Response


class ResponseDone(Event, tag="response.done"):
    response: Response


class AudioDelta(Event, tag="response.output_audio.delta"):
    response_id: str
    item_id: str
    delta: bytes
    content_index: int = 0


class AudioDone(Event, tag="response.output_audio.done"):
    response_id: str
    item_id: str


class AgentTranscribed(Event, tag="response.output_audio_transcript.done"):
    response_id: str
    item_id: str
    transcript: str


class OutputItemDone(Event, tag="response.output_item.done"):
    response_id: str
    item: Item


Known = (
    AudioDelta
    | AudioDone
    | AgentTranscribed
    | CallerTranscribed
    | Error
    | ItemAdded
    | OutputItemDone
    | ResponseCreated
    | ResponseDone
    | SessionCreated
    | SessionUpdated
    | SpeechStarted
    | SpeechStopped
)


class _Any(msgspec.Struct):
    type: str


_decode = msgspec.json.Decoder(Known).decode
_decode_any = msgspec.json.Decoder(_Any).decode
_TAGS: Final = frozenset(str(kind.__struct_config__.tag) for kind in Known.__args__)


def read(data: bytes) -> Known | None:
    """Return the event in a message; None: one that we have no use for.

    Raises: RemoteProtocolError: it is no event, or one that lacks what it must have.
    """
    try:
        event: Known = _decode(data)
        return event
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        type_ = _decode_any(data).type
    except (msgspec.MsgspecError, RecursionError):
        raise RemoteProtocolError("no JSON event") from None
    if type_ in _TAGS:
        raise RemoteProtocolError(f"a {type_} that can't be read")
    return None


_FAULTS: Final[Mapping[str, Fault]] = {
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "invalid_authentication": "auth",
    "missing_api_key": "auth",
    "insufficient_quota": "quota",
    "rate_limit_exceeded": "quota",
    "rate_limit_error": "quota",
    "billing_hard_limit_reached": "quota",
    "model_not_found": "model",
    "invalid_model": "model",
    "session_expired": "limit",
}


def fault_of(*words: str | None) -> Fault | None:
    """Return what an error's code, its type, or the reason of a CLOSE means; None: nothing in particular."""
    for word in words:
        for part in re.findall("[a-z_]+", word or ""):
            if (fault := _FAULTS.get(part)) is not None:
                return fault
        if word and "maximum duration" in word:  # "Your session hit the maximum duration of 60 minutes."
            return "limit"
    return None


def realtime_url(base_url: str, model: str, *, azure: bool = False, api_version: str = "") -> str:
    """Return the WebSocket's address: `https://api.openai.com/v1` and a model become `wss://.../realtime?model=...`.

    Azure: `base_url` is the resource's endpoint, `model` the deployment; with `api_version` its older form of address.
    """
    parts = urlsplit(base_url)
    scheme = {"https": "wss", "http": "ws"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/")
    query = {"model": model}
    if azure:
        path += "/openai/realtime" if api_version else "/openai/v1/realtime"
        query = {"api-version": api_version, "deployment": model} if api_version else query
    elif not path.endswith("/realtime"):
        path += "/realtime"
    joined = "&".join(part for part in (parts.query, urlencode(query)) if part)
    return urlunsplit((scheme, parts.netloc, path, joined, ""))
