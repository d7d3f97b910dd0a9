"""What is made ready for a call whose control leg is here, while its audio is still on its way."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from dueto.agents.ports import Connect, Opening, VoiceProvider
from dueto.call.ports import Forewarned

MOST: Final = 64
"Calls at once that something is made ready for; one more begins as if nobody had known of it."
T = TypeVar("T")


class Expected(Generic[T]):
    """One thing for each call that is on its way: begun by `expect`, had by `take`, or thrown away by `forget`.

    Nothing of it outlives its call, which takes it or forgets it; `aclose` is for the end of everything.
    """

    def __init__(
        self, make: Callable[[], Coroutine[Any, Any, T]], throw_away: Callable[[T], None] = lambda made: None
    ) -> None:
        """`make` has a deadline of its own, and is safe to cancel."""
        self._make = make
        self._throw_away = throw_away
        self._made: dict[str, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        return len(self._made)

    def expect(self, call_id: str) -> None:
        """Begin to make it."""
        if call_id not in self._made and len(self._made) < MOST:
            self._made[call_id] = asyncio.get_running_loop().create_task(self._make(), name=f"{call_id} expected")

    async def take(self, call_id: str) -> T | None:
        """Return it, once it is made; None: there is none. Cancelling ends it. Raises: ProviderFailed: it can't be."""
        making = self._made.pop(call_id, None)
        if making is None:
            return None
        try:
            return await making
        except asyncio.CancelledError:
            self._drop(making)  # it may have been made in this very moment
            raise

    def forget(self, call_id: str) -> bool:
        """The call does not want it, or has had it. Returns whether it was made, or begun, for nothing."""
        making = self._made.pop(call_id, None)
        if making is not None:
            self._drop(making)
        return making is not None

    def _drop(self, making: "asyncio.Task[T]") -> None:
        if not making.cancel() and not making.cancelled() and making.exception() is None:
            self._throw_away(making.result())

    async def aclose(self) -> None:
        """Forget all of them."""
        making = tuple(self._made.values())
        for call_id in tuple(self._made):
            self.forget(call_id)
        if making:
            await asyncio.wait(making)


@dataclass(frozen=True, slots=True)
class ConnectAhead:
    """A `Connect` for which something is made ready while the call is on its way; it finds it by `Opening.call_id`."""

    connect: Connect
    ready: Forewarned

    async def __call__(self, opening: Opening) -> VoiceProvider:
        """Open a conversation. Raises: ProviderFailed."""
        return await self.connect(opening)

    def expect(self, call_id: str) -> None:
        """That call is on its way."""
        self.ready.expect(call_id)

    def forget(self, call_id: str) -> bool:
        """It does not want what was made ready, or has it."""
        return self.ready.forget(call_id)
