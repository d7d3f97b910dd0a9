"""Has an agent's doings noted: what it says and for how long, what it understands, when it is told what."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from dueto.agents.profiles import LoadedAgent
from dueto.app.demo.notebook import Notebook
from dueto.call import Agent, Call, CallEvent, Mouth, TransferResult
from dueto.call.events import Dtmf, HungUp, Speech
from dueto.errors import Interrupted, NotCapable


def narrated(agent: LoadedAgent, notebook: Notebook) -> Agent:
    """Return `agent` so that it runs as ever and `notebook` hears of it. It brings its own mouth."""

    async def run(call: Call) -> None:
        await agent.run(cast(Call, _NarratedCall(call, agent.mouth, notebook)))

    run.__name__ = agent.name
    return run


class _NarratedCall:
    """A call that tells what is done with it; all else is the call's own."""

    def __init__(self, call: Call, mouth: Mouth | None, notebook: Notebook) -> None:
        self._call, self._mouth, self._notebook = call, mouth, notebook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def _note(self, name: str, **fields: object) -> None:
        self._notebook.note(self._call.unique_id, "agent", name, **fields)

    async def say(self, what: str | bytes, *, interruptible: bool = True) -> None:
        pcm, words = what, ""
        if isinstance(pcm, str):
            words = pcm
            if self._mouth is None:
                raise NotCapable("no mouth is configured: say() takes audio only")
            pcm = await self._mouth.speak(pcm, self._call.rate_hz)
        self._note("says", words=words, ms=len(pcm) * 500 // self._call.rate_hz)
        try:
            await self._call.say(pcm, interruptible=interruptible)
        except Interrupted as cut:
            self._note("interrupted", heard_ms=cut.heard_ms)
            raise
        except asyncio.CancelledError:
            self._note("cut")
            raise
        else:
            self._note("said")

    async def transfer(self, target: str, **how: Any) -> TransferResult:
        self._note("transfers", target=target)
        result = await self._call.transfer(target, **how)
        self._note("transfer_result", target=target, outcome=result.outcome, cause=result.hangup_cause)
        return result

    def events(self) -> AsyncIterator[CallEvent]:
        return _Overheard(self._call.events(), self)

    def overheard(self, event: CallEvent) -> None:
        """Note an event at the moment the agent takes it."""
        match event:
            case Speech(text, confidence, started_ms, ended_ms):
                self._note("understands", words=text, confidence=confidence, started_ms=started_ms, ended_ms=ended_ms)
            case Dtmf(digit):
                self._note("takes_digit", digit=digit)
            case HungUp(cause, witness):
                self._note("told_of_hangup", cause=cause, witness=witness)


class _Overheard(AsyncIterator[CallEvent]):
    """An iterator that adds no life of its own: who drops it has dropped the call's."""

    def __init__(self, events: AsyncIterator[CallEvent], call: _NarratedCall) -> None:
        self._events, self._call = events, call

    async def __anext__(self) -> CallEvent:
        event = await anext(self._events)
        self._call.overheard(event)
        return event

    async def aclose(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
