"""Something that becomes so, and who waits for it."""

import asyncio


class Latch:
    """An `asyncio.Event` that weighs nothing until somebody waits for it: of a call's most are never waited for."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        """Whether it is so."""
        return self._is_set

    def set(self) -> None:
        """It is so: wake all who wait."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    def clear(self) -> None:
        """It is no longer so."""
        self._is_set = False
        if self._event is not None:
            self._event.clear()

    async def wait(self) -> None:
        """Wait until it is so."""
        if not self._is_set:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
