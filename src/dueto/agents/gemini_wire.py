"""Gemini Live's messages: JSON in, values out, and back. `BidiGenerateContent` of the Gemini API, v1beta.

The server writes its JSON into binary messages. One message may hold several things at once (audio and its text, the
end of a turn and what it cost), and grows new ones without notice: what is not known here is passed over.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from dueto.agents.ports import Line, ToolSpec
from dueto.errors import RemoteProtocolError

HEARS_HZ: Final = 16000
SPEAKS_HZ: Final = 24000


class _Told(msgspec.Struct, frozen=True, rename="camel"):
    """Something the server says."""


class Blob(_Told, frozen=True):
    mime_type: str = ""
    data: bytes = b""
    "On the wire in base64."

    @property
    def rate_hz(self) -> int:
        """What `audio/pcm;rate=24000` says; without a rate, the one it always had."""
        rate = self.mime_type.partition("rate=")[2]
        return int(rate) if rate.isdecimal() else SPEAKS_HZ


class Part(_Told, frozen=True):
    inline_data: Blob | None = None


class Content(_Told, frozen=True):
    parts: tuple[Part, ...] = ()


class Transcription(_Told, frozen=True):
    """A piece of what was said; it may come before, with or after the audio."""

    text: str = ""
    finished: bool = False


class ServerContent(_Told, frozen=True):
    model_turn: Content | None = None
    generation_complete: bool = False
    "The model has made all of this turn. Not said of a turn that was interrupted."
    turn_complete: bool = False
    "The turn is over; where the server thinks in playing time, as late as its audio would have been heard."
    interrupted: bool = False
    "The caller speaks: the rest of what was made is not to be played."
    input_transcription: Transcription | None = None
    output_transcription: Transcription | None = None


class FunctionCall(_Told, frozen=True):
    id: str = ""
    name: str = ""
    args: msgspec.Raw = msgspec.Raw(b"{}")


class ToolCall(_Told, frozen=True):
    function_calls: tuple[FunctionCall, ...] = ()


class ToolCallCancellation(_Told, frozen=True):
    ids: tuple[str, ...] = ()


class GoAway(_Told, frozen=True):
    """This connection is about to be closed: about a minute before its ten are over."""

    time_left: str = ""
    "A protobuf duration: `59.8s`."

    @property
    def left_s(self) -> float:
        """Seconds; 0 where nothing sensible was said."""
        try:
            return max(0.0, float(self.time_left.removesuffix("s")))
        except ValueError:
            return 0.0


class SessionResumptionUpdate(_Told, frozen=True):
    new_handle: str = ""
    resumable: bool = False
    "Not while it generates or waits for a tool; then `new_handle` is empty."


class ModalityTokens(_Told, frozen=True):
    modality: str = ""
    token_count: int = 0


class UsageMetadata(_Told, frozen=True):
    prompt_token_count: int = 0
    response_token_count: int = 0
    total_token_count: int = 0
    prompt_tokens_details: tuple[ModalityTokens, ...] = ()
    response_tokens_details: tuple[ModalityTokens, ...] = ()

    def amounts(self) -> dict[str, int]:
        """Return it as one flat mapping: `input_tokens`, `output_audio_tokens`, ..."""
        found = {"input_tokens": self.prompt_token_count, "output_tokens": self.response_token_count}
        for way, details in (("input", self.prompt_tokens_details), ("output", self.response_tokens_details)):
            for detail in details:
                found[f"{way}_{detail.modality.lower()}_tokens"] = detail.token_count
        return {name: count for name, count in found.items() if count}


class VoiceActivity(_Told, frozen=True):
    type: str = ""
    "`ACTIVITY_START` or `ACTIVITY_END`."


class ServerMessage(_Told, frozen=True):
    setup_complete: dict[str, Any] | None = None
    server_content: ServerContent | None = None
    tool_call: ToolCall | None = None
    tool_call_cancellation: ToolCallCancellation | None = None
    usage_metadata: UsageMetadata | None = None
    go_away: GoAway | None = None
    session_resumption_update: SessionResumptionUpdate | None = None
    voice_activity: VoiceActivity | None = None


_decoder: Final = msgspec.json.Decoder(ServerMessage)
_encode: Final = msgspec.json.Encoder().encode


def decode(message: bytes) -> ServerMessage:
    """Return what the server said.

    Raises: RemoteProtocolError: it is no JSON, or not what the API promises.
    """
    try:
        return _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(str(error)) from None


# -- what we say

_AUDIO_HEAD: Final = b'{"realtimeInput":{"audio":{"mimeType":"audio/pcm;rate=16000","data":"'


def audio(frame: bytes) -> bytes:
    """The caller's voice: L16, little-endian, mono, at 16 kHz. (By hand: it is said fifty times a second.)"""
    return _AUDIO_HEAD + b64encode(frame) + b'"}}}'


