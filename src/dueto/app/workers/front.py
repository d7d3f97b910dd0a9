"""The `[twilio]` endpoint of several workers: a bot's request goes to the worker that has the call it speaks of."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from dueto.app.addresses import Address
from dueto.app.http import Answer, HttpServer, Request
from dueto.app.twilio_api import MAX_BODY_BYTES, METHODS, answered_by_nobody, places_a_call
from dueto.app.workers.hand import Hand
from dueto.app.workers.relayed import answer_of, fields_of
from dueto.errors import Refused


class Front:
    """One address for all of them. Every worker is asked for a call: no more than one of them knows it."""

    def __init__(self, listen: Address, hands: Callable[[], Iterable[Hand]], least: Callable[[], Hand]) -> None:
        """`hands`: all workers that have calls; `least`: who is to place the next. Raises: Refused: there is none."""
        self._hands = hands
        self._least = least
        self._server = HttpServer(
            listen, self._answer, section="twilio", methods=METHODS, max_body_bytes=MAX_BODY_BYTES
        )

    @property
    def port(self) -> int:
        """Where it listens, once it is started."""
        return self._server.address.port

    async def start(self) -> None:
        """Open the listener. Raises: SettingsError: the address can't be listened on."""
        await self._server.start()

    async def aclose(self) -> None:
        """Close the listener and every connection."""
        await self._server.aclose()

    async def _answer(self, request: Request) -> Answer:
        try:
            asked = [self._least()] if places_a_call(request) else list(self._hands())
        except Refused:
            asked = []
        answers = await asyncio.gather(*(_ask(hand, request) for hand in asked))
        told = [answer for answer in answers if answer is not None]
        found = [answer for answer in told if answer.status != 404]
        if found or len(told) == len(asked) > 0:
            return (found or told)[0]
        return answered_by_nobody()


async def _ask(hand: Hand, request: Request) -> Answer | None:
    """Return what a worker says to it; None: nothing, in time."""
    with suppress(TimeoutError):
        return answer_of(await hand.ask("request", **fields_of(request)))
    return None
