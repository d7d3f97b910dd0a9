"""The agent's voice as files that the switch plays: for an audio module that has no stream down."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from dueto.call.filed import Filed, Piece, quietest
from dueto.call.player import Saying, Silent, Tape, nobody
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
from dueto.wire.media.dialect import Files


class FilePlayer:
    """Audio handed over -> file -> the module's event -> `playback` with event-lock on the control leg.

    The first file is short, so that the caller hears something soon; the others are long, and all end where it is
    quiet, for between two files there are up to 60 ms of silence. The switch has two of them at a time: one that it
    plays, one to follow. What a lost stream took along is handed over again.

    What is being made while it is said becomes files as it goes: the first as soon as there is enough for the next one
    to follow without a gap, then all there is whenever the caller has nearly heard what the switch has.
    """

    FIRST_MS = (300, 900)
    "Where the first file may end."
    PIECE_MS = (7_000, 10_000)
    "Where the others may."
    MOST_OUT = 2
    TRIES = 3
    "How often a file is handed over before it counts as not found."
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
        files: Files,
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
        self._files = files
        self._media = media
        self._control = control
        self._ticker = ticker
        self._clock = clock
        self._spawn = spawn
        self._control_s = control_s
        self._bytes_per_ms = rate_hz * 2 // 1000
        self._ids = itertools.count(1)
        self._order: deque[Filed] = deque()
        "Not finished, or not all files yet; the first has the turn."
        self._pieces: dict[str, Piece] = {}
        "Handed over and not over yet, in the order of play."
        self._last: Piece | None = None
        self._breaking: asyncio.Future[None] | None = None
        "Done when the switch has broken off: what is played before that would be broken off too."
        self._live = bytearray()
        self._live_at = 0.0
        self._dropped_ms = 0
        self._behind_a_bridge = False
        self._audible = True
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
        saying = Filed(self, interruptible, self._bytes_per_ms)
        self._order.append(saying)
        self._spawn("say", self._play(saying))
        return saying

    def add(self, saying: Filed, pcm: bytes) -> None:
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
        if not self._audible:
            return
        if not self._live:
            self._ticker.add(self._tick)
        self._live += frame
        self._live_at = self._clock()
        if len(self._live) >= self.LIVE_PIECE_MS * self._bytes_per_ms:
            self._flush()

    def written(self, subclass: str, body: str) -> None:
        """Read an event of the module: a file of ours may be there."""
        file = self._files.read(body) if subclass == self._files.event else None
        piece = self._pieces.get(file.id) if file is not None else None
        if file is not None and piece is not None and not piece.announced.done():
            piece.announced.set_result(file.file)

    def clear(self, *, everything: bool = True, breaks: bool = True, silent: Silent | None = None) -> int:
        """`uuid_break all`: about 11 ms to silence."""
        current = list(self._pieces.values())
        sayings = list(dict.fromkeys([*(piece.saying for piece in current if piece.saying), *self._order]))
        if not everything and any(not saying.interruptible for saying in sayings):
            return 0
        self._live.clear()
        self._order.clear()
        heard_ms = sum(saying.heard_ms for saying in sayings)
        heard_ms += sum(self.heard_ms(piece) for piece in current if piece.saying is None)
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
                self._breaking = asyncio.get_running_loop().create_future()
                self._spawn("break", self._break(control, self._breaking, silent if sounding else None))
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
        while not self.idle():
            if self._live:
                self._flush()
            if not self._pieces:
                return  # there is nobody who could play it
            await asyncio.wait([piece.over for piece in self._pieces.values()], return_when=asyncio.FIRST_COMPLETED)

    def text(self, text: str) -> bool:
        """None is: what was played is told by the switch's events."""
        return False

    def stream_lost(self, *, stopped: bool) -> None:
        """Nothing to do yet: what is being played is played to its end."""

    def end(self) -> None:
        """Nothing to do: the call's tasks end by themselves."""

    def release(self) -> None:
        """Nothing of the call goes on: let go of it."""
        self._media = self._control = nobody

    def stream_came(self) -> None:
        """The files that nobody has told us of went with the stream before."""
        for piece in self._pieces.values():
            if not piece.announced.done():
                self._hand_over(piece)
        self.pump()

    def call_changed(self, audible: bool) -> None:
        """Whether live audio is for the caller's ears."""
        self._audible = audible

    def pause(self, paused: bool) -> None:
        """The switch holds its own playback."""

    def unbridged(self) -> None:
        """What was cut during a bridge, without a break, would be played now: break it off."""
        control = self._control()
        if self._behind_a_bridge and control is not None:
            self._breaking = asyncio.get_running_loop().create_future()
            self._spawn("break", self._break(control, self._breaking))
        self._behind_a_bridge = False

    def heard_ms(self, piece: Piece) -> int:
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
                control = self._control()
                deaf = control is None or not control.capabilities.api
                if deaf and saying.waiting and now - saying.since >= self._control_s:
                    self._order.popleft()
                    saying.end(NotCapable("this audio module plays only through the control leg, and there is none"))
                    continue
                return True
            while len(self._pieces) < self.MOST_OUT and (size := self._due(saying, now)) > 0:
                piece = self._send(bytes(saying.waiting[:size]), saying)
                del saying.waiting[:size]
                saying.pieces.append(piece)
                saying.to_play.put_nowait(piece)
            if saying.finished and saying.waiting:
                return False  # the next piece that is over goes on
            if saying.finished:
                self._order.popleft()
                saying.to_play.put_nowait(None)
            elif len(self._order) > 1 and not saying.waiting and now - saying.since > self.GIVE_WAY_S:
                self._order.rotate(-1)
                return True
            else:
                return bool(saying.waiting) or len(self._order) > 1
        return False

    def _due(self, saying: Filed, now: float) -> int:
        """How many bytes of what waits are the next file: 0: none yet."""
        size = len(saying.waiting)
        least, most = (ms * self._bytes_per_ms for ms in (self.PIECE_MS if saying.pieces else self.FIRST_MS))
        if size > most:
            return quietest(saying.waiting, least, most, self._bytes_per_ms)
        if saying.finished:
            return size
        if saying.filed_ms - saying.heard_ms > self.AHEAD_MS:
            return 0
        enough = size >= self.LIVE_PIECE_MS * self._bytes_per_ms or now - saying.since >= self.QUIET_MS / 1000
        return size - size % 2 if enough else 0

    def _can_play(self) -> bool:
        media, control = self._media(), self._control()
        return media is not None and control is not None and control.capabilities.api

    def _send(self, pcm: bytes, saying: Filed | None) -> Piece:
        if not self._can_play():
            raise NotCapable("this audio module plays only through the control leg (`socket ... async full`)")
        duration_ms = len(pcm) // self._bytes_per_ms
        piece = Piece(f"d{next(self._ids)}", pcm, duration_ms, saying, self._last, self._clock())
        self._pieces[piece.id] = self._last = piece
        self._hand_over(piece)
        self.frames_sent += piece.duration_ms // 20
        return piece

    def _hand_over(self, piece: Piece) -> None:
        media = self._media()
        if media is not None:
            piece.handed_at = self._clock()
            media.send_text(self._files.hand_over(piece.pcm, self._rate_hz, piece.id))

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

    async def _play(self, saying: Filed) -> None:
        """Play each piece when its file is there; event-lock on the switch keeps the order."""
        error: DuetoError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                while (piece := await saying.to_play.get()) is not None:
                    tasks.create_task(self._execute(piece))
        except ExceptionGroup as group:
            error = next((e for e in group.exceptions if isinstance(e, DuetoError)), LegClosed(str(group)))
        except asyncio.CancelledError:
            saying.end(Interrupted(saying.heard_ms))
            raise
        finally:
            for piece in saying.pieces:
                self._forget(piece)
            saying.end(error)

    async def _play_live(self, piece: Piece) -> None:
        try:
            await self._execute(piece)
        finally:
            self._forget(piece)

    async def _execute(self, piece: Piece) -> None:
        """Have one piece played, behind the one before it; handed over again if the switch has not got it any more."""
        for _ in range(self.TRIES):
            file = await self._announced(piece)
            if piece.after is not None:
                await asyncio.wait((piece.after.begun,))
                piece.after = None
            while self._breaking is not None and not self._breaking.done():
                await asyncio.wait((self._breaking,))
            control = self._control()
            if piece.over.done():
                return  # cut meanwhile
            if control is None:
                raise LegClosed("the control leg is gone")
            try:
                done = await control.execute("playback", file, on_start=lambda: self._begun(piece))
            except Dropped:
                return
            if done.get("Application-Response") != "FILE NOT FOUND":
                self._forget(piece)
                return
            piece.not_begun()
            if self.tape is not None:
                self.tape.cut(self._clock())
            self._hand_over(piece)
        raise CommandRefused(f"playback: FILE NOT FOUND: {file}")

    def _begun(self, piece: Piece) -> None:
        now = self._clock()
        piece.begin(now)
        if self.tape is not None:
            self.tape.heard(piece.pcm, now)

    async def _announced(self, piece: Piece) -> str:
        while True:
            done, _ = await asyncio.wait((piece.announced,), timeout=self.PLAY_EVENT_S)
            if done:
                return piece.announced.result()
            if self._media() is not None and self._clock() - piece.handed_at >= self.PLAY_EVENT_S - 0.1:
                break  # else it waits for a stream, or has only just been handed over to one
        raise ReplyTimeout("the audio module did not say where it put the audio: is it the community build?")

    def _forget(self, piece: Piece, *, heard_ms: int | None = None) -> None:
        piece.end(heard_ms)
        if self._pieces.pop(piece.id, None) is not None:
            self.pump()
        if self._last is piece:
            self._last = None

    async def _break(self, control: ControlLeg, broken: "asyncio.Future[None]", silent: Silent | None = None) -> None:
        try:
            await control.break_all()
        except DuetoError:
            pass  # the channel or the leg is gone: silence all the same
        finally:
            broken.set_result(None)
        if self.tape is not None:
            self.tape.cut(self._clock())
        if silent is not None:
            silent(self._clock(), "switch")
