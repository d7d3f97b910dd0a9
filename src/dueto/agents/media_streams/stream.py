"""One media stream towards a bot: the caller's audio up, the bot's audio down, and a mark told when it was HEARD."""

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dueto.agents.flow import SETTLE_S, Flow
from dueto.agents.link import Link, open_link
from dueto.agents.media_streams import messages
from dueto.agents.media_streams.account import Account
from dueto.agents.media_streams.messages import FRAME_MS, RATE_HZ
from dueto.audio import ulaw_decode, ulaw_encode
from dueto.call import Call
from dueto.call.utterance import Utterance
from dueto.errors import ProviderFailed, RemoteProtocolError

GAP_MS: Final = 200
"So much later than expected, the caller's audio has had a gap: its timestamps begin anew."
PIECE_BYTES: Final = RATE_HZ
"A second of mu-law: a larger message is taken in pieces."
MAX_AHEAD_MS: Final = 60_000
"What the call is given ahead of the caller's ear; what a bot sends beyond that waits here, as it came."
MAX_KEPT_BYTES: Final = 8 << 20
"Of mu-law: 17 minutes. More is no speech."
HOLD_PAUSE_S: Final = 0.5
"On hold the sentence that was begun is kept; what a bot begins to say after such a pause is not: nobody asked for it."
MAX_HELD_MS: Final = 10_000
"And no more than that of a bot that never pauses."
MAX_MARKS: Final = 20_000
MAX_ODD: Final = 100
"Messages that make no sense, and none that does: that is no bot."


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A mark, and the place in what is said that it stands for."""

    name: str
    utterance: Utterance | None
    at_ms: int

    @property
    def heard(self) -> bool:
        said = self.utterance
        return said is None or said.done or said.heard_ms >= self.at_ms


class BotStream:
    """Made for one `<Connect><Stream>`; `run` is all of its life."""

    def __init__(self, call: Call, account: Account, call_sid: str, url: str, parameters: Mapping[str, str]) -> None:
        self.sid = f"MZ{secrets.token_hex(16)}"
        self.held = False
        "Whether the caller is on hold; the line says so."
        self.odd_messages = 0
        "What came from the bot and was no message of this protocol."
        self._call = call
        self._account = account
        self._call_sid = call_sid
        self._url = url
        self._parameters = dict(parameters)
        self._link: Link | None = None
        self._now = asyncio.get_running_loop().time
        self._sequence = 0
        self._chunk = 0
        self._understood = False
        "Whether anything that came was a message of this protocol."
        self._began_at = 0.0
        self._at_ms = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._voice = Flow(call, RATE_HZ)
        self._spoke_at = 0.0
        self._kept: deque[bytes | str] = deque()
        "Audio, and the names of marks, that wait behind `MAX_AHEAD_MS`."
        self._kept_bytes = 0
        self._marks: deque[_Awaited] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, *, connect_s: float) -> None:
        """Connect, and talk until the bot closes the stream; what it said until then is heard to its end.

        Cancelling it (the caller hung up, or the call is taken from the bot) is silence, and the bot is told `stop`.
        Raises: ProviderFailed: the bot can't be reached, refuses, breaks off, or sends what makes no sense.
        """
        self._link = link = await open_link(
            "the bot",
            self._url,
            self._message,
            self._closed,
            headers=self._account.sign(self._url),
            secrets=(self._account.token,),
            connect_s=connect_s,
        )
        stop_hearing = None
        try:
            link.send(messages.encode(messages.Connected()))
            beginning = messages.Beginning(self._account.sid, self.sid, self._call_sid, self._parameters)
            link.send(messages.encode(messages.Start(self._next(), beginning, self.sid)))
            self._began_at = self._now()
            stop_hearing = self._call.audio_to(self._hear, RATE_HZ)
            await self._over
            await self._last_words()
        except BaseException:
            self._kept.clear()
            await self._call.stop()
            raise
        finally:
            if stop_hearing is not None:
                stop_hearing()
            if self._timer is not None:
                self._timer.cancel()
            if self._over.done() and not self._over.cancelled():
                self._over.exception()  # looked at, in case that somebody else was quicker
            ending = messages.Ending(self._account.sid, self._call_sid)
            link.send(messages.encode(messages.Stop(self._next(), self.sid, ending)))
            await link.aclose()

    def press(self, digit: str) -> None:
        """The caller pressed a key."""
        if self._link is not None:
            self._link.send(messages.encode(messages.Dtmf(self.sid, self._next(), messages.Key(digit))))

    @property
    def dropped_ms(self) -> int:
        """Caller's audio that the bot was too slow to take."""
        return 0 if self._link is None else self._link.dropped_ms

    # -- up

    def _hear(self, frame: bytes) -> None:
        """20 ms of the caller, L16 at 8000 Hz. Fifty times a second."""
        if self._link is None:
            return
        at_ms = int((self._now() - self._began_at) * 1000)
        if at_ms - self._at_ms > GAP_MS:  # nothing came for a while: a hold, or a transfer
            self._at_ms = at_ms
        self._chunk += 1
        part = messages.Frame(str(self._chunk), str(self._at_ms), ulaw_encode(frame))
        self._at_ms += FRAME_MS
        self._link.send_audio(messages.encode(messages.Media(self._next(), part, self.sid)))

    def _next(self) -> str:
        self._sequence += 1
        return str(self._sequence)

    # -- down

    def _message(self, text: bytes) -> None:
        try:
            message = messages.decode(text)
        except RemoteProtocolError as error:
            return self._odd(error)
        self._understood = True
        match message:
            case messages.Say() if self.held and self._beside_the_point():
                pass
            case messages.Say(sound) if len(sound.payload) <= PIECE_BYTES:
                self._keep(sound.payload)
            case messages.Say(sound):
                for at in range(0, len(sound.payload), PIECE_BYTES):
                    self._keep(sound.payload[at : at + PIECE_BYTES])
            case messages.Mark(mark):
                self._keep(mark.name)
            case messages.Clear():
                self._clear()
        return None

    def _beside_the_point(self) -> bool:
        """Whether what a bot says while the caller is on hold belongs to nothing that he has begun to hear."""
        return self._now() - self._spoke_at > HOLD_PAUSE_S or self._voice.ahead_ms > MAX_HELD_MS

    def _odd(self, error: RemoteProtocolError) -> None:
        """Twilio warns, and goes on; so do we, unless nothing else comes."""
        self.odd_messages += 1
        if self.odd_messages == 1:
            self._call.log.warning("bot_message_ignored", reason=str(error))
        if self.odd_messages > MAX_ODD and not self._understood:
            self._fail(f"the bot does not speak Media Streams: {error}")

    def _fail(self, text: str) -> None:
        if self._link is not None:
            self._link.fail(ProviderFailed("protocol", text))

    def _keep(self, item: bytes | str) -> None:
        """Say it, or note the mark; behind what waits already."""
        if self._kept or self._voice.ahead_ms >= MAX_AHEAD_MS:
            self._kept.append(item)
            self._kept_bytes += len(item)
            if self._kept_bytes > MAX_KEPT_BYTES or len(self._kept) > MAX_MARKS:
                self._fail("the bot sends more than anybody would listen to")
        else:
            self._take(item)
        self._watch()

    def _take(self, item: bytes | str) -> None:
        if isinstance(item, bytes):
            self._spoke_at = self._now()
            self._voice.add(ulaw_decode(item))
        elif len(self._marks) >= MAX_MARKS:
            self._fail("the bot sets more marks than anybody could count")
        else:
            said = self._voice.utterance
            self._marks.append(_Awaited(item, said, 0 if said is None else said.queued_ms))
            self._tell_marks()

    def _clear(self) -> None:
        """Silence; every mark that waits is told at once, in order."""
        self._voice.cut("bot")
        self._marks.extend(_Awaited(item, None, 0) for item in self._kept if isinstance(item, str))
        self._kept.clear()
        self._kept_bytes = 0
        self._tell_marks(cleared=True)

    async def _last_words(self) -> None:
        """The bot is done: wait until all that it sent was heard."""
        while self._kept:
            self._look()
            await asyncio.sleep(SETTLE_S)
        await self._voice.heard()

    # -- marks, and the ends of sentences

    def _tell_marks(self, *, cleared: bool = False) -> None:
        marks = self._marks
        while marks and (cleared or marks[0].heard):
            name = messages.MarkName(marks.popleft().name)
            if self._link is not None:
                self._link.send(messages.encode(messages.Marked(self._next(), self.sid, name)))

    def _watch(self) -> None:
        """Look again when the next mark may have been heard, or the sentence may be over. One timer at a time."""
        if self._timer is None and (self._marks or self._kept or self._voice.open):
            wait_s = SETTLE_S
            if self._marks and (said := self._marks[0].utterance) is not None:
                wait_s = min(wait_s, max((self._marks[0].at_ms - said.heard_ms) / 1000, FRAME_MS / 1000))
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _look(self) -> None:
        self._timer = None
        self._tell_marks()
        while self._kept and self._voice.ahead_ms < MAX_AHEAD_MS:
            item = self._kept.popleft()
            self._kept_bytes -= len(item)
            self._take(item)
        self._voice.settle()
        self._watch()

    def _closed(self, failure: ProviderFailed) -> None:
        """The stream's end, in the turn of the loop in which it came."""
        if self._over.done():
            return
        if self._link is not None and self._link.close_code in (1000, 1005):  # the bot is done
            self._over.set_result(None)
        else:
            self._over.set_exception(failure)
