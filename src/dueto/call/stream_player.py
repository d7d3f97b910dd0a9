"""The agent's voice frame by frame down a stream, paced by the playout ledger."""

import asyncio
import contextlib
import math
from collections.abc import Callable

from dueto.audio import Resampler
from dueto.audio.playout import Playout, Utterance
from dueto.call.beats import OFF_BEAT_LAG_MS, PACKET_MS, Beat, Beats
from dueto.call.player import Outcome, Saying, Silent, Tape, nobody
from dueto.clock import Clock
from dueto.errors import Interrupted, LocalProtocolError
from dueto.legs.ports import MediaLeg
from dueto.legs.ticker import Ticker
from dueto.wire.media import Dialect
from dueto.wire.media.audio_fork import read_mark, set_mark

BACKLOG_EVERY_S = 0.1
"How often the kernel is asked what it still holds: a system call, so not for every frame."
CALM_S = 0.25
"""The same while it holds little and the caller's frames come evenly: a network that stalls holds them up, too, and the
first that is late has it asked. What is left is the way down alone that is stuck."""
FEW_MS = 60
"So little that it holds: not acknowledged yet, no more."
SILENT_AFTER_S = 0.02
"How long a far end that was told to fall silent still sounds (measured: within 20 ms)."
SETTLE_S = 0.06
"mod_audio_fork clears with the channel's next frame: what comes before that would be cleared too."
MARK_S = 0.5
"How much later than the ledger thinks a mark may be told: then it is taken for lost, as resampling loses them."


