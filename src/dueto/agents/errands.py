"""The tools that a model has asked for, in one conversation: run beside it, bounded, each answered once."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from dueto.agents.ports import ToolAsked, Tools, VoiceProvider
from dueto.agents.watch import Watch
from dueto.call.phase import Phase
from dueto.errors import CallEnded

if TYPE_CHECKING:
    from dueto.call.call import Call

TRANSFER: Final = "transfer_call"
MOST_AT_ONCE: Final = 8
"A model that asks for more is told to wait."

Spawn = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Errands:
    """What runs. `heard` waits until the caller has heard what the model said so far."""

    def __init__(
        self,
        call: "Call",
        tools: Tools | None,
        spawn: Spawn,
        watch: Watch,
        heard: Callable[[], Awaitable[bool]],
    ) -> None:
        self._call = call
        self._tools = tools
        self._spawn = spawn
        self._watch = watch
        self._heard = heard
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}
        "The tool's name, and its task, by ask_id."
        self._later: dict[str, str] = {}
        "What tools brought while the caller talked to somebody else."

    def ask(self, provider: VoiceProvider, event: ToolAsked) -> None:
        """The model wants a tool run."""
        if event.ask_id in self._running:
            return
        if self._tools is None or len(self._running) >= MOST_AT_ONCE:
            error = "there are no tools in this call" if self._tools is None else "too many tools are running already"
            provider.answer(event.ask_id, json.dumps({"error": error}))
            return
        task = self._spawn("tool", self._run(provider, self._tools, event))
        self._running[event.ask_id] = (event.name, task)

    def withdraw(self, ask_id: str) -> None:
        """The model no longer wants that answer."""
        self._later.pop(ask_id, None)
        running = self._running.pop(ask_id, None)
        if running is not None:
            running[1].cancel()

    async def connected(self) -> bool:
        """Wait for the transfer that is under way, or about to be, whatever comes of it; False: there is none."""
        waited = False
        while connecting := [task for name, task in self._running.values() if self._connects(name)]:
            waited = True
            await asyncio.wait(connecting, return_when=asyncio.FIRST_COMPLETED)
        return waited

    def _connects(self, name: str) -> bool:
        """Whether a tool of that name that runs now connects the caller with somebody."""
        return name == TRANSFER or self._call.phase is Phase.TRANSFERRING

    def brought(self) -> dict[str, str]:
        """Return what tools brought meanwhile, by ask_id; once."""
        later, self._later = self._later, {}
        return later

    async def _run(self, provider: VoiceProvider, tools: Tools, event: ToolAsked) -> None:
        call = self._call
        self._watch.tool_began()
        try:
            output = await tools.run(call, event.name, event.arguments, self._heard)
        except CallEnded:
            return
        except Exception as error:  # a tool of the user's: the conversation goes on, and its author gets to know
            call.log.error("tool_failed", exc_info=error)
            output = json.dumps({"error": "the tool failed"})
        finally:
            self._watch.tool_ended()
            self._running.pop(event.ask_id, None)
        if call.phase is Phase.BRIDGED:  # the model would speak of it now, and nobody would hear it
            self._later[event.ask_id] = output
        else:
            provider.answer(event.ask_id, output)
