"""A door and a sink for control legs that only remember."""

import asyncio
from collections.abc import Callable

from tests.support.switch_peer import eventually

from dueto.legs.ports import ControlLeg
from dueto.wire.esl import Event


class RememberingSink:
    """Is told what a control leg hears, and remembers it in order."""

    def __init__(self) -> None:
        self.heard: list[Event | str] = []
        "Events as they came; `lingering`; `closed: reason`."
        self.changed = asyncio.Event()
        self.on_event: Callable[[Event], None] | None = None

    @property
    def names(self) -> list[str]:
        """What came, by name: event names (of CUSTOM ones the subclass), `lingering`, `closed`."""
        return [item.partition(":")[0] if isinstance(item, str) else item.subclass or item.name for item in self.heard]

    @property
    def events(self) -> list[Event]:
        """The events alone."""
        return [item for item in self.heard if isinstance(item, Event)]

    async def until(self, *names: str) -> None:
        """Wait until each of `names` was heard."""
        await eventually(lambda: set(names) <= set(self.names), self.changed)

    async def until_heard(self, count: int) -> None:
        """Wait until `count` things were heard."""
        await eventually(lambda: len(self.heard) >= count, self.changed)

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        self._note(event)
        if self.on_event is not None:
            self.on_event(event)

    def control_lingering(self, leg: ControlLeg) -> None:
        self._note("lingering")

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        self._note(f"closed: {reason}")

    def _note(self, item: Event | str) -> None:
        self.heard.append(item)
        self.changed.set()


class RememberingDoor:
    """Where control legs report; gives each a sink at once unless told to wait."""

    def __init__(self, *, attaches: bool = True) -> None:
        self.legs: list[ControlLeg] = []
        self.refusals: list[tuple[str, str, str]] = []
        self.sink = RememberingSink()
        self.changed = asyncio.Event()
        self._attaches = attaches

    async def leg(self, number: int = 0) -> ControlLeg:
        """Wait for the leg with that number."""
        await eventually(lambda: len(self.legs) > number, self.changed)
        return self.legs[number]

    async def refusal(self) -> tuple[str, str, str]:
        """Wait until somebody was turned away: leg, reason, peer."""
        await eventually(lambda: bool(self.refusals), self.changed)
        return self.refusals[0]

    def control_came(self, leg: ControlLeg) -> None:
        self.legs.append(leg)
        if self._attaches:
            leg.attach(self.sink)
        self.changed.set()

    def refused(self, leg: str, reason: str, peer: str) -> None:
        self.refusals.append((leg, reason, peer))
        self.changed.set()
