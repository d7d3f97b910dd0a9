"""Collecting digits from the caller, by our own DTMF events: the switch plays nothing and reads nothing."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dueto.call.events import Dtmf
from dueto.errors import Interrupted, LocalProtocolError

if TYPE_CHECKING:
    from dueto.call.call import Call
    from dueto.call.session import Session

KEYS = frozenset("0123456789*#ABCD")
Prompt = str | bytes | Callable[[], Awaitable[None]]
"What is heard while digits may come already: a text, L16 at the call's rate, or a coroutine that says it."


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the caller pressed."""

    digits: str
    "Without the terminator."
    ended_by: Literal["max", "terminator", "timeout"]
    terminator: str = ""

    @property
    def ok(self) -> bool:
        """Whether there are as many digits as were wanted, or the caller said that this is all."""
        return self.ended_by != "timeout"


async def gather(
    call: "Call",
    session: "Session",
    *,
    min_digits: int,
    max_digits: int,
    terminators: str,
    first_timeout_s: float,
    inter_timeout_s: float,
    prompt: Prompt | None,
    barge_in: bool,
) -> Gathered:
    """See `Call.gather`."""
    if not 0 < max_digits <= 128 or not 0 <= min_digits <= max_digits:
        raise LocalProtocolError(f"gather wants 0 <= min ({min_digits}) <= max ({max_digits}) <= 128")
    if not set(terminators) <= KEYS:
        raise LocalProtocolError("a terminator is a key: 0 to 9, A to D, * or #")
    pressed: asyncio.Queue[str] = asyncio.Queue(256)

    def take(event: Dtmf) -> None:
        if not pressed.full():  # nobody presses 256 keys at once; more of them are noise
            pressed.put_nowait(event.digit)

    with session.gathering(take):
        saying = asyncio.ensure_future(_prompt(call, prompt))
        first = asyncio.ensure_future(pressed.get())
        try:
            await asyncio.wait((saying, first) if barge_in else (saying,), return_when=asyncio.FIRST_COMPLETED)
            if first.done() and not saying.done():
                session.voice.interrupt("digit", everything=True)
                saying.cancel()
            with contextlib.suppress(asyncio.CancelledError, Interrupted):
                await saying
            async with asyncio.timeout(first_timeout_s):
                digit = await first
        except TimeoutError:
            return Gathered("", "timeout")
        finally:
            for task in (saying, first):
                task.cancel()
        return await _rest(digit, pressed, min_digits, max_digits, terminators, inter_timeout_s)


async def _prompt(call: "Call", prompt: Prompt | None) -> None:
    if callable(prompt):
        await prompt()
    elif prompt:
        await call.say(prompt)


async def _rest(
    digit: str, pressed: asyncio.Queue[str], least: int, most: int, terminators: str, patience_s: float
) -> Gathered:
    digits = ""
    while True:
        if digit in terminators:
            if len(digits) >= least:
                return Gathered(digits, "terminator", digit)
        else:
            digits += digit
            if len(digits) >= most:
                return Gathered(digits, "max")
        try:
            async with asyncio.timeout(patience_s):
                digit = await pressed.get()
        except TimeoutError:
            return Gathered(digits, "timeout")
