"""The Event Socket wire: bytes to values and back. No I/O, no time."""

from dueto.wire.esl.commands import (
    Api,
    Auth,
    BgApi,
    Command,
    Connect,
    Execute,
    Exit,
    Linger,
    MyEvents,
    Raw,
    SendMsg,
    Subscribe,
    checked,
)
from dueto.wire.esl.framing import BrokenStream, Decoder
from dueto.wire.esl.inbox import Limits
from dueto.wire.esl.messages import (
    ApiResponse,
    AuthRequest,
    Block,
    ConnectAnswer,
    DisconnectNotice,
    Event,
    LogLine,
    Message,
    Rejection,
    Reply,
)
from dueto.wire.esl.quoting import quote, unquote

__all__ = [
    "Api",
    "ApiResponse",
    "Auth",
    "AuthRequest",
    "BgApi",
    "Block",
    "BrokenStream",
    "Command",
    "Connect",
    "ConnectAnswer",
    "Decoder",
    "DisconnectNotice",
    "Event",
    "Execute",
    "Exit",
    "Limits",
    "Linger",
    "LogLine",
    "Message",
    "MyEvents",
    "Raw",
    "Rejection",
    "Reply",
    "SendMsg",
    "Subscribe",
    "checked",
    "quote",
    "unquote",
]
