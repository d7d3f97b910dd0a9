"""Connections that are open before a call comes: the look-up, TCP, TLS and the upgrade are over, nothing has been said.

They wait for any call (`size`), or are opened for one whose control leg has come, while its stream is on its way.
Only for providers whose conversation begins with its first message. One that counts from the upgrade has none of these.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import structlog

from dueto.agents.expected import Expected
from dueto.agents.link import Link
from dueto.errors import ProviderFailed

OLDEST_S: Final = 60.0
"A connection that nobody wanted for so long is replaced: what sits between forgets silent ones."
PROVES_S: Final = 2.0
"A warm connection that has not led to a conversation by then is given up for a fresh one."
YOUNG_S: Final = 5.0
"One that was opened so recently, for this very call, has nothing to prove: it is as good as a fresh one."
STEADY_S: Final = 10.0
"One that the provider closes sooner counts as a refusal."
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
"Between two attempts while the provider refuses: twice as long each time, up to this."
MOST_EARLY: Final = 16
"Messages of a provider to which nothing was said yet: the last ones are kept for the conversation."
_HOPELESS: Final = ("auth", "model")
"Faults that the next attempt has as well: none is made until a call got through."
_DEAD: Final = ("dropped", "timeout", "limit")
"Faults of a connection that was good once."

OnMessage = Callable[[bytes], None]
OnClosed = Callable[[ProviderFailed], None]
Dial = Callable[[OnMessage, OnClosed], Awaitable[Link]]
"`open_link` to one address with one key."
T = TypeVar("T")


class WarmLinks:
    """Up to `size` open connections, and the way to a conversation: on one of them, on a fresh one where there is none.

    `start` and `aclose` are its owner's; without `start`, or with a `size` of 0, none waits but for calls that are
    `expected`.
    """

    def __init__(self, dial: Dial, *, size: int = 0, name: str = "", oldest_s: float = OLDEST_S) -> None:
        """`name`: the agent's, for the log."""
        self._dial = dial
        self._size = size
        self._name = name
        self._oldest_s = oldest_s
        self._parked: deque[_Parked] = deque()
        self.expected: Expected[_Parked] = Expected(self._for_one, lambda parked: parked.link.abandon())
        "Connections of calls that are on their way."
        self._changed = asyncio.Event()
        self._hopeless = False
        self._pause_s = 0.0
        "How long the provider is left alone after its last refusal; 0: it did not refuse."
        self._not_before = 0.0
        self._keeping: asyncio.Task[None] | None = None

    @property
    def ready(self) -> int:
        """How many are open and wait for a call."""
        return len(self._parked)

    def start(self) -> None:
        """Begin to have connections; nothing waits for them."""
        if self._size and self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep(), name=f"{self._name} warm links")

    async def aclose(self) -> None:
        """Close them all; at most two seconds."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            self._keeping = None
        await self.expected.aclose()
        await asyncio.gather(*(parked.link.aclose() for parked in self._parked))
        self._parked.clear()

    async def begin(self, conversation: Callable[[Dial], Awaitable[T]], call_id: str = "") -> T:
        """Return what `conversation` makes of the connection that it is given the `Dial` of.

        It is called again, with a fresh connection, where the warm one proves dead: it has to clean up behind itself.
        Raises: ProviderFailed: what it raised.
        """
        try:
            parked = await self.expected.take(call_id) or self._next()
            begun = await self._on_warm(parked, conversation) if parked is not None else None
            if begun is None:
                begun = await conversation(self._dial)
        except ProviderFailed as failure:
            if failure.fault in _HOPELESS:
                self._refused(failure)
            raise
        if self._hopeless:  # and this was not
            self._works()
        return begun

    async def _on_warm(self, parked: "_Parked", conversation: Callable[[Dial], Awaitable[T]]) -> T | None:
        """Return what it makes of that connection; None: it is dead."""
        try:
            async with asyncio.timeout(PROVES_S if parked.has_to_prove() else None):
                begun = await conversation(parked.hand_over)
        except TimeoutError:
            return None
        except ProviderFailed as failure:
            if failure.fault in _DEAD:
                return None
            raise
        finally:
            if not parked.handed_over:
                parked.link.abandon()
        self._works()
        return begun

    def _next(self) -> "_Parked | None":
        """Take the oldest one that is alive, and have another in its place."""
        while self._parked:
            parked = self._parked.popleft()
            self._changed.set()
            if not parked.link.closed:
                return parked
        return None

    async def _for_one(self) -> "_Parked":
        """Have one for a call that is on its way. Raises: ProviderFailed."""
        parked = self._next()
        if parked is None:
            parked = _Parked(lambda *_: None, young_s=YOUNG_S)
            parked.link = await self._dial(parked.keep, parked.lost)
            parked.opened_at = asyncio.get_running_loop().time()
        return parked

    # -- in the background

    async def _keep(self) -> None:
        """Have as many as are wanted; one that is too old is closed when there is another in its place."""
        time = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            oldest = self._parked[0] if self._parked else None
            old = oldest if oldest is not None and time() >= oldest.opened_at + self._oldest_s else None
            wanted = not self._hopeless and (old is not None or len(self._parked) < self._size)
            due = wanted and time() >= self._not_before
            if due:
                await self._add()
            if old is not None:
                await self._retire(old)
            elif not due:
                moments = [self._not_before] if wanted else []
                moments += [oldest.opened_at + self._oldest_s] if oldest is not None else []
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(moments, default=None)):
                        await self._changed.wait()

    async def _retire(self, parked: "_Parked") -> None:
        if parked in self._parked:  # nobody took it meanwhile
            self._parked.remove(parked)
            self._pause_s = 0.0
            await parked.link.aclose()

    async def _add(self) -> None:
        parked = _Parked(self._lost)
        try:
            link = await self._dial(parked.keep, parked.lost)
        except ProviderFailed as failure:
            self._refused(failure)
            return
        if not link.closed:
            parked.link, parked.opened_at = link, asyncio.get_running_loop().time()
            self._parked.append(parked)

    def _lost(self, parked: "_Parked", failure: ProviderFailed) -> None:
        """One ended while nobody used it."""
        if parked in self._parked:
            self._parked.remove(parked)
        if asyncio.get_running_loop().time() < parked.opened_at + STEADY_S:
            self._refused(failure)
        else:
            self._pause_s = 0.0
        self._changed.set()

    def _works(self) -> None:
        """A conversation began: whatever the provider had against us is over."""
        self._hopeless, self._pause_s, self._not_before = False, 0.0, 0.0
        self._changed.set()

    def _refused(self, failure: ProviderFailed) -> None:
        """Leave the provider alone for a while, or for good; say so once, for as long as it lasts."""
        if not self._size or self._hopeless:
            return
        hopeless = failure.fault in _HOPELESS
        if hopeless or not self._pause_s:
            again = "after a call got through" if hopeless else "soon"
            structlog.get_logger().warning("no_warm_links", agent=self._name, error=str(failure), again=again)
        self._hopeless = hopeless
        self._pause_s = min(self._pause_s * 2 or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._not_before = asyncio.get_running_loop().time() + self._pause_s
        self._changed.set()


class _Parked:
    """A connection while nobody talks over it: what the provider says of its own accord is kept."""

    link: Link
    "Once it is open."

    def __init__(self, on_lost: "Callable[[_Parked, ProviderFailed], None]", young_s: float = 0.0) -> None:
        self.opened_at = asyncio.get_running_loop().time()
        self.handed_over = False
        self._young_s = young_s
        self._on_lost = on_lost
        self._early: deque[bytes] = deque(maxlen=MOST_EARLY)

    def has_to_prove(self) -> bool:
        """Whether it is so old that it may lead nowhere."""
        return asyncio.get_running_loop().time() >= self.opened_at + self._young_s

    def keep(self, message: bytes) -> None:
        self._early.append(message)

    def lost(self, failure: ProviderFailed) -> None:
        self._on_lost(self, failure)

    async def hand_over(self, on_message: OnMessage, on_closed: OnClosed) -> Link:
        """Be a `Dial`: return the connection, after what came on it so far. Raises: ProviderFailed: it just ended."""
        if self.link.closed:
            raise ProviderFailed("dropped", f"the connection to {self.link.provider} broke")
        self.handed_over = True
        self.link.hand_over(on_message, on_closed)
        for message in self._early:
            on_message(message)
        return self.link
