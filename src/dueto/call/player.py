"""How the agent's voice reaches the caller: frame by frame through the playout ledger, or as files the switch plays."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from dueto.audio.playout import Playout, Utterance
from dueto.clock import Clock
from dueto.errors import CommandRefused, Dropped, DuetoError, Interrupted, LegClosed, NotCapable, ReplyTimeout
from dueto.legs.ports import ControlLeg, MediaLeg
from dueto.legs.ticker import Ticker
from dueto.wire.media import Dialect
from dueto.wire.media.audio_stream import play_file, stream_audio

BACKLOG_EVERY_S = 0.1
"How often the kernel is asked what it still holds: a system call, so not for every frame."


class Saying:
    """Something being said. `await heard()` returns when the caller has heard it."""

    def __init__(self, interruptible: bool, position: Callable[[], int]) -> None:
        self.interruptible = interruptible
        self._position = position
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.add_done_callback(_retrieve)

    async def heard(self) -> None:
        """Wait until all of it was heard. Raises: Interrupted: it was cut; NotCapable, LegClosed: it can't be heard."""
        await asyncio.shield(self._done)

    @property
    def heard_ms(self) -> int:
        """How much of it the caller has heard by now."""
        return self._position()

    @property
    def done(self) -> bool:
        """Whether it was heard, cut, or failed."""
        return self._done.done()

    def end(self, error: DuetoError | None = None) -> None:
        """Resolve it; once."""
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)


class Player(Protocol):
    """One call's way down."""

    def say(self, pcm: bytes, *, interruptible: bool) -> Saying:
        """Queue L16 mono at the call's rate behind what is queued already."""
        ...

    def write(self, frame: bytes) -> None:
        """Live audio: as soon as possible, dropping the oldest where too much waits."""
        ...

    def clear(self, *, everything: bool = True, breaks: bool = True) -> int:
        """Silence now: what was not heard yet is gone, as far as the dialect can. Returns the ms heard of what was cut.

        Without `everything`, what is not interruptible plays on. Without `breaks`, the switch is not told to break off
        what it runs: it runs a bridge.
        """
        ...

    frames_sent: int

    @property
    def underruns(self) -> int:
        """How often the caller heard a gap in the middle of something."""
        ...

    @property
    def dropped_ms(self) -> int:
        """How much live audio was dropped to stay live."""
        ...

    def idle(self) -> bool:
        """Whether the caller has heard all there was."""
        ...

    async def quiet(self) -> None:
        """Wait until `idle`, or until nobody can hear it any more."""
        ...

    def pause(self, paused: bool) -> None:
        """Hold: nothing goes down until it is over."""
        ...


