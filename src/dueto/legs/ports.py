"""What a call knows of its two connections. Engines implement these; `call` imports nothing else of legs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dueto.wire.esl import Command, Event, Reply, Unicast
from dueto.wire.media import Dialect, StreamRequest
from dueto.wire.media.unicast import Packet


@dataclass(frozen=True, slots=True)
class ControlCapabilities:
    """What a control leg can do, by its engine and by what the dialplan said."""

    engine: str
    api: bool = True
    "False without `full` in the dialplan: no api, no linger, no CUSTOM events, so hardly any verb."
    at_once: bool = True
    "False without `async` in the dialplan: nothing is told or answered while an application runs."
    pipelined: bool = True
    "Whether commands may be under way while another one's reply is awaited."


class ControlSink(Protocol):
    """Who is told what a control leg hears: the call. Called on the event loop, in the order of the bytes."""

    def control_event(self, leg: "ControlLeg", event: Event) -> None:
        """An event of this channel."""
        ...

    def control_lingering(self, leg: "ControlLeg") -> None:
        """The notice with `Content-Disposition: linger`: the channel is gone; it may come before CHANNEL_HANGUP."""
        ...

    def control_closed(self, leg: "ControlLeg", reason: str) -> None:
        """The connection ended, by EOF, error, goodbye or by us. Always the last call, and exactly one."""
        ...


class ControlLeg(Protocol):
    """One control connection of one channel.

    Every waiting method is safe to cancel: a late reply is dropped, never handed to the next command.
    All of them raise LegClosed when the connection ends first, and ReplyTimeout when no answer comes in time.
    """

    unique_id: str
    channel: Event
    "The channel as the connect answer showed it: every header and variable of that moment."
    capabilities: ControlCapabilities
    peer: str
    closed: bool

    def attach(self, sink: ControlSink) -> None:
        """Say who listens from now on. Events that came before are handed over first, in order."""
        ...

    async def command(self, command: Command, *, timeout_s: float = 5.0) -> Reply:
        """Send `command` and return the switch's reply, be it +OK or -ERR."""
        ...

    async def api(self, command: str, argument: str = "", *, timeout_s: float = 5.0) -> str:
        """Run an api command and return its output, trimmed.

        Raises: CommandRefused: the output begins with -ERR or -USAGE; the text is the switch's.
        """
        ...

    async def job(self, command: str, argument: str = "", *, timeout_s: float = 30.0) -> str:
        """Run an api command as a background job and return its result, trimmed: it holds up neither reply nor event.

        Raises: CommandRefused: the result begins with -ERR or -USAGE.
        """
        ...

    async def execute(
        self,
        application: str,
        argument: str = "",
        *,
        event_lock: bool = True,
        timeout_s: float | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> Event:
        """Queue a dialplan application and return its own CHANNEL_EXECUTE_COMPLETE.

        `on_start` is called when its CHANNEL_EXECUTE comes. Cancelling stops the waiting, not the application.
        Raises: CommandRefused: the sendmsg was refused. Dropped: `uuid_break all` threw it away before it began.
        """
        ...

    def post(self, command: Command) -> None:
        """Send `command` and never mind its reply. Does nothing on a closed leg."""
        ...

    async def break_all(self) -> None:
        """Stop the running application and drop what waits behind it; those executions raise Dropped."""
        ...

    def notify_session_ended(self, reason: str) -> None:
        """The call is over on our side: let go of the switch's session (after its last events, or at once)."""
        ...

    def abort(self) -> None:
        """End the connection now, without a word."""
        ...


class ControlDoor(Protocol):
    """Where a control leg reports once it knows whose it is: the desk."""

    def control_came(self, leg: ControlLeg) -> None:
        """The connect answer is here. Attach a sink, or end the leg."""
        ...

    def refused(self, leg: str, reason: str, peer: str) -> None:
        """A connection on `leg` (`control`, `media`) was turned away before it had a call."""
        ...


class Listener(Protocol):
    """Who takes a stream's audio. Most messages are frames, 50 a second; those a leg hands straight to `take`."""

    frame_bytes: int
    "The size of a message that is a frame as it stands; -1 while there is none."
    frames: int
    "How many came. Who hands one to `take` counts it."
    take: Callable[[bytes], object]
    "Takes a frame: L16 mono, 20 ms at the stream's rate."

    def message(self, data: bytes) -> None:
        """Take any binary message: L16 at the stream's rate, some frames of 20 ms if the module keeps its word."""
        ...


class _Deaf:
    def __init__(self) -> None:
        self.frame_bytes = -1
        self.frames = 0
        self.take: Callable[[bytes], object] = self.message

    def message(self, data: bytes) -> None:
        pass


DEAF: Final[Listener] = _Deaf()
"Hears nothing."


class MediaSink(Protocol):
    """Who is told what happens to a media leg: the call. Called on the event loop."""

    def media_text(self, leg: "MediaLeg", text: str) -> None:
        """Metadata, `send_text`, or the text of a stop."""
        ...

    def media_closed(self, leg: "MediaLeg", code: int, reason: str) -> None:
        """The stream ended (1006: without a CLOSE). Always the last call, and exactly one."""
        ...


class MediaLeg(Protocol):
    """One audio stream of one channel."""

    request: StreamRequest
    dialect: Dialect
    peer: str
    offers: str
    "The sub-protocol that the handshake offered, if it is one we know."
    base_url: str
    "`ws://HOST:PORT` as the switch wrote it to reach us, from the handshake's Host; empty where that is no plain one."
    closed: bool
    listener: Listener
    "Who takes the audio from the next message on; at first nobody."
    filler_ms: int
    "Silence of the leg's own that the far end plays before what is sent now."

    def attach(self, sink: MediaSink) -> None:
        """Say who listens from now on."""
        ...

    def send_audio(self, frame: bytes, /) -> None:
        """Send one frame (L16 mono at `request.rate_hz`); silently nothing once the stream is closed."""
        ...

    def send_text(self, text: str) -> None:
        """Send a text message; silently nothing once the stream is closed."""
        ...

    def backlog_bytes(self) -> int:
        """How much of what was sent has not left this machine: our buffer and the kernel's."""
        ...

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send CLOSE and end the connection; the switch waits for that before its channel can go."""
        ...


class PacketLeg(MediaLeg, Protocol):
    """A stream over UDP. It is nobody's before its first datagram."""

    offer: Unicast
    "What the switch has to be told."
    alive: "asyncio.Future[None]"
    "Resolves with the first datagram; fails with RemoteProtocolError where its size makes no sense, or LegClosed."
    datagrams: int
    "How many came."
    on_stall: Callable[[bool], None] | None
    "Told when the switch does not play any more what it is sent, and when it does again."

    def unplayed(self) -> list[bytes]:
        """What of the last packets the switch has not played, by its own clock."""
        ...

    def say_again(self, frames: list[bytes]) -> None:
        """Send what a lost stream took along, before anything else."""
        ...

    def rest(self, resting: bool) -> None:
        """Expect nothing for a while; or again something, and close with 1006 where nothing comes."""
        ...


class PacketDoor(Protocol):
    """Opens streams over UDP."""

    async def open(
        self, request: StreamRequest, expected: Packet, *, refused: Callable[[str], None], channel: str = ""
    ) -> PacketLeg:
        """Bind a fresh port for one. Safe to cancel.

        `channel`: whose stream it is, if not that of the control leg. `refused` is told of the first stranger.
        Raises: NotCapable: no port is free.
        """
        ...


class MediaDoor(Protocol):
    """Where a media leg reports: the desk."""

    def admit_media(self, request: StreamRequest) -> None:
        """Decide before the upgrade. Raises: Refused: with the HTTP status to answer."""
        ...

    def media_came(self, leg: MediaLeg) -> None:
        """The upgrade is done. Attach a sink, or close the leg."""
        ...

    def refused(self, leg: str, reason: str, peer: str) -> None:
        """As on ControlDoor."""
        ...


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """One row of `show channels as json`; what the switch left out is empty."""

    unique_id: str
    direction: str = ""
    name: str = ""
    state: str = ""
    "`CS_EXECUTE`, `CS_EXCHANGE_MEDIA`, ..."
    call_state: str = ""
    "`ACTIVE`, `RINGING`, `HELD`, ..."
    caller_number: str = ""
    destination: str = ""
    application: str = ""
    presence_id: str = ""


class SwitchLink(Protocol):
    """The switch's own event socket, where we are the client. All of it raises LegClosed while the link is down."""

    up: bool

    async def api(self, command: str, argument: str = "", *, timeout_s: float = 5.0) -> str:
        """Run a quick api command and return its output, trimmed. Raises: CommandRefused, LegClosed, ReplyTimeout."""
        ...

    async def job(self, command: str, argument: str = "", *, timeout_s: float = 30.0) -> str:
        """Run a command as a background job and return its result. Raises: CommandRefused, LegClosed, ReplyTimeout."""
        ...

    async def exists(self, unique_id: str) -> bool:
        """Whether the switch has that channel."""
        ...

    async def channels(self) -> list[ChannelRow]:
        """Every channel of the switch."""
        ...

    def watch(self, unique_id: str, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Hand every event of that channel to `sink`; call what is returned to stop."""
        ...

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call `callback` after every connect, once subscribed: what happened meanwhile has to be asked for."""
        ...
