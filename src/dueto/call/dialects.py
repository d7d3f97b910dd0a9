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
LATE_S: Final = 0.1
"How much later than the answer to the fence a file may still be announced: events may overtake each other."
PROBE: Final = "dueto-probe"
STOP: Final = AUDIO_STREAM_BASE64.clear_text
FENCE: Final = f'{{"type":"json","data":"{PROBE}"}}'
"Comes back as ::json: mod_audio_fork knows this type, and mod_audio_stream returns what it does not know."
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
    one for a short silent piece; one that plays by itself announces nothing before it returns the text behind that,
    the fence, as an event. Then STREAM_SAMPLE_RATE on the channel says that the dialplan expects binary audio; without
    it base64 is what every streaming build takes.
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
        heard = await self._ask(session, leg, control, family)
        if heard.announced:
            found, how = family, "it announced a file"
        elif forks:
            found, how = AUDIO_FORK_BINARY, "its sub-protocol, and no file announced"
        elif control.channel.variable("STREAM_SAMPLE_RATE"):
            found, how = AUDIO_STREAM_BINARY, "no file announced, and STREAM_SAMPLE_RATE is set"
        else:
            found, how = AUDIO_STREAM_BASE64, "no file announced"
            if heard.stop_returned:
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

    async def _ask(self, session: "Session", leg: MediaLeg, control: ControlLeg, family: Dialect) -> "_Answers":
        """Send what only some understand, and behind it what none does: its return is the end of the answers."""
        assert family.files is not None
        heard = _Answers(family)
        session.module_event = heard.event
        try:
            with contextlib.suppress(CommandRefused, ReplyTimeout):
                await control.api("module_exists", family.module)  # once it answers, the events are subscribed, too
            for patience_s in PROBES_S:
                leg.send_text(family.files.hand_over(SILENCE, 8000, PROBE))
                if family is AUDIO_STREAM:
                    leg.send_text(STOP)  # behind the probe: it clears it, too
                leg.send_text(FENCE)
                answered = await heard.over(patience_s)
                if leg.closed:
                    raise LegClosed("the stream ended before it was known how it is spoken with")
                if answered:
                    break
            return heard
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


class _Answers:
    """What a module's events say to a probe."""

    def __init__(self, family: Dialect) -> None:
        self._files = family.files
        self._returns = f"{family.module}::json"
        self._announced = asyncio.Event()
        self._fenced = asyncio.Event()
        self.stop_returned = False
        "`stopAudio` came back, as texts do that mean nothing."

    @property
    def announced(self) -> bool:
        """Whether the short silent piece became a file."""
        return self._announced.is_set()

    def event(self, subclass: str, body: str) -> bool:
        """Take an event of the module; returns whether it was an answer."""
        if self._files is not None and subclass == self._files.event:
            file = self._files.read(body)
            if file is None or file.id != PROBE:
                return False
            self._announced.set()
            return True
        if subclass != self._returns:
            return False
        if body == STOP:
            self.stop_returned = True
        elif PROBE in body:
            self._fenced.set()
        else:
            return False
        return True

    async def over(self, patience_s: float) -> bool:
        """Wait until all is answered, at most `patience_s`; returns whether it is."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._announced, self._fenced)]
        try:
            await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if self._fenced.is_set():
                await asyncio.wait(waits[:1], timeout=LATE_S)
        finally:
            for wait in waits:
                wait.cancel()
        return self.announced or self._fenced.is_set()


def _core_uuid(session: "Session") -> str:
    control = session.control_now()
    return control.channel.get("Core-UUID") if control is not None else ""
