"""Which audio module a switch has, and how it plays: found out at the switch's first call, and remembered."""

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dueto.errors import CommandRefused, LegClosed, NotCapable, ReplyTimeout
from dueto.legs.ports import ControlLeg, MediaLeg
from dueto.wire.media import (
    AUDIO_FORK,
    AUDIO_FORK_BINARY,
    AUDIO_STREAM,
    AUDIO_STREAM_BASE64,
    AUDIO_STREAM_BINARY,
    Dialect,
)
from dueto.wire.media.audio_fork import SUBPROTOCOL

if TYPE_CHECKING:
    from dueto.call.session import Session

CONTROL_S: Final = 1.5
"How long a stream waits for its control leg before it is decided without one."
PROBES_S: Final = (0.4, 0.8)
"How long each probe is waited for: a file is announced within 23 ms (measured), on a busy switch later."
PROBE: Final = "dueto-probe"
SILENCE: Final = bytes(320)
BASE64_WITHOUT_CLEAR: Final = replace(
    AUDIO_STREAM_BASE64,
    clear="none",
    gives="the agent's voice as a stream, gap-free",
    lacks='silence at once: a sentence that is cut sounds for up to 480 ms more ("audio_stream-binary": 160); '
    "wideband; live audio: 400 ms are gathered first",
)
"A build that plays base64, and does not know `stopAudio`."
MOST: Final = 256
"Switches remembered."


class DialectFinder:
    """Remembers, by Core-UUID and by address, how each switch is spoken with.

    What tells them apart: mod_audio_fork offers its sub-protocol in the handshake. A module that writes files announces
    one for a short silent piece; one that plays by itself announces nothing. Then STREAM_SAMPLE_RATE on the channel
    says that the dialplan expects binary audio; without it base64 is what every streaming build takes.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Dialect] = OrderedDict()
        self._asking: dict[str, asyncio.Future[None]] = {}
        "Switches that are being asked just now: their other first calls wait for the answer."

    def known(self, session: "Session", peer: str) -> Dialect | None:
        """How this call's switch is spoken with, if that is known. A switch that was restarted is a new one."""
        core = _core_uuid(session)
        return self._known.get(core or peer)

    async def find(self, session: "Session", leg: MediaLeg) -> Dialect:
        """Find out, say so in one line of the journal, and remember. Raises: LegClosed: the stream ended meanwhile."""
        control = await session.control_soon(CONTROL_S)
        key = _core_uuid(session) or leg.peer
        while (asking := self._asking.get(key)) is not None:
            await asyncio.wait((asking,))
        known = self.known(session, leg.peer) if control is not None else None
        if known is not None:
            return known
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._find(session, leg, control)
        finally:
            del self._asking[key]
            asking.set_result(None)

    async def _find(self, session: "Session", leg: MediaLeg, control: ControlLeg | None) -> Dialect:
        forks = leg.offers == SUBPROTOCOL
        if control is None or not control.capabilities.api:
            found = AUDIO_FORK_BINARY if forks else AUDIO_STREAM_BINARY
            self._tell(session, found, "no control leg with `full`: only a build that plays by itself can be heard")
            if not session.house.rules.control_expected:
                self._remember(leg.peer, found)
            return found
        family = AUDIO_FORK if forks else AUDIO_STREAM
        if await self._announces(session, leg, control, family):
            found, how = family, "it announced a file"
        elif forks:
            found, how = AUDIO_FORK_BINARY, "its sub-protocol, and no file announced"
        elif control.channel.variable("STREAM_SAMPLE_RATE"):
            found, how = AUDIO_STREAM_BINARY, "no file announced, and STREAM_SAMPLE_RATE is set"
        else:
            found, how = AUDIO_STREAM_BASE64, "no file announced"
            if not await self._knows_stop_audio(session, leg):
                found, how = BASE64_WITHOUT_CLEAR, "no file announced, and stopAudio came back as ::json"
        self._remember(_core_uuid(session), found)
        self._remember(leg.peer, found)
        self._tell(session, found, how)
        return found

    async def to_start(self, session: "Session", control: ControlLeg) -> Dialect:
        """How to start a stream on a switch that nothing is known of: by the module that is loaded.

        Raises: NotCapable: none is.
        """
        known = self.known(session, "")
        if known is not None:
            return known
        for dialect in (AUDIO_STREAM_BASE64, AUDIO_FORK_BINARY):
            if await control.api("module_exists", dialect.module) == "true":
                return dialect
        session.journal(
            "media_dialect",
            found="none",
            by="module_exists",
            caller_gets="nothing: there is no audio module",
            caller_lacks='everything; [media] dialect = "unicast" needs no module',
        )
        raise NotCapable('the switch has neither mod_audio_stream nor mod_audio_fork; dialect = "unicast" needs none')

    def contradicted(self, session: "Session", found: Dialect) -> None:
        """A file was announced where none was expected: from the next call on it is known better."""
        core = _core_uuid(session)
        if self._known.get(core) is not found:
            self._remember(core, found)
            if session.media is not None:
                self._remember(session.media.peer, found)
            self._tell(session, found, "it announced a file in mid-call; so from the next call on")

    async def _announces(self, session: "Session", leg: MediaLeg, control: ControlLeg, family: Dialect) -> bool:
        """Whether a short silent piece becomes a file."""
        files = family.files
        assert files is not None
        announced = asyncio.get_running_loop().create_future()

        def event(subclass: str, body: str) -> bool:
            file = files.read(body) if subclass == files.event else None
            if file is None or file.id != PROBE:
                return False
            if not announced.done():
                announced.set_result(None)
            return True

        session.module_event = event
        try:
            with contextlib.suppress(CommandRefused, ReplyTimeout):
                await control.api("module_exists", family.module)  # once it answers, the events are subscribed, too
            for patience_s in PROBES_S:
                leg.send_text(files.hand_over(SILENCE, 8000, PROBE))
                await asyncio.wait((announced,), timeout=patience_s)
                if leg.closed:
                    raise LegClosed("the stream ended before it was known how it is spoken with")
                if announced.done():
                    return True
            return False
        finally:
            session.module_event = None

    async def _knows_stop_audio(self, session: "Session", leg: MediaLeg) -> bool:
        """Whether it is taken, or given back as an event, as texts are that mean nothing. It clears the probes, too."""
        returned = asyncio.get_running_loop().create_future()
        text = AUDIO_STREAM_BASE64.clear_text

        def event(subclass: str, body: str) -> bool:
            ours = subclass == "mod_audio_stream::json" and body == text
            if ours and not returned.done():
                returned.set_result(None)
            return ours

        session.module_event = event
        try:
            leg.send_text(text)
            await asyncio.wait((returned,), timeout=PROBES_S[0])
            return not returned.done()
        finally:
            session.module_event = None

    def _remember(self, key: str, dialect: Dialect) -> None:
        if key:
            self._known[key] = dialect
            self._known.move_to_end(key)
            while len(self._known) > MOST:
                self._known.popitem(last=False)

    def _tell(self, session: "Session", found: Dialect, how: str) -> None:
        session.journal("media_dialect", found=found.name, by=how, caller_gets=found.gives, caller_lacks=found.lacks)


def _core_uuid(session: "Session") -> str:
    control = session.control_now()
    return control.channel.get("Core-UUID") if control is not None else ""
