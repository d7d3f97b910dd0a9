"""The agent's voice frame by frame down a stream, paced by the playout ledger."""

import asyncio
from collections.abc import Callable

from dueto.audio.playout import Playout, Utterance
from dueto.call.player import Outcome, Saying, Silent, Tape
from dueto.clock import Clock
from dueto.errors import Interrupted
from dueto.legs.ports import MediaLeg
from dueto.legs.ticker import Ticker
from dueto.wire.media import Dialect

FRAME_S = 0.02
BACKLOG_EVERY_S = 0.1
"How often the kernel is asked what it still holds: a system call, so not for every frame."


class _Streamed(Outcome):
    """Something being said down a stream; the ledger knows how much of it was heard."""

    def __init__(self, player: "StreamPlayer", utterance: Utterance) -> None:
        super().__init__()
        self.utterance = utterance
        self._player = player

    @property
    def interruptible(self) -> bool:
        """Whether a caller who speaks may cut it."""
        return self.utterance.interruptible

    @property
    def finished(self) -> bool:
        """Whether nothing more comes."""
        return self.utterance.finished or self.utterance.cleared

    def add(self, pcm: bytes) -> None:
        """Say more."""
        if not self.utterance.cleared:
            self._player.add(self, pcm)

    def finish(self) -> None:
        """Nothing more comes."""
        self._player.finish(self)

    @property
    def heard_ms(self) -> int:
        """How much of it the caller has heard by now."""
        return self._player.heard_ms(self.utterance)

    @property
    def queued_ms(self) -> int:
        """How much of it there is so far."""
        return self.utterance.queued_ms

    @property
    def began_at(self) -> float | None:
        """When the caller hears its first sound."""
        return self.utterance.began_at


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
        self._sayings: list[_Streamed] = []
        self._backlog_at = 0.0
        self._paused = False
        self._quiet: list[asyncio.Future[None]] = []
        self.frames_sent = 0
        self.tape: Tape | None = None

    @property
    def underruns(self) -> int:
        """How often the caller heard a gap in the middle of something."""
        return self._ledger.underruns

    @property
    def dropped_ms(self) -> int:
        """How much live audio was dropped to stay live."""
        return self._ledger.dropped_ms

    def open(self, *, interruptible: bool = True) -> Saying:
        """Begin to say something."""
        self._end_live()
        saying = _Streamed(self, self._ledger.open(interruptible=interruptible))
        self._sayings.append(saying)
        return saying

    def add(self, saying: _Streamed, pcm: bytes) -> None:
        """More of something."""
        self._ledger.add(saying.utterance, pcm)
        self._pump(self._clock())

    def finish(self, saying: _Streamed) -> None:
        """Nothing more of something."""
        self._ledger.finish(saying.utterance)
        self._pump(self._clock())

    def heard_ms(self, utterance: Utterance) -> int:
        """How much of it the caller has heard by now."""
        return self._ledger.heard_ms(utterance, self._clock())

    def write(self, frame: bytes) -> None:
        """Live audio."""
        live, now, media = self._live, self._clock(), self._media()
        if live is None:
            live = self._live = self._ledger.open(live=True)
        elif media is not None and not self._paused and self._ledger.pass_on(live, frame, now):
            media.send_audio(frame)
            self.frames_sent += 1
            if self.tape is not None:
                self.tape.heard(frame, self._ledger.sounds_until - FRAME_S)
            return
        if self._ledger.catches_up(live, frame, now):
            return
        self._ledger.add(live, frame)
        if media is None or self._paused:
            return
        self._send(media, self._ledger.due(now))
        if self._ledger.next_due(now) is not None:
            self._ticker.add(self._tick)

    def clear(self, *, everything: bool = True, breaks: bool = True, silent: Silent | None = None) -> int:
        """Silence within the lead: a stream dialect without a clear plays what was sent."""
        if not everything and any(not saying.utterance.interruptible for saying in self._sayings):
            return 0
        now = self._clock()
        self._live = None
        cut = {utterance.id: ms for utterance, ms in self._ledger.clear(now, drops_sent=False)}
        if self.tape is not None:
            self.tape.cut(self._ledger.sounds_until)
        if silent is not None and (ends_at := self._ledger.sounds_until) > now:
            silent(ends_at, "ledger")
        hit = [saying for saying in self._sayings if saying.utterance.id in cut]
        self._sayings = [saying for saying in self._sayings if saying not in hit]  # all sent: it will be heard
        for saying in hit:
            saying.end(Interrupted(cut[saying.utterance.id]))
        return sum(cut[saying.utterance.id] for saying in hit)

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

    def _send(self, media: MediaLeg, frames: list[bytes]) -> None:
        for frame in frames:
            media.send_audio(frame)
        self.frames_sent += len(frames)
        if self.tape is not None and frames:  # they follow each other without a gap
            self.tape.heard(b"".join(frames), self._ledger.sounds_until - len(frames) * FRAME_S)

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
            self._send(media, self._ledger.due(now, backlog_ms))  # a backlog counts once, when it was measured
        for saying in tuple(self._sayings):
            ends_at = self._ledger.heard_at(saying.utterance)
            if ends_at is not None and ends_at <= now:
                self._sayings.remove(saying)
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
