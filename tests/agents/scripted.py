"""A voice provider in memory that does what a script says, and remembers what it was told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from dueto.agents.ports import CallerBegan, CallerStopped, Opening, ProviderEvent, Spoke, SpokeLast
from dueto.agents.told import Told
from dueto.errors import ProviderFailed
from dueto.sim import tone

Script = Callable[["ScriptedProvider"], Awaitable[None]]


class ScriptedProvider:
    """`connect` makes one, which runs its script until the agent closes it."""

    def __init__(
        self,
        script: Script,
        *,
        hears_hz: int = 16000,
        speaks_hz: int = 24000,
        connect_s: float = 0.0,
        refuses: ProviderFailed | None = None,
    ) -> None:
        self.hears_hz = hears_hz
        self.speaks_hz = speaks_hz
        self.dropped_ms = 0
        self.opening: Opening | None = None
        self.log: list[tuple[Any, ...]] = []
        "What it was told, by name, without the audio."
        self.heard = bytearray()
        self.closed = False
        self.changed = asyncio.Event()
        self._script = script
        self._connect_s = connect_s
        self._refuses = refuses
        self._told = Told("Acme")
        self._running: asyncio.Task[None] | None = None

    async def connect(self, opening: Opening) -> "ScriptedProvider":
        await asyncio.sleep(self._connect_s)
        if self._refuses is not None:
            raise self._refuses
        self.opening = opening
        self._told = Told("Acme")
        self._running = asyncio.ensure_future(self._run())
        return self

    async def _run(self) -> None:
        try:
            await self._script(self)
        except ProviderFailed as failure:
            self._told.fail(failure)

    # -- for scripts

    def tell(self, event: ProviderEvent) -> None:
        self._told.put(event)

    def end(self) -> None:
        self._told.end()

    async def says(self, item_id: str, ms: int, *, pace: float = 0.0, last: bool = True) -> None:
        """Say a tone of `ms`; `pace`: seconds per second of it."""
        pcm = tone(self.speaks_hz, ms / 1000, 440.0)
        step = self.speaks_hz // 5  # 100 ms
        for at in range(0, len(pcm), step):
            self.tell(Spoke(item_id, pcm[at : at + step]))
            await asyncio.sleep(0.1 * pace)
        if last:
            self.tell(SpokeLast(item_id))

    async def caller_says(self, seconds: float = 0.5) -> None:
        self.tell(CallerBegan())
        await asyncio.sleep(seconds)
        self.tell(CallerStopped())

    async def until(self, *told: Any) -> tuple[Any, ...]:
        """Wait until something that begins so was told; return it."""
        while True:
            for entry in self.log:
                if entry[: len(told)] == told:
                    return entry
            self.changed.clear()
            await self.changed.wait()

    # -- the port

    def _note(self, *entry: Any) -> None:
        self.log.append(entry)
        self.changed.set()

    def hear(self, frame: bytes) -> None:
        self.heard += frame
        self.changed.set()

    def events(self, speech: Callable[[Spoke], bool] | None = None) -> AsyncIterator[ProviderEvent]:
        return self._told.events(speech)

    def cancel(self) -> None:
        self._note("cancel")

    def truncate(self, item_id: str, heard_ms: int) -> None:
        self._note("truncate", item_id, heard_ms)

    def answer(self, ask_id: str, output: str) -> None:
        self._note("answer", ask_id, output)

    def press(self, digits: str) -> None:
        self._note("press", digits)

    def note(self, text: str) -> None:
        self._note("note", text)

    def prompt(self, text: str) -> None:
        self._note("prompt", text)

    async def aclose(self) -> None:
        self.closed = True
        self._told.end()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
            if not self._running.cancelled() and (error := self._running.exception()) is not None:
                raise error
