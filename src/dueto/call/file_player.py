"""The agent's voice as files that the switch plays: for an audio module that has no stream down."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from dueto.call.player import Outcome, Saying, Silent, Tape
from dueto.clock import Clock
from dueto.errors import (
    CommandRefused,
    Dropped,
    DuetoError,
    Interrupted,
    LegClosed,
    LocalProtocolError,
    NotCapable,
    ReplyTimeout,
)
from dueto.legs.ports import ControlLeg, MediaLeg
from dueto.legs.ticker import Ticker
from dueto.wire.media.audio_stream import play_file, stream_audio


@dataclass(eq=False, slots=True)
class _Piece:
    """One file: sent to the module, announced by its ::play event, played by the control leg."""

    id: str
    pcm: bytes
    duration_ms: int
    saying: "_Filed | None"
    announced: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    over: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    started_at: float | None = None
    heard_ms: int | None = None
    "Once it is over: how much of it was heard."


class _Filed(Outcome):
    """Something being said: what waits to become a file, and the files it became."""

    def __init__(self, player: "FilePlayer", interruptible: bool, bytes_per_ms: int) -> None:
        super().__init__()
        self.interruptible = interruptible
        self.waiting = bytearray()
        self.finished = False
        self.since = 0.0
        "When something was added last."
        self.queued_bytes = 0
        self.pieces: list[_Piece] = []
        self.to_play: asyncio.Queue[_Piece | None] = asyncio.Queue()
        self._player = player
        self._bytes_per_ms = bytes_per_ms

    def add(self, pcm: bytes) -> None:
        """Say more."""
        if self.interrupted:
            return
        if self.finished:
            raise LocalProtocolError("it was finished: it takes no more audio")
        self._player.add(self, pcm)

    def finish(self) -> None:
        """Nothing more comes."""
        if not self.finished:
            self.finished = True
            self._player.pump()

    def end(self, error: DuetoError | None = None) -> None:
        """Resolve it; what had not become a file by then never will."""
        self.finished = True
        self.waiting.clear()
        self.to_play.put_nowait(None)
        super().end(error)

    @property
    def heard_ms(self) -> int:
        """How much of it the caller has heard by now."""
        return sum(self._player.heard_ms(piece) for piece in self.pieces)

    @property
    def filed_ms(self) -> int:
        """How much of it became files."""
        return sum(piece.duration_ms for piece in self.pieces)

    @property
    def queued_ms(self) -> int:
        """How much of it there is so far."""
        return self.queued_bytes // self._bytes_per_ms

    @property
    def began_at(self) -> float | None:
        """When the switch began to play its first file."""
        return self.pieces[0].started_at if self.pieces else None


class FilePlayer:
    """The community module: `streamAudio` -> file -> ::play -> `playback` with event-lock on the control leg.

    What is being made while it is said becomes files as it goes: the first as soon as there is enough for the next one
    to follow without a gap, then all there is whenever the caller has nearly heard what the switch has.
    """

    PIECE_MS = 10_000
    LIVE_PIECE_MS = 600
    LIVE_KEPT_MS = 2000
    QUIET_MS = 100
    AHEAD_MS = 600
    "With less than this in the switch the next file is due: writing, announcing and starting it takes a round trip."
    WAITING_MS = 120_000
    GIVE_WAY_S = 2.0
    PLAY_EVENT_S = 3.0

    def __init__(
        self,
        rate_hz: int,
        media: Callable[[], MediaLeg | None],
        control: Callable[[], ControlLeg | None],
        ticker: Ticker,
        clock: Clock,
        spawn: Callable[[str, Coroutine[Any, Any, None]], object],
        *,
        control_s: float = 5.0,
    ) -> None:
        """`control_s`: how long what is to be said waits for a control leg that may only be late."""
        self._rate_hz = rate_hz
        self._media = media
        self._control = control
        self._ticker = ticker
        self._clock = clock
        self._spawn = spawn
        self._control_s = control_s
        self._bytes_per_ms = rate_hz * 2 // 1000
        self._ids = itertools.count(1)
        self._order: deque[_Filed] = deque()
        "Not finished, or not all files yet; the first has the turn."
        self._pieces: dict[str, _Piece] = {}
        self._live = bytearray()
        self._live_at = 0.0
        self._dropped_ms = 0
        self._behind_a_bridge = False
        self.frames_sent = 0
        self.tape: Tape | None = None

    @property
    def underruns(self) -> int:
        """None that we could know of: the switch plays whole files."""
        return 0

    @property
    def dropped_ms(self) -> int:
        """Live audio that waited too long for a control leg."""
        return self._dropped_ms

    def open(self, *, interruptible: bool = True) -> Saying:
        """Begin to say something."""
        saying = _Filed(self, interruptible, self._bytes_per_ms)
        self._order.append(saying)
        self._spawn("say", self._play(saying))
        return saying

    def add(self, saying: _Filed, pcm: bytes) -> None:
        """More of something."""
        if len(saying.waiting) + len(pcm) > self.WAITING_MS * self._bytes_per_ms:
            raise LocalProtocolError(f"more than {self.WAITING_MS} ms would be waiting")
        saying.since = self._clock()
        saying.waiting += pcm
        saying.queued_bytes += len(pcm)
        self.pump()

    def pump(self) -> None:
        """Make files of what is due, and look again at the next tick if more is to come."""
        if self._advance(self._clock()):
            self._ticker.add(self._tick)

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

    def clear(self, *, everything: bool = True, breaks: bool = True, silent: Silent | None = None) -> int:
        """`uuid_break all`: about 11 ms to silence."""
        current = list(self._pieces.values())
        sayings = list(dict.fromkeys([*(piece.saying for piece in current if piece.saying), *self._order]))
        if not everything and any(not saying.interruptible for saying in sayings):
            return 0
        self._live.clear()
        self._order.clear()
        heard_ms = sum(self.heard_ms(piece) for piece in current)
        for piece in current:
            piece.announced.cancel()
        for piece in current:
            self._forget(piece, heard_ms=self.heard_ms(piece))
        for saying in sayings:
            saying.end(Interrupted(saying.heard_ms))
        control = self._control()
        if current and control is not None:
            if breaks:
                sounding = any(piece.started_at is not None for piece in current)
                self._spawn("break", self._break(control, silent if sounding else None))
            else:
                self._behind_a_bridge = True
        return heard_ms

    def idle(self) -> bool:
        """Whether every piece has been played."""
        return not self._pieces and not self._live and not any(saying.waiting for saying in self._order)

    async def quiet(self) -> None:
        """Wait until every piece has been played, or cut."""
        for saying in tuple(self._order):
            saying.finish()  # who wanted to say more is not there any more
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

    def heard_ms(self, piece: _Piece) -> int:
        """How much of one file the caller has heard by now."""
        if piece.heard_ms is not None:
            return piece.heard_ms
        if piece.started_at is None:
            return 0
        return min(int((self._clock() - piece.started_at) * 1000), piece.duration_ms)

    # -- from audio to files

    def _tick(self, now: float) -> bool:
        if self._live and now - self._live_at >= self.QUIET_MS / 1000:
            self._flush()
        return self._advance(now) or bool(self._live)

    def _advance(self, now: float) -> bool:
        """Make the files that are due. Returns whether more may be due later, with nobody saying more."""
        while self._order:
            saying = self._order[0]
            if not self._can_play():
                if saying.waiting and now - saying.since >= self._control_s:
                    self._order.popleft()
                    saying.end(NotCapable("this audio module plays only through the control leg, and there is none"))
                    continue
                return True
            while (size := self._due(saying, now)) > 0:
                piece = self._send(bytes(saying.waiting[:size]), saying)
                del saying.waiting[:size]
                saying.pieces.append(piece)
                saying.to_play.put_nowait(piece)
            if saying.finished:
                self._order.popleft()
                saying.to_play.put_nowait(None)
            elif len(self._order) > 1 and not saying.waiting and now - saying.since > self.GIVE_WAY_S:
                self._order.rotate(-1)
                return True
            else:
                return bool(saying.waiting) or len(self._order) > 1
        return False

    def _due(self, saying: _Filed, now: float) -> int:
        """How many bytes of what waits are the next file: 0: none yet."""
        most, size = self.PIECE_MS * self._bytes_per_ms, len(saying.waiting)
        if size >= most or saying.finished:
            return min(size, most)
        if saying.filed_ms - saying.heard_ms > self.AHEAD_MS:
            return 0
        enough = size >= self.LIVE_PIECE_MS * self._bytes_per_ms or now - saying.since >= self.QUIET_MS / 1000
        return size - size % 2 if enough else 0

    def _can_play(self) -> bool:
        media, control = self._media(), self._control()
        return media is not None and control is not None and control.capabilities.api

    def _send(self, pcm: bytes, saying: _Filed | None) -> _Piece:
        media = self._media()
        if media is None or not self._can_play():
            raise NotCapable("this audio module plays only through the control leg (`socket ... async full`)")
        piece = _Piece(f"d{next(self._ids)}", pcm, len(pcm) // self._bytes_per_ms, saying)
        self._pieces[piece.id] = piece
        media.send_text(stream_audio(pcm, self._rate_hz, piece.id))
        self.frames_sent += piece.duration_ms // 20
        return piece

    def _flush(self) -> None:
        try:
            piece = self._send(bytes(self._live), None)
        except NotCapable:  # the control leg may only be late; what gets too old meanwhile is dropped
            too_much = max(len(self._live) - self.LIVE_KEPT_MS * self._bytes_per_ms, 0)
            self._dropped_ms += too_much // self._bytes_per_ms
            del self._live[:too_much]
            return
        self._live.clear()
        self._spawn("write", self._play_live(piece))

    # -- from files to sound

    async def _play(self, saying: _Filed) -> None:
        """Play each piece when its file is there; event-lock on the switch keeps the order."""
        error: DuetoError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                while (piece := await saying.to_play.get()) is not None:
                    tasks.create_task(self._execute(piece, await self._announced(piece)))
        except ExceptionGroup as group:
            error = next((e for e in group.exceptions if isinstance(e, DuetoError)), LegClosed(str(group)))
        except asyncio.CancelledError:
            saying.end(Interrupted(saying.heard_ms))
            raise
        finally:
            for piece in saying.pieces:
                self._forget(piece)
            saying.end(error)

    async def _play_live(self, piece: _Piece) -> None:
        try:
            await self._execute(piece, await self._announced(piece))
        finally:
            self._forget(piece)

    async def _announced(self, piece: _Piece) -> str:
        try:
            async with asyncio.timeout(self.PLAY_EVENT_S):
                return await piece.announced
        except TimeoutError:
            text = "the audio module did not say where it put the audio: is it the community build?"
            raise ReplyTimeout(text) from None

    async def _execute(self, piece: _Piece, file: str) -> None:
        control = self._control()
        if control is None:
            raise LegClosed("the control leg is gone")

        def started() -> None:
            piece.started_at = self._clock()
            if self.tape is not None:
                self.tape.heard(piece.pcm, piece.started_at)

        try:
            done = await control.execute("playback", file, on_start=started)
        except Dropped:
            return
        self._forget(piece)
        answer = done.get("Application-Response")
        if answer == "FILE NOT FOUND":
            raise CommandRefused(f"playback: {answer}: {file}")

    def _forget(self, piece: _Piece, *, heard_ms: int | None = None) -> None:
        """It is over: played to its end if it was begun, or where `heard_ms` says so."""
        if piece.heard_ms is None:
            played_ms = piece.duration_ms if piece.started_at is not None else 0
            piece.heard_ms = played_ms if heard_ms is None else heard_ms
        self._pieces.pop(piece.id, None)
        if not piece.over.done():
            piece.over.set_result(None)

    async def _break(self, control: ControlLeg, silent: Silent | None = None) -> None:
        with contextlib.suppress(DuetoError):  # the channel or the leg is gone: silence all the same
            await control.break_all()
        if self.tape is not None:
            self.tape.cut(self._clock())
        if silent is not None:
            silent(self._clock(), "switch")