class StreamPlayer:
    """Frames down a stream, paced by the ledger. What fits within the lead goes out in the same turn of the loop."""

    def __init__(
        self,
        rate_hz: int,
        dialect: Dialect,
        media: Callable[[], MediaLeg | None],
        ticker: Ticker,
        clock: Clock,
        *,
        max_live_ms: int = 400,
    ) -> None:
        self._media = media
        self._ticker = ticker
        self._clock = clock
        self._bytes_per_ms = rate_hz * 2 // 1000
        self._ledger = Playout(rate_hz, lead_ms=dialect.lead_ms, max_live_ms=max_live_ms)
        self._live: Utterance | None = None
        self._sayings: deque[tuple[Utterance, Saying]] = deque()
        self._backlog_at = 0.0
        self._paused = False
        self._quiet: list[asyncio.Future[None]] = []
        self.frames_sent = 0

    @property
    def underruns(self) -> int:
        """How often the caller heard a gap in the middle of something."""
        return self._ledger.underruns

    @property
    def dropped_ms(self) -> int:
        """How much live audio was dropped to stay live."""
        return self._ledger.dropped_ms

    def say(self, pcm: bytes, *, interruptible: bool) -> Saying:
        """Queue a whole utterance."""
        self._end_live()
        utterance = self._ledger.open(interruptible=interruptible)
        self._ledger.add(utterance, pcm)
        self._ledger.finish(utterance)
        saying = Saying(interruptible, lambda: self._ledger.heard_ms(utterance, self._clock()))
        self._sayings.append((utterance, saying))
        self._pump(self._clock())
        return saying

    def write(self, frame: bytes) -> None:
        """Live audio."""
        live, now, media = self._live, self._clock(), self._media()
        if live is None:
            live = self._live = self._ledger.open(live=True)
        elif media is not None and not self._paused and self._ledger.pass_on(live, frame, now):
            media.send_audio(frame)
            self.frames_sent += 1
            return
        if self._ledger.catches_up(live, frame, now):
            return
        self._ledger.add(live, frame)
        if media is None or self._paused:
            return
        frames = self._ledger.due(now)
        for data in frames:
            media.send_audio(data)
        self.frames_sent += len(frames)
        if self._ledger.next_due(now) is not None:
            self._ticker.add(self._tick)

    def clear(self, *, everything: bool = True, breaks: bool = True) -> int:
        """Silence within the lead: a stream dialect without a clear plays what was sent."""
        if not everything and any(not saying.interruptible and not saying.done for _, saying in self._sayings):
            return 0
        now = self._clock()
        heard_ms = 0
        self._live = None
        cut = {utterance.id: ms for utterance, ms in self._ledger.clear(now, drops_sent=False)}
        for _ in range(len(self._sayings)):
            utterance, saying = self._sayings.popleft()
            if utterance.id in cut:
                heard_ms += cut[utterance.id]
                saying.end(Interrupted(cut[utterance.id]))
            else:  # all of it had been sent, and will be heard
                self._sayings.append((utterance, saying))
        return heard_ms

    def idle(self) -> bool:
        """Whether the caller has heard all there was."""
        return self._ledger.idle(self._clock())

    async def quiet(self) -> None:
        """Wait until `idle`."""
        if not self.idle():
            waiter = asyncio.get_running_loop().create_future()
            self._quiet.append(waiter)
            self._ticker.add(self._tick)
            await waiter

    def pause(self, paused: bool) -> None:
        """Keep the queue, send nothing."""
        self._paused = paused
        if not paused:
            self._ticker.add(self._tick)

    def _end_live(self) -> None:
        if self._live is not None:
            self._ledger.finish(self._live)
            self._live = None

    def _tick(self, now: float) -> bool:
        media, backlog_ms = self._media(), 0.0
        if media is not None and now - self._backlog_at >= BACKLOG_EVERY_S:
            self._backlog_at = now
            backlog_ms = media.backlog_bytes() / self._bytes_per_ms
        return self._pump(now, backlog_ms)

    def _pump(self, now: float, backlog_ms: float = 0.0) -> bool:
        media = self._media()
        if media is not None and not self._paused:
            frames = self._ledger.due(now, backlog_ms)  # a backlog counts once, at the moment it was measured
            for data in frames:
                media.send_audio(data)
            self.frames_sent += len(frames)
        while self._sayings:
            utterance, saying = self._sayings[0]
            ends_at = self._ledger.heard_at(utterance)
            if ends_at is None or ends_at > now:
                break
            self._sayings.popleft()
            saying.end()
        if self._quiet and (self._ledger.idle(now) or media is None):
            for waiter in self._quiet:
                if not waiter.done():
                    waiter.set_result(None)
            self._quiet.clear()
        busy = bool(self._sayings or self._quiet) or self._ledger.next_due(now) is not None
        if busy:
            self._ticker.add(self._tick)
        return busy


@dataclass(eq=False, slots=True)
class _Piece:
    """One file: sent to the module, announced by its ::play event, played by the control leg."""

    id: str
    duration_ms: int
    saying: Saying | None
    announced: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    over: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    started_at: float | None = None


