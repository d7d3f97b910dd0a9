"""One call's recording: what the caller said, what he heard of us, and what happened, on one time line."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dueto.audio.pcm import tone
from dueto.audio.tracks import TwoTracks
from dueto.call.recorder import Recorder, Shelf
from dueto.errors import DuetoError, NotCapable

if TYPE_CHECKING:
    from pathlib import Path

    from dueto.call.session import Session

EVERY_S: Final = 0.5
"How often it is written: a crash loses no more than this and `BEHIND_S`."
BEHIND_S: Final = 0.25
"How far behind the present is written: a caller's frame may still come."
PATIENCE_S: Final = 10.0
"How long the disk may take to make the files, or to write the end."
MAX_LINES: Final = 1000
"Events that may wait for one write."
BEEP_HZ, BEEP_S = 1400, 0.4
FRAME_S: Final = 0.02


class Recording:
    """A recording that runs. It ends with the call, or by `stop`; made by `Call.start_recording`, or by the rules."""

    def __init__(self, session: "Session", recorder: Recorder) -> None:
        house, voice = session.house, session.voice
        self._session = session
        self._recorder = recorder
        self._clock = house.clock
        self._start_s = self._written_s = self._end_s = house.clock()
        self._tracks = TwoTracks(session.rate_hz, self._start_s)
        self._shelf: Shelf | None = None
        self._lines: list[dict[str, Any]] = []
        self._paused = self._ended = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop_hearing = voice.add_sink(self._caller, session.rate_hz)
        if voice.player is not None:
            voice.player.tape = self
        recorder.open(session.unique_id, session.rate_hz, house.local_time(), self._opened)
        house.ticker.add(self._tick)

    @property
    def path(self) -> "Path | None":
        """Where the audio goes; the events are beside it, as `.jsonl`. None until the file is there."""
        return self._shelf.path if self._shelf is not None else None

    @property
    def paused(self) -> bool:
        """Whether silence is being written in place of the call."""
        return self._paused

    def pause(self) -> None:
        """From now on silence is written, and of what happens no more than its name: a card number is being said."""
        if not self._paused:
            self._write(self._clock())
            self.note("recording_paused", {})
            self._paused = True

    def resume(self) -> None:
        """Go on."""
        if self._paused:
            self._write(self._clock())
            self._paused = False
            self.note("recording_resumed", {})

    async def stop(self) -> "Path | None":
        """End it; returns where it is, once it is written. None: it failed, which is in the log."""
        self.finish()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(self._over)
        except TimeoutError:
            self._failed(TimeoutError("the disk does not answer"))
        return self.path

    # -- the session's side

    def note(self, event: str, fields: Mapping[str, object]) -> None:
        """Something happened."""
        if self._ended or len(self._lines) >= MAX_LINES:
            return
        shown = {} if self._paused else self._recorder.rules.redact(fields)
        at_ms = round((self._clock() - self._start_s) * 1000)
        self._lines.append({"at_ms": at_ms, "event": event, **shown})

    def heard(self, pcm: bytes, at: float) -> None:
        """The caller hears this from `at` on."""
        self._tracks.agent(pcm, at)

    def cut(self, at: float) -> None:
        """From `at` on he does not."""
        self._tracks.cut(at)

    def finish(self) -> None:
        """The call is over, or it was stopped: write what there is."""
        if not self._ended:
            self._ended = True
            self._end_s = self._clock()
            self._let_go()
            self._close()

    def announcement(self) -> None:
        """Let the caller know, before anything else is said."""
        session, text = self._session, self._recorder.rules.announce
        if not text:
            return
        try:
            saying = session.voice.utter(interruptible=False)
        except NotCapable:
            return
        if text == "beep":
            saying.add(tone(session.rate_hz, BEEP_S * 1000, BEEP_HZ))
            saying.finish()
            return

        async def speak() -> None:
            try:
                if session.house.mouth is None:
                    raise NotCapable('[recording] announce: there is no mouth to say it; write "beep"')
                saying.add(await session.house.mouth.speak(text, session.rate_hz))
            except DuetoError as error:
                session.journal("announcement_failed", error=str(error))
            finally:
                saying.finish()

        session.tasks.start("announcement", speak())

    # -- inside

    def _caller(self, frame: bytes) -> None:
        self._tracks.caller(frame, self._clock() - FRAME_S)

    def _tick(self, now: float) -> bool:
        if self._ended:
            return False
        if self._shelf is None and now - self._start_s > PATIENCE_S:
            self._failed(TimeoutError("the disk does not answer"))
        elif now - self._written_s >= EVERY_S:
            self._write(now - BEHIND_S)
        return not self._ended

    def _write(self, until_s: float) -> None:
        """Hand over what lies before `until_s`; while the files are not there yet it waits here."""
        if self._shelf is None:
            return
        self._written_s = self._clock()
        pcm, lines = self._tracks.take(until_s), self._lines
        self._lines = []
        if self._paused:
            pcm = bytes(len(pcm))
        try:
            self._recorder.write(self._shelf, pcm, lines, self._written)
        except NotCapable as error:
            self._failed(error)

    def _close(self) -> None:
        if self._shelf is not None:
            self._write(self._end_s)
        if self._shelf is not None:  # writing has not failed
            self._recorder.close(self._shelf, self._closed)

    def _opened(self, result: Shelf | Exception) -> None:
        if isinstance(result, Exception):
            self._failed(result)
            return
        if self._over.done():  # given up meanwhile
            self._recorder.close(result, lambda result: None)
            return
        self._shelf = result
        self._session.journal("recording", path=str(result.path))
        if self._ended:  # the call was shorter than the disk is slow
            self._close()

    def _written(self, result: Exception | None) -> None:
        if result is not None:
            self._failed(result)

    def _closed(self, result: Exception | None) -> None:
        if result is not None:
            self._session.journal("recording_failed", error=f"{type(result).__name__}: {result}")
        if not self._over.done():
            self._over.set_result(None)

    def _failed(self, error: Exception) -> None:
        """The call goes on without it."""
        if self._over.done():
            return
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            self._recorder.close(shelf, lambda result: None)
        if not self._ended:
            self._ended = True
            self._let_go()
        self._closed(error)

    def _let_go(self) -> None:
        session = self._session
        self._stop_hearing()
        if session.voice.player is not None and session.voice.player.tape is self:
            session.voice.player.tape = None
        if session.recording is self:
            session.recording = None
