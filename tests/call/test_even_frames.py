"""A sentence that is still being made leaves in even steps, whenever its pieces come."""

import itertools

from dueto.call.stream_player import StreamPlayer
from dueto.clock import Clock
from dueto.legs.ticker import Tick, Ticker
from dueto.wire.media import DIALECTS

FRAME_MS, RATE_HZ = 20, 8000


class Far:
    """A media leg that writes down when each frame was sent."""

    filler_ms = 0

    def __init__(self, clock: Clock) -> None:
        self.sent_at: list[float] = []
        self._clock = clock

    def send_audio(self, frame: bytes) -> None:
        self.sent_at.append(self._clock())

    def backlog_bytes(self) -> int:
        return 0


class HandTicker(Ticker):
    """Ticks when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[Tick] = set()

    def add(self, tick: Tick) -> None:
        self.asked.add(tick)


async def test_what_comes_between_two_ticks_waits_for_the_next_one_while_enough_is_ahead() -> None:
    now_ms = 0.0

    def clock() -> float:
        return 100.0 + now_ms / 1000

    far, ticker = Far(clock), HandTicker()
    player = StreamPlayer(RATE_HZ, DIALECTS["audio_stream-binary"], lambda: far, ticker, clock)  # type: ignore[arg-type,return-value]
    saying = player.open()
    piece = bytes(RATE_HZ // 10 * 2)
    saying.add(piece * 5)  # the first of it fills the lead at once
    lead = len(far.sent_at)
    assert lead >= 5
    for now_ms in range(1, 1001):
        if now_ms % FRAME_MS == 10:  # frames fall due at 0
            for tick in tuple(ticker.asked):
                tick(clock())
        if now_ms % 100 == 5:
            saying.add(piece)
    times = far.sent_at[lead:]
    assert len(times) >= 49
    gaps_ms = [round((after - before) * 1000) for before, after in itertools.pairwise(times)]
    assert set(gaps_ms) == {FRAME_MS}
