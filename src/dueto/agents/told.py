"""What a provider told and its agent has not taken yet: in order, bounded, ended by itself or by a failure."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from dueto.agents.ports import ProviderEvent, Spoke
from dueto.errors import ProviderFailed

MAX_WAITING_EVENTS: Final = 4000
MAX_WAITING_BYTES: Final = 32 << 20
"Of speech: eleven minutes at 24 kHz. Providers send far faster than anybody listens; the agent takes it at once."


class Told:
    """Between a provider's wire and the agent: `put` in the turn of the loop in which it came, read by `events`."""

    __slots__ = ("_events", "_failure", "_over", "_provider", "_speech", "_speech_bytes", "_waiter")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._events: deque[ProviderEvent] = deque()
        self._speech: Callable[[Spoke], bool] | None = None
        "Who is asked first, while the reader has taken all there was."
        self._speech_bytes = 0
        self._over = False
        self._failure: ProviderFailed | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: ProviderEvent) -> None:
        """Keep an event. Nothing more comes after `end` or `fail`. Where too much waits the provider has failed."""
        if self._over:
            return
        if isinstance(event, Spoke):
            if self._speech is not None and self._speech(event):
                return
            self._speech_bytes += len(event.pcm)
        self._events.append(event)
        if len(self._events) > MAX_WAITING_EVENTS or self._speech_bytes > MAX_WAITING_BYTES:
            self.fail(ProviderFailed("protocol", f"{self._provider} sends more than anybody can take"))
        else:
            self._wake()

    def end(self) -> None:
        """The provider ended the conversation of its own accord; what waits is still read."""
        self._over = True
        self._wake()

    def fail(self, failure: ProviderFailed) -> None:
        """It can't go on: what waits is still read, then this is raised. The first failure counts."""
        if not self._over:
            self._over, self._failure = True, failure
            self._wake()

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self._over

    async def events(self, speech: Callable[[Spoke], bool] | None = None) -> AsyncIterator[ProviderEvent]:
        """Yield the events. One reader. `speech`: as in `VoiceProvider.events`. Raises: ProviderFailed."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Spoke):
                    self._speech_bytes -= len(event.pcm)
                yield event
            if self._failure is not None:
                raise self._failure
            if self._over:
                return
            self._waiter, self._speech = asyncio.get_running_loop().create_future(), speech
            try:
                await self._waiter
            finally:
                self._waiter = self._speech = None

    def _wake(self) -> None:
        self._speech = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
