"""What is bounded to a call's life: the end of the call wakes whoever waits for anything in it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from dueto.call.latch import Latch
from dueto.errors import CallEnded, CommandRefused, LegClosed


class Life:
    """Of one call, until `end`."""

    __slots__ = ("_grace_s", "_over", "_scopes", "_unique_id")

    def __init__(self, unique_id: str, grace_s: float) -> None:
        """`grace_s`: how long the proof of a hangup may be behind a command that the hangup made fail."""
        self._unique_id = unique_id
        self._grace_s = grace_s
        self._over = Latch()
        self._scopes: set[asyncio.Timeout] = set()

    def end(self) -> None:
        """The call is over."""
        self._over.set()
        for scope in tuple(self._scopes):
            scope.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """Bound a verb to it. Raises: CallEnded: it is over, or was before the block had come to its end."""
        if self._over.is_set():
            raise self._ended
        scope = asyncio.timeout(None)
        self._scopes.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError:
            if scope.expired():
                raise self._ended from None
            raise
        except (LegClosed, CommandRefused) as error:
            self._scopes.discard(scope)
            if await self._was_the_end(error):
                raise self._ended from None
            raise
        finally:
            self._scopes.discard(scope)

    async def _was_the_end(self, error: Exception) -> bool:
        """Whether it failed because the channel is gone; the event that proves it may come a moment later."""
        words = str(error)
        if isinstance(error, LegClosed) or "No such channel" in words or "Cannot locate session" in words:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace_s):
                    await self._over.wait()
        return self._over.is_set()

    @property
    def _ended(self) -> CallEnded:
        return CallEnded(f"the call {self._unique_id} is over")
