"""What the caller says, on its way to whoever listens: frames of 20 ms, at the rate each listener asked for."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial

from dueto.audio.resample import Resampler
from dueto.wire.media import StreamRequest

Sink = Callable[[bytes], object]
FRAME_MS = 20


class Hearing:
    """Cuts the stream's messages into frames and hands each to all sinks, in the same turn of the loop.

    A `legs.ports.Listener`: of a message that is a frame as it stands the leg itself does what `message` would do.
    """

    def __init__(self, request: StreamRequest) -> None:
        self._stereo = request.channels == 2
        self._message_bytes = request.rate_hz * FRAME_MS // 1000 * 2 * request.channels
        self.frame_bytes = -1 if self._stereo else self._message_bytes
        self.frames = 0
        self.take: Sink = partial(_each, ())
        self.rate_hz = request.rate_hz
        self.odd_messages = 0
        "Messages that were no whole number of frames: the stream runs at another rate than its URL said."
        self._rest = b""
        self._sinks: tuple[Sink, ...] = ()

    @property
    def heard_ms(self) -> int:
        """How much of the caller came so far: the clock that Speech events count on."""
        return self.frames * FRAME_MS

    def add(self, sink: Sink, rate_hz: int) -> Callable[[], None]:
        """Hand every frame to `sink`, resampled where need be; call what is returned to stop."""
        entry = sink if rate_hz == self.rate_hz else _resampled(sink, Resampler(self.rate_hz, rate_hz))
        self._hand_to(*self._sinks, entry)

        def remove() -> None:
            self._hand_to(*(other for other in self._sinks if other is not entry))

        return remove

    def release(self) -> None:
        """Nobody listens any more."""
        self._hand_to()

    def message(self, data: bytes) -> None:
        """Take one binary message of the stream."""
        if len(data) == self.frame_bytes:
            self.frames += 1
            self.take(data)
            return
        if len(data) % self._message_bytes:
            self.odd_messages += 1
        data = self._rest + data
        step = self._message_bytes
        whole = len(data) - len(data) % step
        self._rest = data[whole:]
        self.frame_bytes = -1 if self._rest or self._stereo else step
        for at in range(0, whole, step):
            self._frame(data[at : at + step])

    def _frame(self, frame: bytes) -> None:
        self.frames += 1
        if self._stereo:  # samples interleaved, the caller's first
            frame = memoryview(frame).cast("h")[::2].tobytes()
        self.take(frame)

    def _hand_to(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self.take = sinks[0] if len(sinks) == 1 else partial(_each, sinks)


def _each(sinks: tuple[Sink, ...], frame: bytes) -> None:
    for sink in sinks:
        sink(frame)


def _resampled(sink: Sink, resampler: Resampler) -> Sink:
    process = resampler.process
    return lambda frame: sink(process(frame))


class AudioQueue:
    """Frames for a reader that may fall behind: beyond `max_lag_ms` the OLDEST go, counted."""

    def __init__(self, max_lag_ms: int) -> None:
        self._frames: deque[bytes] = deque()
        self._most = max(max_lag_ms // FRAME_MS, 1)
        self._ready = asyncio.Event()
        self._ended = False
        self.dropped_ms = 0

    def put(self, frame: bytes) -> None:
        """Take a frame."""
        if len(self._frames) >= self._most:
            self._frames.popleft()
            self.dropped_ms += FRAME_MS
        self._frames.append(frame)
        self._ready.set()

    def end(self) -> None:
        """Nothing more comes; what waits can still be read."""
        self._ended = True
        self._ready.set()

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the frames until the end."""
        while True:
            while self._frames:
                yield self._frames.popleft()
            if self._ended:
                return
            self._ready.clear()
            await self._ready.wait()