AUDIO_STREAM_END: Final = b'{"realtimeInput":{"audioStreamEnd":true}}'
"The audio pauses: what was said last is complete. The next audio opens the stream again."


def text(said: str) -> bytes:
    """A text that the model answers at once, as if the caller had said it."""
    return _encode({"realtimeInput": {"text": said}})


def history(lines: Sequence[Line]) -> bytes:
    """A conversation that was held before; needs `history=True` in the setup, and comes before anything else."""
    turns = [{"role": "user" if line.who == "caller" else "model", "parts": [{"text": line.text}]} for line in lines]
    return _encode({"clientContent": {"turns": turns, "turnComplete": True}})


def tool_response(ask_id: str, name: str, output: str) -> bytes:
    """What a tool brought. The API wants an object: text goes under `output`, JSON as what it is."""
    try:
        value: Any = msgspec.json.decode(output)
    except (msgspec.DecodeError, RecursionError):
        value = output
    response = {"id": ask_id, "name": name, "response": {"output": value}}
    return _encode({"toolResponse": {"functionResponses": [response]}})


def setup(
    *,
    model: str,
    voice: str,
    language: str,
    instructions: str,
    tools: Sequence[ToolSpec],
    vad: Mapping[str, Any],
    barge_in: bool,
    history: bool,
    handle: str,
    temperature: float,
) -> bytes:
    """The first message of a connection. `handle`: of the session to be resumed; empty: a new one."""
    making: dict[str, Any] = {"responseModalities": ["AUDIO"]}
    if temperature != 1.0:
        making["temperature"] = temperature
    speech: dict[str, Any] = {}
    if voice:
        speech["voiceConfig"] = {"prebuiltVoiceConfig": {"voiceName": voice}}
    if language:
        speech["languageCode"] = language
    if speech:
        making["speechConfig"] = speech
    said: dict[str, Any] = {
        "model": model if "/" in model else f"models/{model}",
        "generationConfig": making,
        "inputAudioTranscription": {},
        "outputAudioTranscription": {},
        "sessionResumption": {"handle": handle} if handle else {},
        "contextWindowCompression": {"slidingWindow": {}},
    }
    if instructions:
        said["systemInstruction"] = {"parts": [{"text": instructions}]}
    if tools:
        said["tools"] = [{"functionDeclarations": [declaration(tool) for tool in tools]}]
    listening: dict[str, Any] = {"automaticActivityDetection": dict(vad)} if vad else {}
    if not barge_in:
        listening["activityHandling"] = "NO_INTERRUPTION"
    if listening:
        said["realtimeInputConfig"] = listening
    if history:
        said["historyConfig"] = {"initialHistoryInClientContent": True}
    return _encode({"setup": said})


def declaration(tool: ToolSpec) -> dict[str, Any]:
    """A tool as the model is told of it."""
    return {"name": tool.name, "description": tool.description, "parametersJsonSchema": dict(tool.parameters)}


Sensitivity = Literal["", "low", "high"]


def voice_activity_detection(
    *, start: Sensitivity, end: Sensitivity, prefix_ms: int, silence_ms: int
) -> dict[str, Any]:
    """How the server decides that the caller speaks; empty and 0: as it likes."""
    said: dict[str, Any] = {}
    if start:
        said["startOfSpeechSensitivity"] = f"START_SENSITIVITY_{start.upper()}"
    if end:
        said["endOfSpeechSensitivity"] = f"END_SENSITIVITY_{end.upper()}"
    if prefix_ms:
        said["prefixPaddingMs"] = prefix_ms
    if silence_ms:
        said["silenceDurationMs"] = silence_ms
    return said
