"""A provider under test: what it told, in order, and a caller for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from tests.agents.fakes.sockets import tone

from dueto.agents.ports import Line, ProviderEvent, Spoke, Transcribed, VoiceProvider
from dueto.errors import ProviderFailed

Kind = TypeVar("Kind", bound=ProviderEvent)


class Talking:
    """Reads a provider's events while a test runs."""

    def __init__(self, provider: VoiceProvider) -> None:
        self.provider = provider
        self.events: list[ProviderEvent] = []
        self.failure: ProviderFailed | None = None
        self.over = False
        self.said = bytearray()
        "All that the caller's telephone sent."
        self._changed = asyncio.Condition()

    async def read(self) -> None:
        try:
            async for event in self.provider.events():
                self.events.append(event)
                async with self._changed:
                    self._changed.notify_all()
        except ProviderFailed as failure:
            self.failure = failure
        self.over = True
        async with self._changed:
            self._changed.notify_all()

    async def until(self, found: Callable[[], object]) -> None:
        """Wait until that holds; it is asked after each event."""
        async with asyncio.timeout(15), self._changed:
            await self._changed.wait_for(lambda: found() or self.over)
        assert found(), (self.events[-5:], self.failure)

    async def caught_up(self) -> None:
        """Wait until all that the provider has to tell at this moment was read."""
        read = -1
        while read != len(self.events):
            read = len(self.events)
            for _ in range(3):  # an event, the lock, whoever waits for it
                await asyncio.sleep(0)

    async def saw(self, kind: type[Kind], times: int = 1) -> Kind:
        """Wait for the event of that kind; return it."""
        await self.until(lambda: len(self.all(kind)) >= times)
        return self.all(kind)[times - 1]

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    def spoken(self, item_id: str = "") -> bytes:
        """Return what it said, of one item or altogether."""
        return b"".join(event.pcm for event in self.all(Spoke) if item_id in ("", event.item_id))

    @property
    def lines(self) -> list[Line]:
        return [event.line for event in self.all(Transcribed)]

    def speaks(self, ms: int, *, quiet_ms: int = 0) -> None:
        """The caller says something, all at once, and is quiet."""
        rate_hz = self.provider.hears_hz
        pcm = tone(ms, rate_hz) + bytes(2 * rate_hz * quiet_ms // 1000)
        step = rate_hz // 25
        for at in range(0, len(pcm), step):
            self.said += pcm[at : at + step]
            self.provider.hear(pcm[at : at + step])

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """The line stays open: silence, a frame every 20 ms of the real clock."""

        async def line() -> None:
            frame = bytes(self.provider.hears_hz // 25)
            while True:
                self.said += frame
                self.provider.hear(frame)
                await asyncio.sleep(0.02)

        task = asyncio.ensure_future(line())
        try:
            yield
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def talking(provider: VoiceProvider) -> AsyncIterator[Talking]:
    """Read `provider`, and close it at the end."""
    told = Talking(provider)
    reading = asyncio.ensure_future(told.read())
    try:
        yield told
    finally:
        await provider.aclose()
        await reading