class _Streamed(Outcome):
    """Something being said down a stream; the ledger knows how much of it was heard."""

    def __init__(self, player: "StreamPlayer", utterance: Utterance, resampler: Resampler | None) -> None:
        super().__init__()
        self.utterance = utterance
        self.resampler = resampler
        self.mark = ""
        "The mark behind its last frame, until the far end says that it was played."
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
    """Frames down a stream, paced by the ledger. What fits within the lead goes out in the same turn of the loop.

    The far end plays a frame in the moment in which it sends one of the caller's. So while something is said those are
    counted, and a frame goes down for each: the far end then holds the same number of them whatever its phase, or ours.
    (By the ledger's clock alone it may hold two more or fewer: more that sounds after a cut, or less cover against
    stalls.) The ticker stands in where frames come in bundles, or not at all.
    """

    def __init__(
        self,
        rate_hz: int,
        dialect: Dialect,
        media: Callable[[], MediaLeg | None],
        ticker: Ticker,
        clock: Clock,
        *,
        max_live_ms: int = 400,
        beats: Beats | None = None,
    ) -> None:
        """`beats`: the caller's frames, if they are to be had."""
        self._clock = clock
        self._media = media
        self._ticker = ticker
        self._dialect = dialect
        self._rate_hz, self._down_hz = rate_hz, dialect.down_hz(rate_hz)
        self._wire_bytes_per_ms = self._down_hz * 2 / 1000 * (4 / 3 if dialect.text is not None else 1)
        self._ledger = Playout(
            self._down_hz,
            frame_ms=dialect.frame_ms,
            lead_ms=dialect.lead_ms,
            warm_up_ms=dialect.warm_up_ms,
            max_live_ms=max_live_ms,
        )
        self._lane = self._ledger.lane
        self._send_down: Callable[[bytes], None] = _nowhere
        "Where the frames of the lane go."
        self._live: Utterance | None = None
        self._live_resampler = self._resampler()
        self._sayings: list[_Streamed] = []
        self._raw = dialect.text is None and dialect.frame_ms == 20
        self._audible = True
        self._full_s = (dialect.lead_ms - OFF_BEAT_LAG_MS - 2 * dialect.frame_ms) / 1000
        "With so much ahead of the caller's ear, the lead is full but for what the ticker is about to send."
        self._backlog_at = self._calm_until = 0.0
        self._beats = beats
        self._beat = Beat(clock, self._ledger, self._turn)
        self._off_beat: Callable[[], None] | None = None
        self._paused = False
        self._settled_at = 0.0
        self._marks = 0
        self._silence: tuple[str, Silent, float] | None = None
        "The mark that tells that what was cut is silent; who wants to know; when it is by the ledger."
        self._quiet: list[asyncio.Future[None]] = []
        self._frames_sent = 0
        self._tape: tuple[Tape, Resampler] | None = None

    @property
    def frames_sent(self) -> int:
        """How many frames of 20 ms went down."""
        return self._frames_sent + self._lane.frames + self._ledger.voice_lane.taken

    @property
    def tape(self) -> Tape | None:
        """Who keeps what was heard, if somebody does."""
        return self._tape[0] if self._tape is not None else None

    @tape.setter
    def tape(self, tape: Tape | None) -> None:
        self._tape = (tape, Resampler(self._down_hz, self._rate_hz)) if tape is not None else None
        self._ledger.close_lanes()

    @property
    def generation(self) -> int:
        """Grows with every cut: what belongs to an older one must not be sent any more."""
        return self._ledger.generation

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
        saying = _Streamed(self, self._ledger.open(interruptible=interruptible), self._resampler())
        self._sayings.append(saying)
        return saying

    def add(self, saying: _Streamed, pcm: bytes) -> None:
        """More of something."""
        self._ledger.add(saying.utterance, pcm if saying.resampler is None else saying.resampler.process(pcm))
        now = self._clock()
        if self._ledger.sounds_until - now < self._full_s:
            self._pump(now)
        else:  # the ticker sends it: now, a frame would leave early, and the next tick had none
            self._wake()
        self._ticker.keep_time(now)  # what providers send comes for many calls at once

    def finish(self, saying: _Streamed) -> None:
        """Nothing more of something."""
        if saying.resampler is not None and not saying.finished:
            flush_ms = math.ceil(saying.resampler.delay_ms)
            with contextlib.suppress(LocalProtocolError):  # no more may wait: so long a sentence ends 1 ms sooner
                self._ledger.add(saying.utterance, saying.resampler.process(bytes(flush_ms * self._rate_hz // 500)))
        self._ledger.finish(saying.utterance)
        self._pump(self._clock())

    def heard_ms(self, utterance: Utterance) -> int:
        """How much of it the caller has heard by now."""
        return self._ledger.heard_ms(utterance, self._clock())

    def write(self, frame: bytes) -> None:
        """Live audio."""
        now = self._clock()
        if self._lane.takes(len(frame), now):  # nearly always
            self._send_down(frame)
        elif self._audible:
            self._write(frame, now)

    def _write(self, frame: bytes, now: float) -> None:
        """Live audio that has to ask: the first, what is early or late, and all of it where more is to be seen to."""
        live, media = self._live, self._media()
        if self._live_resampler is not None:
            frame = self._live_resampler.process(frame)
        sends = media is not None and not self._paused and now >= self._settled_at
        if live is None:
            live = self._live = self._ledger.open(live=True)
        elif sends and media is not None and self._ledger.pass_on(live, frame, now):
            self._send(media, [frame])
            if self._raw and self._live_resampler is None and self._tape is None:
                self._send_down = media.send_audio
                self._ledger.open_lane()
            return
        if self._ledger.catches_up(live, frame, now):
            return
        self._ledger.add(live, frame)
        if sends and media is not None:
            self._send(media, self._ledger.due(now))
        if media is not None and self._ledger.next_due(now) is not None:
            self._wake()

    def clear(self, *, everything: bool = True, breaks: bool = True, silent: Silent | None = None) -> int:
        """Silence: at once where the far end can be told to forget, else within the lead."""
        if not everything and any(not saying.utterance.interruptible for saying in self._sayings):
            return 0
        now, media = self._clock(), self._media()
        ends_at = self._ledger.sounds_until
        # `killAudio` would break off what the switch runs, too.
        drops = bool(self._dialect.clear_text) and (breaks or self._dialect.clear != "killAudio")
        marked = ""
        if drops and self._ledger.plays_until > now:  # be it only silence: what is said next would wait behind it
            if media is not None:
                if silent is not None and self._dialect.marks and ends_at > now:
                    marked = self._set_mark(media)
                media.send_text(self._dialect.clear_text)
            if self._dialect.clear == "killAudio":
                self._settled_at = now + SETTLE_S
            ends_at = min(ends_at, now + SILENT_AFTER_S)
        self._live = None
        cut = {utterance.id: ms for utterance, ms in self._ledger.clear(now, drops_sent=drops)}
        if self.tape is not None:
            self.tape.cut(ends_at)
        if silent is not None and marked:
            self._silence = (marked, silent, ends_at)
            self._wake()
        elif silent is not None and ends_at > now:
            silent(ends_at, "ledger")
        hit = [saying for saying in self._sayings if saying.utterance.id in cut]
        self._sayings = [saying for saying in self._sayings if saying not in hit]  # all sent: it will be heard
        for saying in hit:
            saying.end(Interrupted(cut[saying.utterance.id]))
        return sum(cut[saying.utterance.id] for saying in hit)

    def stream_lost(self, *, stopped: bool) -> None:
        """What the far end took along unplayed waits for the next stream."""
        for saying in self._sayings:
            saying.mark = ""  # nobody tells of it any more
        if stopped or not self._dialect.plays_on:
            now = self._clock()
            self._ledger.far_end_lost(now)
            if self.tape is not None:
                self.tape.cut(now)

    def text(self, text: str) -> bool:
        """A text of the module: a mark of ours may have been played, or cleared. Returns whether it is one."""
        mark = read_mark(text) if self._dialect.marks else None
        if mark is None:
            return False
        if self._silence is not None and self._silence[0] == mark.name:
            _, silent, _ = self._silence
            self._silence = None
            silent(self._clock(), "marks")
        for saying in self._sayings:
            if saying.mark == mark.name:
                saying.mark = ""
        self._pump(self._clock())
        return True

    def end(self) -> None:
        """The call is over: no mark comes any more."""
        if self._silence is not None:
            _, silent, ends_at = self._silence
            self._silence = None
            silent(ends_at, "ledger")

    def release(self) -> None:
        """Nothing of the call goes on: let go of it."""
        self._media, self._beats, self._send_down = nobody, None, _nowhere
        self._beat.release()

    def stream_came(self) -> None:
        """A new stream: go on."""
        self._settled_at = 0.0
        self._wake()

    def idle(self) -> bool:
        """Whether the caller has heard all there was."""
        return self._ledger.idle(self._clock())

    async def quiet(self) -> None:
        """Wait until `idle`."""
        if not self.idle():
            waiter = asyncio.get_running_loop().create_future()
            self._quiet.append(waiter)
            self._wake()
            await waiter

    def call_changed(self, audible: bool) -> None:
        """From now on every frame has to ask again."""
        self._audible = audible
        self._send_down = _nowhere
        self._ledger.close_lanes()

    def pause(self, paused: bool) -> None:
        """Keep the queue, send nothing."""
        self._paused = paused
        self._ledger.close_lanes()
        if not paused:
            self._wake()

    def _end_live(self) -> None:
        if self._live is not None:
            self._ledger.finish(self._live)
            self._live = None

    def _wake(self) -> None:
        """There is something to do, now and again."""
        self._ticker.add(self._beat.tick)
        if self._beats is not None and self._off_beat is None:
            self._off_beat = self._beats(self._beat.take)
            self._beat.unplayed_ms = max(self._ledger.plays_until - self._clock(), 0.0) * 1000

    def _turn(self, now: float) -> bool:
        """A beat, or the ticker: send what is due. Returns whether there is more to come."""
        media, backlog_ms = self._media(), 0.0
        if media is not None and now - self._backlog_at >= BACKLOG_EVERY_S:
            self._backlog_at = now
            backlog_ms = media.backlog_bytes() / self._wire_bytes_per_ms
            self._calm_until = now + (CALM_S if backlog_ms <= FEW_MS else BACKLOG_EVERY_S)
        if media is not None and self._raw and len(self._sayings) == 1 and not self._more_to_see_to(now):
            frame = self._ledger.carry_on(now, backlog_ms, lag_ms=self._beat.lag_ms(now))
            if frame is not None:  # nearly always
                media.send_audio(frame)
                self._frames_sent += 1
                self._beat.unplayed_ms += PACKET_MS
                self._beat.open_lane(now, media.send_audio, self._calm_until)
                return True
        return self._pump(now, backlog_ms, ticks=True)

    def _more_to_see_to(self, now: float) -> bool:
        """Whether there is more than frames to be sent; or they may not be."""
        waits = self._quiet or self._silence is not None or self._tape is not None
        return bool(waits or self._paused or now < self._settled_at)

    def _pump(self, now: float, backlog_ms: float = 0.0, *, ticks: bool = False) -> bool:
        media = self._media()
        if media is not None and not self._paused and now >= self._settled_at:
            begins = self._ledger.plays_until <= now
            frames = self._ledger.due(
                now,
                backlog_ms,  # counts once, when it was measured
                ticks=ticks,
                filler_ms=media.filler_ms,
                lag_ms=PACKET_MS if begins else self._beat.lag_ms(now),
            )
            if begins and frames:
                self._beat.begins(now, media.filler_ms, beats=self._beats is not None)
            self._beat.unplayed_ms += len(frames) * self._dialect.frame_ms
            self._send(media, frames)
            if frames and self._dialect.marks:
                self._mark_the_last(media)
        for saying in tuple(self._sayings):
            ends_at = self._ledger.heard_at(saying.utterance)
            if ends_at is not None and ends_at <= now and (not saying.mark or ends_at + MARK_S <= now):
                self._sayings.remove(saying)
                saying.end()
        if self._silence is not None and self._silence[2] + MARK_S <= now:
            _, silent, ends_at = self._silence
            self._silence = None
            silent(ends_at, "ledger")
        if self._quiet and (self._ledger.idle(now) or media is None):
            for waiter in self._quiet:
                if not waiter.done():
                    waiter.set_result(None)
            self._quiet.clear()
        busy = bool(self._sayings or self._quiet or self._silence) or self._ledger.next_due(now) is not None
        if busy:
            self._wake()
        elif self._off_beat is not None:
            self._off_beat()
            self._off_beat = None
        return busy

    def _send(self, media: MediaLeg, frames: list[bytes]) -> None:
        if self._dialect.text is None:
            for frame in frames:
                media.send_audio(frame)
        elif frames:
            media.send_text(self._dialect.text(b"".join(frames)))
        self._frames_sent += len(frames) * self._dialect.frame_ms // 20
        if self._tape is not None and frames:  # they follow each other without a gap
            begins_at = self._ledger.plays_until - len(frames) * self._dialect.frame_ms / 1000
            tape, resampler = self._tape
            tape.heard(resampler.process(b"".join(frames)), begins_at)

    def _mark_the_last(self, media: MediaLeg) -> None:
        """Behind the last frame there is, and only there: with more to come a mark is a sample among the others."""
        last = self._sayings[-1] if self._sayings else None
        if last is None or last.mark or self._ledger.waiting_ms or self._ledger.heard_at(last.utterance) is None:
            return
        last.mark = self._set_mark(media)

    def _set_mark(self, media: MediaLeg) -> str:
        self._marks += 1
        name = f"m{self._marks}"
        media.send_text(set_mark(name))
        return name

    def _resampler(self) -> Resampler | None:
        return Resampler(self._rate_hz, self._down_hz) if self._rate_hz != self._down_hz else None


def _nowhere(frame: bytes) -> None:
    pass
