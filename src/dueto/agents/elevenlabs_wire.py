"""ElevenLabs Agents' messages: JSON in, values out, and back. `wss://api.elevenlabs.io/v1/convai/conversation`.

Each message of the server's has a `type`, and what it says under a name of its own. Which ones come is set at the agent
(its *client events*); what is not known here is passed over.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import msgspec

from dueto.errors import RemoteProtocolError


class Metadata(msgspec.Struct, frozen=True):
    """The first message: the formats are the agent's own settings."""

    conversation_id: str
    agent_output_audio_format: str = "pcm_16000"
    user_input_audio_format: str = "pcm_16000"


class Audio(msgspec.Struct, frozen=True):
    audio_base_64: bytes
    event_id: int


class UserTranscript(msgspec.Struct, frozen=True):
    user_transcript: str


class TentativeUserTranscript(msgspec.Struct, frozen=True):
    """What the caller may be saying just now; it changes."""

    user_transcript: str


class AgentResponse(msgspec.Struct, frozen=True):
    """All of what the agent is about to say."""

    agent_response: str


class AgentResponseCorrection(msgspec.Struct, frozen=True):
    """What ElevenLabs thinks was heard of an answer that was interrupted."""

    original_agent_response: str
    corrected_agent_response: str


class Interruption(msgspec.Struct, frozen=True):
    event_id: int
    "Audio with this id, or a lower one, is not to be played any more; some may still be under way."


class Ping(msgspec.Struct, frozen=True):
    event_id: int
    ping_ms: int | None = None
    "The last round trip it measured."


class ClientToolCall(msgspec.Struct, frozen=True):
    tool_name: str
    tool_call_id: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class VadScore(msgspec.Struct, frozen=True):
    vad_score: float
    "How likely it is that the caller speaks, 0 to 1."


class Fault(msgspec.Struct, frozen=True):
    """Why the connection is about to be closed."""

    code: int = 0
    message: str = ""
    error_type: str | None = ""
    reason: str | None = ""


class AgentResponseComplete(msgspec.Struct, frozen=True):
    """No more audio of this answer will come."""


Event = (
    Metadata
    | Audio
    | UserTranscript
    | TentativeUserTranscript
    | AgentResponse
    | AgentResponseCorrection
    | Interruption
    | Ping
    | ClientToolCall
    | VadScore
    | Fault
    | AgentResponseComplete
)


class _Message(msgspec.Struct, frozen=True):
    """Any message: of the optional fields the one that belongs to its `type` is there."""

    type: str
    conversation_initiation_metadata_event: Metadata | None = None
    audio_event: Audio | None = None
    user_transcription_event: UserTranscript | None = None
    tentative_user_transcription_event: TentativeUserTranscript | None = None
    agent_response_event: AgentResponse | None = None
    agent_response_correction_event: AgentResponseCorrection | None = None
    interruption_event: Interruption | None = None
    ping_event: Ping | None = None
    client_tool_call: ClientToolCall | None = None
    vad_score_event: VadScore | None = None
    error_event: Fault | None = None
    message: msgspec.Raw = msgspec.Raw(b'""')
    "Of an `error` that has no `error_event`: seen where the quota was used up."

    FIELDS: ClassVar[Mapping[str, str]] = {
        "conversation_initiation_metadata": "conversation_initiation_metadata_event",
        "audio": "audio_event",
        "user_transcript": "user_transcription_event",
        "tentative_user_transcript": "tentative_user_transcription_event",
        "agent_response": "agent_response_event",
        "agent_response_correction": "agent_response_correction_event",
        "interruption": "interruption_event",
        "ping": "ping_event",
        "client_tool_call": "client_tool_call",
        "vad_score": "vad_score_event",
    }


_decoder: Final = msgspec.json.Decoder(_Message)
_encode: Final = msgspec.json.Encoder().encode


def decode(message: bytes) -> Event | None:
    """Return what the server said; None: something that is of no use here.

    Raises: RemoteProtocolError: it is no JSON, or not what the API promises.
    """
    try:
        found = _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(str(error)) from None
    if found.type in ("error", "client_error"):
        return found.error_event or Fault(message=bytes(found.message).decode("utf-8", "replace").strip('"'))
    if found.type == "agent_response_complete":
        return AgentResponseComplete()
    field = _Message.FIELDS.get(found.type)
    if field is None:
        return None
    event: Event | None = getattr(found, field)
    if event is None:
        raise RemoteProtocolError(f"a message of type {found.type} without its {field}")
    return event


# -- what we say


def user_audio_chunk(audio: bytes) -> bytes:
    """The caller's voice, in the agent's input format. (By hand: it is said fifty times a second.)"""
    return b'{"user_audio_chunk":"' + b64encode(audio) + b'"}'


def pong(event_id: int) -> bytes:
    """The answer to a `Ping`: to be sent at once, for the server measures the round trip with it."""
    return b'{"type":"pong","event_id":%d}' % event_id


def client_tool_result(call_id: str, result: str, *, is_error: bool = False) -> bytes:
    """What a client tool brought."""
    return _encode({"type": "client_tool_result", "tool_call_id": call_id, "result": result, "is_error": is_error})


def user_message(text: str) -> bytes:
    """A text that the agent answers at once, as if the caller had said it."""
    return _encode({"type": "user_message", "text": text})


def contextual_update(text: str) -> bytes:
    """Something the agent is to know, without answering it."""
    return _encode({"type": "contextual_update", "text": text})


def user_activity() -> bytes:
    """The caller is still there: it does not give the conversation up."""
    return b'{"type":"user_activity"}'


def initiation(
    *,
    prompt: str = "",
    first_message: str | None = None,
    language: str = "",
    voice: str = "",
    dynamic_variables: Mapping[str, str | int | float | bool] | None = None,
    user_id: str = "",
) -> bytes:
    """Our first message. Overrides are refused (1008) unless the agent's security settings allow each of them.

    `first_message`: None leaves the agent's own; empty: it waits for the caller to speak.
    """
    agent: dict[str, Any] = {}
    if prompt:
        agent["prompt"] = {"prompt": prompt}
    if first_message is not None:
        agent["first_message"] = first_message
    if language:
        agent["language"] = language
    override: dict[str, Any] = {}
    if agent:
        override["agent"] = agent
    if voice:
        override["tts"] = {"voice_id": voice}
    said: dict[str, Any] = {"type": "conversation_initiation_client_data"}
    if override:
        said["conversation_config_override"] = override
    if dynamic_variables:
        said["dynamic_variables"] = dict(dynamic_variables)
    if user_id:
        said["user_id"] = user_id
    return _encode(said)


# -- formats

Coding = Literal["pcm", "ulaw"]
RATES_HZ: Final = (8000, 16000, 24000, 48000)
"Those of the agent's PCM formats that a call can be changed into; `pcm_22050` and `pcm_44100` are not among them."


def audio_format(name: str) -> tuple[Coding, int]:
    """Return the coding and the rate of `pcm_16000`, `ulaw_8000`, ...

    Raises: RemoteProtocolError: a format that no call can be changed into; the text says what to choose instead.
    """
    coding, _, rate = name.partition("_")
    if rate.isdecimal() and int(rate) in RATES_HZ:
        if coding == "pcm":
            return "pcm", int(rate)
        if coding == "ulaw" and rate == "8000":
            return "ulaw", 8000
    raise RemoteProtocolError(f"the agent's audio format is {name}: choose ulaw_8000 or pcm_16000 in its settings")
