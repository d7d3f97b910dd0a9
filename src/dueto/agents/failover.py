"""Who takes a call, and who takes it over where he fails: one after the other, until one brings it to its end."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from dueto.agents.profiles import APOLOGY
from dueto.call.events import HungUp, Unbridged
from dueto.call.phase import Phase
from dueto.call.ports import Agent, Mouth, forewarned
from dueto.errors import CallEnded, DuetoError, NobodyThere, ProviderFailed

if TYPE_CHECKING:
    from dueto.call.call import Call

WhenFull = Literal["return_to_dialplan", "busy"]
APOLOGY_S: Final = 3.0
"How long it may take to be made: who takes over is waiting for it."
SOON_S: Final = 1.0
"An agent that fails faster than this, and has said nothing, was never noticed."


class Limit:
    """How many calls at once; those that are `expected` soon have no place yet, and nothing is made ready for more."""

    __slots__ = ("expected", "most", "taken")

    def __init__(self, most: int = 0) -> None:
        self.most = most
        "0: any number."
        self.taken = 0
        self.expected: set[str] = set()

    def expect(self, call_id: str) -> bool:
        """Count with a call that is on its way; False: it would be one too many, as things stand."""
        if self.most and self.taken + len(self.expected) >= self.most:
            return False
        self.expected.add(call_id)
        return True

    def take(self) -> bool:
        """Take a place, to be given back by `leave`; False: there is none."""
        if self.most and self.taken >= self.most:
            return False
        self.taken += 1
        return True

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1


@dataclass(frozen=True, slots=True)
class Post:
    """Somebody who can take a call."""

    name: str
    run: Agent
    mouth: Mouth | None = None
    "What `call.say(text)` speaks with while he has the call."
    limit: Limit = field(default_factory=Limit)
    "Shared by all the posts that this agent fills."


@dataclass(frozen=True, slots=True)
class _Failed:
    """Somebody could not go on."""

    post: Post
    error: Exception
    late: bool
    "It took so long that the caller has been waiting."
    heard_before_ms: int
    "What he had heard before this one had the call."


class FailOver:
    """An agent made of several: the first whose limit allows it takes the call, the next takes over where one fails.

    Each finds in `call.transcript` what the ones before him have heard and said.
    """

    def __init__(
        self, posts: Sequence[Post], *, apology: str = APOLOGY, when_full: WhenFull = "return_to_dialplan"
    ) -> None:
        """`apology`: what the caller hears in between; empty: nothing."""
        self._posts = posts
        self._ahead = forewarned(posts[0].run)
        self._apology = apology
        self._when_full = when_full

    async def __call__(self, call: "Call") -> None:
        """Serve one call. Raises: what the last of them raised."""
        failed: _Failed | None = None
        for post in self._posts:
            if not post.limit.take():
                call.note("agent_full", name=post.name, max_calls=post.limit.most)
                self.forget(call.unique_id)
                continue
            try:
                if failed is not None:
                    await self._take_over(call, post, failed)
                else:
                    post.limit.expected.discard(call.unique_id)
                call.mouth = post.mouth
                began, heard_ms = call.clock(), call.heard_ms
                try:
                    await post.run(call)
                except CallEnded:
                    raise
                except Exception as error:
                    if call.ended:
                        raise
                    failed = _Failed(post, error, call.clock() - began > SOON_S, heard_ms)
                else:
                    return
            finally:
                post.limit.leave()
        if failed is not None:
            raise failed.error
        await turn_away(call, self._when_full)

    def expect(self, call_id: str) -> None:
        """The first is likely to get that call: let him get ready, if he has a place."""
        if self._ahead is not None and self._posts[0].limit.expect(call_id):
            self._ahead.expect(call_id)

    def forget(self, call_id: str) -> bool:
        """It is over, or somebody else's."""
        self._posts[0].limit.expected.discard(call_id)
        return self._ahead is not None and self._ahead.forget(call_id)

    async def _take_over(self, call: "Call", post: Post, failed: "_Failed") -> None:
        """The one before failed: silence, a word of apology if the caller can have noticed, and on."""
        before, error = failed.post, failed.error
        fault = error.fault if isinstance(error, ProviderFailed) else type(error).__name__
        call.note("agent_replaced", name=before.name, fault=fault, error=str(error), by=post.name)
        if not isinstance(error, DuetoError):  # a bug in an agent: its author needs the traceback
            call.log.error("agent_traceback", exc_info=error)
        if call.phase is Phase.BRIDGED:  # he talks to somebody else; perhaps he comes back
            await call.wait_for(Unbridged)
        await call.silence()
        mouth = post.mouth or before.mouth
        noticed = failed.late or call.heard_ms > failed.heard_before_ms
        if not (noticed and self._apology and mouth):
            return
        with contextlib.suppress(DuetoError, TimeoutError):
            async with asyncio.timeout(APOLOGY_S):
                pcm = await mouth.speak(self._apology, call.rate_hz)
            saying = call.utterance()  # not waited for: who takes over gets ready meanwhile, and speaks behind it
            saying.add(pcm)
            saying.finish()
            call.transcript.add("agent", self._apology)


def connects_with(destination: str) -> Agent:
    """Return the agent that does nothing but connect the caller with a destination, and leaves with him."""

    async def connect(call: "Call") -> None:
        result = await call.transfer(destination, mode="blind")
        if not result.ok:
            raise NobodyThere(f"{destination}: {result.outcome} {result.hangup_cause}".rstrip())
        async for event in call.events():
            if isinstance(event, HungUp | Unbridged):
                return

    return connect


class Limited:
    """An agent for as many calls at once as `limit` allows; the others are turned away. `name` is for the log."""

    def __init__(self, agent: Agent, limit: Limit, name: str, when_full: WhenFull) -> None:
        self._agent = agent
        self._ahead = forewarned(agent)
        self._limit = limit
        self._name = name
        self._when_full = when_full

    async def __call__(self, call: "Call") -> None:
        """Serve one call, or turn it away."""
        self._limit.expected.discard(call.unique_id)
        if not self._limit.take():
            call.note("tenant_full", name=self._name, max_calls=self._limit.most)
            self.forget(call.unique_id)
            await turn_away(call, self._when_full)
            return
        try:
            await self._agent(call)
        finally:
            self._limit.leave()

    def expect(self, call_id: str) -> None:
        """Let the agent get ready for that call, if there is a place."""
        if self._ahead is not None and self._limit.expect(call_id):
            self._ahead.expect(call_id)

    def forget(self, call_id: str) -> bool:
        """It is over."""
        self._limit.expected.discard(call_id)
        return self._ahead is not None and self._ahead.forget(call_id)


async def turn_away(call: "Call", how: WhenFull) -> None:
    """There is no place for this call: back to the dialplan with `dueto_result=full`, or busy."""
    if how == "busy":
        await call.hangup("USER_BUSY")
    else:
        await call.return_to_dialplan(dueto_result="full")
