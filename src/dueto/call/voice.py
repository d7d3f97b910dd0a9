"""The audio of one call: what the caller says on its way up, what the agent says on its way down."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from dueto.call.file_player import FilePlayer
from dueto.call.hearing import AudioQueue, Hearing
from dueto.call.part import Part
from dueto.call.phase import Phase
from dueto.call.player import Player, Saying
from dueto.call.ports import Ear
from dueto.call.stream_player import StreamPlayer
from dueto.errors import NotCapable
from dueto.legs.ports import DEAF, MediaLeg
from dueto.wire.media import AUDIO_FORK, AUDIO_STREAM

if TYPE_CHECKING:
    from dueto.call.session import Session


class Voice(Part):
    """Begins with the first stream and outlives its losses: what was queued for the caller waits for the next one."""

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self.hearing: Hearing | None = None
        self.player: Player | None = None
        self._queues: list[AudioQueue] = []
        self._ears: list[Ear] = []
        self._dropped_ms = 0
        self._last = b""
        self.heard_ms = 0
        "Of what was said and is over."

    def begin(self, leg: MediaLeg) -> None:
        """The first stream is here: from its URL follow rate and mix, from its dialect the way down."""
        session, ticker, clock = self._session, self._session.house.ticker, self._session.house.clock
        hearing = self.hearing = Hearing(leg.request)
        if leg.dialect.files is not None:
            rules = session.house.rules
            self.player = FilePlayer(
                session.rate_hz,
                leg.dialect.files,
                session.media_now,
                session.control_now,
                ticker,
                clock,
                session.tasks.start,
                control_s=rules.warn_after_s if rules.control_expected else 0.0,
            )
        else:
            lag_ms = session.house.rules.max_lag_ms
            self.player = StreamPlayer(
                session.rate_hz,
                leg.dialect,
                session.media_now,
                ticker,
                clock,
                max_live_ms=lag_ms,
                beats=lambda sink: hearing.add(sink, hearing.rate_hz),
            )

    def call_changed(self, audible: bool) -> None:
        """Have every frame go where the call's state wants it, so that none has to ask.

        `audible`: whether caller and agent hear each other; not while bridged or leaving, nor after the end.
        """
        media = self._session.media
        if media is not None:
            media.listener = self.hearing if audible and self.hearing is not None else DEAF
        if self.player is not None:
            self.player.call_changed(audible)

    # -- up

    def add_sink(self, sink: Callable[[bytes], object], rate_hz: int) -> Callable[[], None]:
        """Hand every frame to `sink`; call what is returned to stop. Raises: NotCapable: no media leg yet."""
        if self.hearing is None:
            raise NotCapable("there is no media leg yet")
        return self.hearing.add(sink, rate_hz)

    def open_queue(self) -> AudioQueue:
        """A queue for a reader who may fall behind; it ends with the call."""
        queue = AudioQueue(self._session.house.rules.max_lag_ms)
        if self._session.ended:
            queue.end()
        self._queues.append(queue)
        return queue

    def close_queue(self, queue: AudioQueue) -> None:
        """The reader is gone."""
        if queue in self._queues:
            self._queues.remove(queue)
            self._dropped_ms += queue.dropped_ms

    def attach(self, ear: Ear) -> None:
        """Let an ear listen; it is closed with the call."""
        ear.attach(self._session.seat.tell)
        self.add_sink(ear.hear, ear.rate_hz)
        self._ears.append(ear)

    # -- down

    def write(self, frame: bytes) -> None:
        """Live audio down; nothing while nobody can hear it."""
        if self.player is not None:
            self.player.write(frame)

    def utter(self, *, interruptible: bool = True) -> Saying:
        """Begin to say something, at the call's rate. Raises: NotCapable: nobody could hear it."""
        session = self._session
        if self.player is None:
            raise NotCapable("there is no media leg yet")
        if session.state.phase is Phase.BRIDGED:
            raise NotCapable("the caller talks to somebody else, and hears nothing of us")
        saying = self.player.open(interruptible=interruptible)

        def note() -> None:
            ms, heard_ms = saying.queued_ms, saying.heard_ms
            self.heard_ms += heard_ms
            session.journal("said", ms=ms, heard_ms=heard_ms, interrupted=saying.interrupted)

        saying.on_end = note
        return saying

    async def say(self, pcm: bytes, *, interruptible: bool = True) -> None:
        """Say L16 mono at the call's rate and return when it was heard, in any phase in which the caller hears us."""
        saying = self.utter(interruptible=interruptible)
        self._last = pcm
        saying.add(pcm)
        saying.finish()
        try:
            await saying.heard()
        except asyncio.CancelledError:
            self.silence()
            raise

    async def say_again(self) -> None:
        """Say once more what was said last. Raises: as `say`."""
        if self._last:
            await self.say(self._last)

    def interrupt(self, by: str, decided_at: float | None = None, *, everything: bool = False) -> int:
        """Cut what is being said and may be cut (or everything); return the ms of it that were heard.

        `by` says what interrupts, for the journal; `decided_at` since when it was known, on the call's clock.
        """
        if self.player is None:
            return 0
        session = self._session
        since = session.house.clock() if decided_at is None else decided_at

        def silent(at: float, known_by: str) -> None:
            session.journal("barge_in", by=by, silence_ms=round((at - since) * 1000), known_by=known_by)

        return self.player.clear(everything=everything, breaks=self._breaks, silent=silent)

    def silence(self) -> None:
        """Cut everything that is being said, interruptible or not."""
        if self.player is not None:
            self.player.clear(breaks=self._breaks)

    @property
    def _breaks(self) -> bool:
        """Whether `uuid_break` may be used: it would end a bridge too."""
        return self._session.state.phase is not Phase.BRIDGED

    async def quiet(self) -> None:
        """Wait until the caller has heard all that was said, or can hear no more."""
        if self.player is not None:
            await self.player.quiet()

    def pause(self, paused: bool) -> None:
        """Hold: nothing goes down until it is over."""
        if self.player is not None:
            self.player.pause(paused)

    def unbridged(self) -> None:
        """The caller is the agent's again; what the switch still has of before the bridge is not for his ears."""
        if isinstance(self.player, FilePlayer):
            self.player.unbridged()

    def written(self, subclass: str, body: str) -> None:
        """An event of the audio module: it may have written a file for us."""
        finder = self._session.house.finder
        if isinstance(self.player, FilePlayer):
            self.player.written(subclass, body)
        elif self.player is not None and finder is not None:
            for dialect in (AUDIO_STREAM, AUDIO_FORK):
                if dialect.files is not None and subclass == dialect.files.event:
                    finder.contradicted(self._session, dialect)

    def text(self, text: str) -> bool:
        """A text of the audio module. Returns whether it was the player's."""
        return self.player is not None and self.player.text(text)

    def stream_lost(self, *, stopped: bool) -> None:
        """The stream is gone; what it had not played waits for the next one."""
        if self.player is not None:
            self.player.stream_lost(stopped=stopped)

    def stream_came(self) -> None:
        """Another stream in place of the first."""
        if self.player is not None:
            self.player.stream_came()

    @property
    def generation(self) -> int:
        """Grows with every cut of what goes down a stream."""
        return self.player.generation if isinstance(self.player, StreamPlayer) else 0

    @property
    def in_the_switch(self) -> bool:
        """Whether the switch itself is playing something for us."""
        return isinstance(self.player, FilePlayer) and not self.player.idle()

    # -- the end

    def end(self) -> None:
        """The call is over: readers come to their end, ears give back what they borrowed."""
        if self.player is not None:
            self.player.end()
        for queue in self._queues:
            queue.end()
        for ear in self._ears:
            self._session.tasks.start("ear", ear.aclose())
        self._ears.clear()

    def release(self) -> None:
        """Nothing of the call goes on: undo the circles in which its objects hold each other."""
        if self.hearing is not None:
            self.hearing.release()
        if self.player is not None:
            self.player.release()

    def figures(self) -> dict[str, object]:
        """What went through, for the journal."""
        hearing, player = self.hearing, self.player
        return {
            "frames_up": hearing.frames if hearing is not None else 0,
            "frames_down": player.frames_sent if player is not None else 0,
            "dropped_ms": self._dropped_ms
            + sum(queue.dropped_ms for queue in self._queues)
            + (player.dropped_ms if player is not None else 0),
            "odd_messages": hearing.odd_messages if hearing is not None else 0,
            "underruns": player.underruns if player is not None else 0,
        }
