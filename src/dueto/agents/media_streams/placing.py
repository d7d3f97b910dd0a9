"""Calls that a bot places over REST: rung up through the gateway, and in the bot's hands once somebody answered."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Final, Protocol

from dueto.agents.media_streams.account import API_VERSION, Exchange, call_sid
from dueto.agents.media_streams.line import BotLine
from dueto.agents.media_streams.progress import Progress, Reporter, Wish
from dueto.agents.media_streams.verbs import Verb
from dueto.agents.media_streams.webhook import Webhooks
from dueto.call import Agent, Call, Dialled
from dueto.errors import DuetoError, LocalProtocolError

MAX_RINGING: Final = 50
"At a time; a bot that asks for more is refused."
CONNECT_S: Final = 5.0
_UNANSWERED: Final[Mapping[str, str]] = {"busy": "busy", "no_answer": "no-answer", "cancelled": "canceled"}


class Dialler(Protocol):
    """Rings somebody up, and runs an agent on the call once it was answered: `Gateway.dial`."""

    async def __call__(self, dial: str, *, agent: Agent, caller_id: str, timeout_s: float, unique_id: str) -> Dialled:
        """Return once the agent runs, or once it is known why it does not. Cancelling ends the call."""
        ...


class Placing:
    """Places calls for bots, and looks after those that still ring."""

    def __init__(self, exchange: Exchange, dialler: Dialler) -> None:
        self._exchange = exchange
        self._dialler = dialler
        self._webhooks = Webhooks(exchange.account)
        self._reporter = Reporter(self._webhooks)
        self._ringing: set[asyncio.Task[None]] = set()

    def place(
        self, to: str, caller_id: str, program: tuple[Verb, ...], timeout_s: float, wish: Wish | None = None
    ) -> "Ringing":
        """Begin to ring `to` up, and return at once; `program` is carried out when somebody answers.

        `wish`: who wants to be told how it goes on.
        Raises: LocalProtocolError: no `allow` lets that number be dialled; `caller_id` is none; too many ring already.
        """
        dial = self._exchange.numbers.dial_string(to)
        if not (caller_id.isascii() and caller_id.removeprefix("+").isalnum() and len(caller_id) <= 32):
            raise LocalProtocolError("From: expected a number")
        if len(self._ringing) >= MAX_RINGING:
            raise LocalProtocolError(f"{MAX_RINGING} calls are ringing already")
        unique_id = str(uuid.uuid4())
        facts = {"Direction": "outbound-api", "From": caller_id, "Caller": caller_id, "To": to, "Called": to}
        sid = call_sid(unique_id)
        progress = Progress(self._reporter, wish) if wish is not None else None

        async def bot(call: Call) -> None:
            line = BotLine(call, self._exchange, self._webhooks, connect_s=CONNECT_S, facts=facts, progress=progress)
            await line.run(program)

        async def ring() -> None:
            status = "canceled"
            try:
                dialled = await self._dialler(
                    dial, agent=bot, caller_id=caller_id, timeout_s=timeout_s, unique_id=unique_id
                )
                status = "" if dialled.ok else _UNANSWERED.get(dialled.outcome, "failed")
            except DuetoError:  # the journal has it
                status = "failed"
            finally:
                self._exchange.leave(sid, ringing)
                if status:
                    self._exchange.over(ringing.form() | {"CallStatus": status})
                    if progress is not None:
                        progress.tell("completed", ringing.form(), status, 0.0)

        task = asyncio.ensure_future(ring())
        ringing = Ringing(self._exchange.account.sid, sid, facts, task)
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)
        self._exchange.enter(sid, ringing)
        if progress is not None:
            progress.tell("initiated", ringing.form(), "initiated")
            progress.tell("ringing", ringing.form(), "ringing")
        return ringing

    async def aclose(self) -> None:
        """Nobody is rung up any more."""
        tasks = tuple(self._ringing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reporter.aclose()
        await self._webhooks.aclose()


class Ringing:
    """A call that nobody has answered yet, as the REST side sees it."""

    def __init__(self, account_sid: str, sid: str, facts: Mapping[str, str], task: "asyncio.Task[None]") -> None:
        self._form = {
            "AccountSid": account_sid,
            "ApiVersion": API_VERSION,
            "CallSid": sid,
            "CallStatus": "ringing",
            "CallerName": "",
            **facts,
        }
        self._task = task

    def form(self) -> dict[str, str]:
        """What Twilio tells of a call."""
        return self._form

    def end(self) -> None:
        """Stop ringing."""
        self._task.cancel()

    def redirect(self, program: tuple[Verb, ...]) -> None:
        """Not yet. Raises: LocalProtocolError."""
        raise LocalProtocolError("nobody has answered that call yet; it can be ended, and nothing else")
