"""A channel of our own: placed by `originate`, known by the Unique-ID we minted, a `Call` once it was answered."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dueto.audio.answering import AnswerEar, AnsweredBy
from dueto.call.house import WORKER, House
from dueto.call.ports import Agent, Outcome
from dueto.call.registry import Registry
from dueto.call.transfer import outcome_of
from dueto.errors import CommandRefused, NotCapable, ReplyTimeout
from dueto.legs.originate import originate_argument

if TYPE_CHECKING:
    from dueto.call.call import Call

LEGS_S = 8.0
"How long an answered channel may take to bring both its legs."
SLACK_S = 5.0
"What `originate` may take beyond its time-out: the switch counts whole seconds."

Job = Callable[[str, str, float], Awaitable[str]]
"Runs a command (name, argument, seconds) as a background job and returns its result."


@dataclass(frozen=True, slots=True)
class Dialled:
    """What became of a channel we asked for."""

    unique_id: str
    outcome: Outcome | Literal["answered"]
    hangup_cause: str
    "In the switch's words: `SUCCESS`, `USER_BUSY`, `NO_ANSWER`, ..."
    call: "Call | None" = None
    "The call, once it was answered."
    answered_by: AnsweredBy = "unknown"
    "What the first seconds sounded like, where that was asked for."

    @property
    def ok(self) -> bool:
        """Whether somebody, or something, answered."""
        return self.outcome == "answered"


class Guest:
    """Runs an agent on the channel that is being placed, and says when it is there."""

    def __init__(self, agent: Agent, detect_s: float) -> None:
        self._agent = agent
        self._detect_s = detect_s
        self.answered_by: AnsweredBy = "unknown"
        self.came: asyncio.Future[Call] = asyncio.get_running_loop().create_future()

    async def __call__(self, call: "Call") -> None:
        if self._detect_s > 0:
            self.answered_by = await self._listen(call)
        if not self.came.done():
            self.came.set_result(call)
        await self._agent(call)

    async def _listen(self, call: "Call") -> AnsweredBy:
        ear = AnswerEar(call.rate_hz)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._detect_s):
                async for frame in call.audio():
                    if verdict := ear.hear(frame):
                        return verdict
        return ear.verdict or "unknown"


def mint() -> str:
    """Return a new Unique-ID."""
    return str(uuid.uuid4())


async def place(
    registry: Registry,
    house: House,
    job: Job,
    dial: str,
    agent: Agent,
    *,
    unique_id: str,
    variables: Mapping[str, str],
    timeout_s: float,
    stream_base_url: str = "",
    detect_s: float = 0.0,
) -> Dialled:
    """Place a channel and return once `agent` runs on it, or once it is known why it does not.

    With `detect_s` the first seconds are listened to before the agent begins: person or machine. `house` lends the new
    call its rules; the stream is started by us, at `stream_base_url` where the rules name none.
    Cancelling kills the channel. Raises: NotCapable: the switch does not know where we are, or nobody can be asked.
    """
    if not house.whereabouts.control:
        raise NotCapable("placing a call needs [control] public_address: the HOST:PORT that the switch can dial")
    public_url = house.rules.public_url or stream_base_url
    if not public_url and house.unicast is None:
        raise NotCapable("placing a call needs [media] public_url: the ws://HOST:PORT that the switch can dial")
    seconds = max(round(timeout_s), 1)
    argument = originate_argument(
        dial,
        unique_id,
        house.whereabouts.control,
        {"originate_timeout": str(seconds), WORKER: house.worker, **variables},
    )
    guest = Guest(agent, detect_s)
    rules = replace(house.rules, stream_start="gateway", public_url=public_url, while_waiting="silence")
    registry.expect(unique_id, replace(house, agent=guest, route=None, rules=rules))
    answered = False
    try:
        try:
            await job("originate", argument, seconds + SLACK_S)
        except CommandRefused as refused:
            cause = cause_of(str(refused))
            return Dialled(unique_id, outcome_of(cause), cause)
        except ReplyTimeout:
            return Dialled(unique_id, "no_answer", "NO_ANSWER")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEGS_S + detect_s):
                call = await guest.came
                answered = True
                return Dialled(unique_id, "answered", "SUCCESS", call, guest.answered_by)
        return Dialled(unique_id, "failed", "no media leg")
    finally:
        if not answered:
            registry.cancel(unique_id)


def cause_of(refusal: str) -> str:
    """Return the hangup cause in `-ERR USER_BUSY`; empty where there is none."""
    found = re.search(r"-ERR\s+([A-Z][A-Z0-9_]+)", refusal)
    return found[1] if found else ""
