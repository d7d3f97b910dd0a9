"""One simulated call: what was said, heard and done on both legs, on one time line."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from dueto.audio import frame_bytes
from dueto.audio.pcm import mix
from dueto.sim.applications import run_dialplan
from dueto.sim.audio_module import AudioModule
from dueto.sim.caller import Caller, Line
from dueto.sim.channel import Channel
from dueto.sim.counters import Counters
from dueto.sim.faults import Faults
from dueto.sim.stream_api import open_stream

if TYPE_CHECKING:
    from dueto.sim.core import Action, Core


class Happening(NamedTuple):
    """One entry of a call's time line."""

    at: float
    "Seconds on the switch's clock."
    leg: str
    "`control`, `media`, `caller` or `switch`."
    name: str
    fields: dict[str, Any]


class SimCall:
    """A call on its way through the switch. Made by `Switch.place`."""

    def __init__(
        self,
        core: "Core",
        caller: Caller,
        actions: "list[Action]",
        unique_id: str,
        faults: Faults,
        *,
        ring: "Callable[[Channel], Awaitable[None]] | None" = None,
    ) -> None:
        """`ring`: what comes before the dialplan, for a channel that the switch places itself."""
        self._core = core
        self.caller = caller
        self.unique_id = unique_id
        self.rate_hz = caller.rate_hz
        self.placed_at = core.now()
        self.heard_from = 0.0
        "When the first sample of `said` and of `heard` sounded; 0.0 before, or where nothing is recorded."
        self.counters = Counters()
        self.events: list[Happening] = []
        "Everything that happened, in order; empty where the switch was told not to record."
        self.bridged_to = ""
        "The Unique-ID of the leg the caller was connected with last."
        self.bridged_dial = ""
        "The dial string that leg was called by."
        self.ended_in = ""
        "The dialplan's last application, for a call whose gateway let it go."
        self.error: Exception | None = None
        "What the caller's script raised."
        self.line = Line(self)
        self._said: list[bytes | None] = []
        self._heard: list[bytes | None] = []
        self._b_heard: list[bytes] = []
        self._to_echo: bytes | None = None
        self._over = asyncio.Event()
        self._released = asyncio.Event()
        self._second_stream: AudioModule | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self.channel = Channel(core, unique_id, caller, counters=self.counters, faults=faults, record=self)
        for name, value in caller.variables:
            self.channel.set_variable(name, value)
        self.channel.on_hangup.append(self._hung_up)
        self.channel.originated = ring is not None
        self._ring = ring
        self._task = core.spawn(self._live(actions), f"{unique_id} dialplan")
        self._script: asyncio.Task[None] | None = None

    # -- what a test asks ------------------------------------------------------------------------------------------

    @property
    def hangup_cause(self) -> str:
        """Why it ended, in the switch's words; empty while it lives."""
        return self.channel.hangup_cause

    @property
    def hung_up_at(self) -> float:
        """When somebody hung up (the caller's BYE, or the switch's command); 0.0 while nobody has."""
        return self.counters.hung_up_at

    @property
    def control_opened_at(self) -> float:
        """When the first `connect` was answered; 0.0 before."""
        return self.counters.control_opened_at

    @property
    def media_opened_at(self) -> float:
        """When the first upgrade was done; 0.0 before."""
        return self.counters.media_opened_at

    @property
    def paired(self) -> bool:
        """Whether both legs were there: `connect` was answered and the upgrade done."""
        return bool(self.control_opened_at and self.media_opened_at)

    @property
    def said(self) -> bytes:
        """What the caller said since the call was placed: L16 at `rate_hz`, silence filled in."""
        return self._joined(self._said)

    @property
    def heard(self) -> bytes:
        """What the caller heard, on the same time line: sample n of `said` and of `heard` are one moment."""
        return self._joined(self._heard)

    @property
    def b_heard(self) -> bytes:
        """What the leg the caller was bridged to heard, all bridges one behind the other: L16 at `rate_hz`."""
        return b"".join(self._b_heard)

    async def done(self) -> None:
        """Wait until the call is over: hung up, CHANNEL_HANGUP_COMPLETE fired, the media leg closed.

        Raises: whatever the caller's script raised.
        """
        await self._over.wait()
        if self.error is not None:
            raise self.error

    async def over(self) -> None:
        """Wait as `done` does, but leave the script's error to whoever asks for it."""
        await self._over.wait()

    async def released(self) -> None:
        """Wait until the gateway has let go of the control leg too (`exit`), or the linger time is over."""
        await self._released.wait()

    def hang_up(self, cause: str = "NORMAL_CLEARING") -> None:
        """Hang up as the caller."""
        self.note("caller", "hangup", cause=cause)
        self.counters.hung_up_at = self.counters.hung_up_at or self._core.now()
        self.channel.hang_up_soon(cause if self.channel.answered else "ORIGINATOR_CANCEL")

    def note(self, leg: str, name: str, **fields: Any) -> None:
        """Put something on the time line."""
        if name == "CHANNEL_BRIDGE" and leg == "control":
            other = self.channel.b_leg or self.channel.peer
            self.bridged_to = other.unique_id if other is not None else ""
            self.bridged_dial = other.dial if other is not None else ""
            self.line.was_bridged()
        elif name == "dialplan":
            self.ended_in = fields["application"]
        elif leg == "control" and name in ("open", "closed"):
            self._control_changed(opened=name == "open")
        if self._core.record:
            self.events.append(Happening(self._core.now(), leg, name, fields))

    # -- how it lives ----------------------------------------------------------------------------------------------

    async def _live(self, actions: "list[Action]") -> None:
        core = self._core
        if self.channel.faults.media_twice_after_s is not None:
            self._timers.append(core.loop.call_later(self.channel.faults.media_twice_after_s, self._open_second_stream))
        if self.channel.faults.control_twice_after_s is not None:
            again = next((pair for pair in actions if pair[0] == "socket"), None)
            if again is not None:
                rest = actions[actions.index(again) :]
                self._timers.append(
                    core.loop.call_later(
                        self.channel.faults.control_twice_after_s, self.channel.transfer, rest, "again"
                    )
                )
        if self.caller.script is not None:
            self._script = core.spawn(self._play(self.caller.script), f"{self.unique_id} caller")
        try:
            if self._ring is not None:
                await self._ring(self.channel)
            await run_dialplan(self.channel, actions)
        finally:
            for timer in self._timers:
                timer.cancel()
            if self._script is not None:
                self._script.cancel()
                await asyncio.wait([self._script])
            if self._second_stream is not None:
                self._second_stream.abort()
            self._over.set()
            if not self.channel.controls:
                self._released.set()

    async def _play(self, script: Any) -> None:
        try:
            await self.channel.media_ready.wait()
            await script(self.line)
        except Exception as error:  # told to whoever awaits `done`
            self.error = error
        self.line.hangup()

    def _hung_up(self) -> None:
        self.counters.hung_up_at = self.counters.hung_up_at or self._core.now()
        self.line.hung_up()
        if self._script is not None:
            self._script.cancel()

    def _control_changed(self, *, opened: bool) -> None:
        if not opened and self._over.is_set() and not self.channel.controls:
            self._released.set()

    def _open_second_stream(self) -> None:
        stream = self.channel.stream
        if stream is not None and self.channel.up:
            self._second_stream = open_stream(self.channel, stream.request, Counters(), owner=False)

    def frame(self) -> bool:
        """20 ms have passed. Returns what `Channel.frame` does."""
        channel = self.channel
        said: bytes | None = None
        heard: bytes | None = None
        if channel.up:
            stream, size = channel.stream, frame_bytes(self.rate_hz)
            if channel.has_media:
                said = self.line.next_frame()
                if said is None and self.caller.echoes:
                    said = self._to_echo
                if said is None and self.caller.measure_echo:
                    said = self.counters.mark(size, self._core.now())
            heard = self._played(channel, stream, said)
            channel.saying = said
            if channel.far_room is not None:  # the far half of a loopback channel is its telephone
                said, channel.saying = channel.far_room.heard_by(channel), heard
            if stream is not None:
                stream.push(said, heard)
            if channel.unicast is not None and channel.parks:
                channel.unicast.push(said)
            if self._second_stream is not None:
                self._second_stream.push(said, heard)
            self.line.take(heard)
            self._to_echo = heard
        if self._core.record:
            self.heard_from = self.heard_from or self._core.now()
            self._said.append(said)
            self._heard.append(heard)
        return channel.frame()

    def _played(self, channel: Channel, stream: AudioModule | None, said: bytes | None) -> bytes | None:
        """Return what is sent to the caller in this frame; None: nothing."""
        heard: bytes | None = None
        if channel.playing is not None and not channel.playing.is_over():
            heard = channel.playing.read()
            if channel.playing.is_over():
                channel.stir()
        elif channel.b_leg is not None:
            heard = channel.b_leg.speak()
            if self._core.record:
                self._b_heard.append(said or bytes(frame_bytes(self.rate_hz)))
        elif channel.peer is not None:
            heard = channel.peer.saying
            if self._core.record:
                self._b_heard.append(said or bytes(frame_bytes(self.rate_hz)))
        elif channel.room is not None:
            heard = channel.room.heard_by(channel)
        streamed = stream.down.pull() if stream is not None else None
        if streamed is not None and not channel.held:
            heard = streamed if heard is None else mix(heard, streamed)
        if channel.unicast is not None and (sent := channel.unicast.pull()) is not None and not channel.held:
            heard = sent if heard is None else mix(heard, sent)
        return None if channel.held_by_caller else heard

    async def abort(self) -> None:
        """End the call at once, without a word to anybody."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for control in tuple(self.channel.controls):
            control.abort()
        if self.channel.stream is not None:
            self.channel.stream.abort()
        if self.channel.unicast is not None:
            self.channel.unicast.close()
        self._over.set()
        self._released.set()

    def _joined(self, frames: list[bytes | None]) -> bytes:
        silence = bytes(frame_bytes(self.rate_hz))
        return b"".join(frame or silence for frame in frames)
