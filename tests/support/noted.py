"""A journal that keeps what it is told."""

import asyncio
from collections.abc import Mapping


class Noted:
    """A journal one can wait for."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Mapping[str, object]]] = []
        self.changed = asyncio.Event()

    def __call__(self, unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        self.entries.append((event, dict(fields)))
        self.changed.set()

    async def until(self, event: str) -> Mapping[str, object]:
        """Wait for an entry of that name."""
        async with asyncio.timeout(15):
            while True:
                for name, fields in self.entries:
                    if name == event:
                        return fields
                self.changed.clear()
                await self.changed.wait()