class FilePlayer:
    """The community module: `streamAudio` -> file -> ::play -> `playback` with event-lock on the control leg."""

    PIECE_MS = 10_000
    LIVE_PIECE_MS = 600
    LIVE_KEPT_MS = 2000
    QUIET_MS = 100
    PLAY_EVENT_S = 3.0

    def __init__(
        self,
        rate_hz: int,
        media: Callable[[], MediaLeg | None],
        control: Callable[[], ControlLeg | None],
        ticker: Ticker,
        clock: Clock,
        spawn: Callable[[str, Coroutine[Any, Any, None]], object],
    ) -> None:
        self._rate_hz = rate_hz
        self._media = media
        self._control = control
        self._ticker = ticker
        self._clock = clock
        self._spawn = spawn
        self._bytes_per_ms = rate_hz * 2 // 1000
        self._ids = itertools.count(1)
        self._pieces: dict[str, _Piece] = {}
        self._live = bytearray()
        self._live_at = 0.0
        self._dropped_ms = 0
        self._behind_a_bridge = False
        self.frames_sent = 0

    @property
    def underruns(self) -> int:
        """None that we could know of: the switch plays whole files."""
        return 0

    @property
    def dropped_ms(self) -> int:
        """Live audio that waited too long for a control leg."""
        return self._dropped_ms

    def say(self, pcm: bytes, *, interruptible: bool) -> Saying:
        """Hand a whole utterance to the module, in pieces cut where it is quietest."""
        pieces: list[_Piece] = []
        saying = Saying(interruptible, lambda: sum(self._heard_ms(piece) for piece in pieces))
        step = self.PIECE_MS * self._bytes_per_ms
        for start in range(0, max(len(pcm), 1), step):
            pieces.append(self._send(pcm[start : start + step], saying))
        self._spawn("say", self._play(pieces, saying))
        return saying

    def write(self, frame: bytes) -> None:
        """Live audio, gathered into short files: this dialect has no stream down."""
        if not self._live:
            self._ticker.add(self._tick)
        self._live += frame
        self._live_at = self._clock()
        if len(self._live) >= self.LIVE_PIECE_MS * self._bytes_per_ms:
            self._flush()

    def played(self, body: str) -> None:
        """Read a ::play event: a file of ours is there."""
        play = play_file(body)
        piece = self._pieces.get(play.id) if play is not None else None
        if play is not None and piece is not None and not piece.announced.done():
            piece.announced.set_result(play.file)

    def clear(self, *, everything: bool = True, breaks: bool = True) -> int:
        """`uuid_break all`: about 11 ms to silence."""
        current = list(self._pieces.values())
        if not everything and any(p.saying is not None and not p.saying.interruptible for p in current):
            return 0
        self._live.clear()
        heard_ms = sum(self._heard_ms(piece) for piece in current)
        for piece in current:
            piece.announced.cancel()
            if piece.saying is not None and not piece.saying.done:
                piece.saying.end(Interrupted(piece.saying.heard_ms))
        for piece in current:  # only now: the position counts what is still in the book
            self._forget(piece)
        control = self._control()
        if current and control is not None:
            if breaks:
                self._spawn("break", self._break(control))
            else:
                self._behind_a_bridge = True
        return heard_ms

    def idle(self) -> bool:
        """Whether every piece has been played."""
        return not self._pieces and not self._live

    async def quiet(self) -> None:
        """Wait until every piece has been played, or cut."""
        while self._pieces or self._live:
            if self._live:
                self._flush()
            if not self._pieces:
                return  # there is nobody who could play it
            await asyncio.wait([piece.over for piece in self._pieces.values()])

    def pause(self, paused: bool) -> None:
        """The switch holds its own playback."""

    def unbridged(self) -> None:
        """What was cut during a bridge, without a break, would be played now: break it off."""
        control = self._control()
        if self._behind_a_bridge and control is not None:
            self._spawn("break", self._break(control))
        self._behind_a_bridge = False

    def _heard_ms(self, piece: _Piece) -> int:
        if piece.id not in self._pieces:
            return piece.duration_ms if piece.started_at is not None else 0
        if piece.started_at is None:
            return 0
        return min(int((self._clock() - piece.started_at) * 1000), piece.duration_ms)

    def _forget(self, piece: _Piece) -> None:
        self._pieces.pop(piece.id, None)
        if not piece.over.done():
            piece.over.set_result(None)

    def _send(self, pcm: bytes, saying: Saying | None) -> _Piece:
        media, control = self._media(), self._control()
        if media is None or control is None or not control.capabilities.api:
            raise NotCapable("this audio module plays only through the control leg (`socket ... async full`)")
        piece = _Piece(f"d{next(self._ids)}", len(pcm) // self._bytes_per_ms, saying)
        self._pieces[piece.id] = piece
        media.send_text(stream_audio(pcm, self._rate_hz, piece.id))
        self.frames_sent += piece.duration_ms // 20
        return piece

    def _tick(self, now: float) -> bool:
        if self._live and now - self._live_at >= self.QUIET_MS / 1000:
            self._flush()
        return bool(self._live)

    def _flush(self) -> None:
        try:
            piece = self._send(bytes(self._live), None)
        except NotCapable:  # the control leg may only be late; what gets too old meanwhile is dropped
            too_much = max(len(self._live) - self.LIVE_KEPT_MS * self._bytes_per_ms, 0)
            self._dropped_ms += too_much // self._bytes_per_ms
            del self._live[:too_much]
            return
        self._live.clear()
        self._spawn("write", self._play([piece], None))

    async def _play(self, pieces: list[_Piece], saying: Saying | None) -> None:
        """Play each piece when its file is there; event-lock on the switch keeps the order."""
        error: DuetoError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for piece in pieces:
                    async with asyncio.timeout(self.PLAY_EVENT_S):
                        file = await piece.announced
                    tasks.create_task(self._execute(piece, file))
        except TimeoutError:
            error = ReplyTimeout("the audio module did not say where it put the audio: is it the community build?")
        except ExceptionGroup as group:
            error = next((e for e in group.exceptions if isinstance(e, DuetoError)), LegClosed(str(group)))
        except asyncio.CancelledError:
            if saying is not None:
                saying.end(Interrupted(saying.heard_ms))
            raise
        finally:
            for piece in pieces:
                self._forget(piece)
        if saying is not None:
            saying.end(error)

    async def _execute(self, piece: _Piece, file: str) -> None:
        control = self._control()
        if control is None:
            raise LegClosed("the control leg is gone")

        def started() -> None:
            piece.started_at = self._clock()

        try:
            done = await control.execute("playback", file, on_start=started)
        except Dropped:
            return
        self._forget(piece)
        answer = done.get("Application-Response")
        if answer == "FILE NOT FOUND":
            raise CommandRefused(f"playback: {answer}: {file}")

    async def _break(self, control: ControlLeg) -> None:
        try:
            await control.break_all()
        except DuetoError:
            return  # the channel or the leg is gone: silence all the same


def _retrieve(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()
