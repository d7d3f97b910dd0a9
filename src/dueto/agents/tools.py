"""The tools of one agent: found by name, told to the model, run within bounds whatever the model asks."""

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import msgspec
from pydantic import BaseModel, ValidationError

from dueto.agents.ports import ToolSpec
from dueto.call.ports import Destination
from dueto.errors import CallEnded, DuetoError, LocalProtocolError, NotCapable, ReplyTimeout, ToolRefused

if TYPE_CHECKING:
    from dueto.call.call import Call

LONGEST_ARGUMENTS_CHARS: Final = 16_000
LONGEST_ANSWER_CHARS: Final = 8_000
AT_ONCE: Final = 4
"Of one call; models ask for several tools in one breath."
IN_A_CALL: Final = 200
"A model that goes round in circles is stopped here."


@dataclass(frozen=True, slots=True)
class Places:
    """What the description of a tool depends on."""

    destinations: Mapping[str, Destination]
    now: datetime
    "By the clock that the opening hours are meant in."


@dataclass(frozen=True, slots=True)
class Errand:
    """One run of a tool."""

    call: "Call"
    heard: Callable[[], Awaitable[bool]]
    "Waits until the caller has heard what the model said so far; False: he cut it off."


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a model can do."""

    name: str
    arguments: type[BaseModel]
    "What the model's JSON is read by: strict about names, bounded."
    run: Callable[[Errand, Any], Awaitable[str]]
    "Returns what the model is told. Raises: ToolRefused, whose text the model is told; any other is for the log alone."
    describe: Callable[[Places], ToolSpec | None]
    "None: not in this call, there is nothing it could be used for."
    deadline_s: float = 15.0


@dataclass(slots=True)
class _Use:
    """How much of the tools one call has used."""

    runs: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))


@dataclass(frozen=True, slots=True)
class _Ran:
    """What became of one run."""

    outcome: str
    "A word for the log."
    answer: str
    "For the model."
    error: str = ""
    "For the log: what the model is not told."


class Toolbox:
    """Implements `dueto.agents.ports.Tools`: one for all calls of an agent."""

    def __init__(self, tools: Iterable[Tool], *, executor: ThreadPoolExecutor | None = None) -> None:
        """`executor`: the threads of the tools that are no coroutines; closed with the box."""
        self._tools = {tool.name: tool for tool in tools}
        self._used: WeakKeyDictionary[Call, _Use] = WeakKeyDictionary()
        self._executor = executor

    @property
    def names(self) -> list[str]:
        """What there is."""
        return list(self._tools)

    def deadline_s(self, name: str) -> float:
        """How long a tool may take."""
        return self._tools[name].deadline_s

    def specs(self, call: "Call") -> tuple[ToolSpec, ...]:
        """What the model is told of this call's tools."""
        return self.describe(Places(call.destinations, call.local_time()))

    def describe(self, places: Places) -> tuple[ToolSpec, ...]:
        """The same, without a call."""
        described = (tool.describe(places) for tool in self._tools.values())
        return tuple(spec for spec in described if spec is not None)

    async def run(self, call: "Call", name: str, arguments: str, heard: Callable[[], Awaitable[bool]]) -> str:
        """Do what the model asks, and return what became of it, as a text for the model.

        Raises: CallEnded: there is nobody left to tell.
        """
        tool = self._tools.get(name)
        if tool is None:
            call.note("tool", name="unknown", outcome="refused", took_ms=0)  # it may have made up any name
            return refusal(f"there is no such tool; there are {', '.join(self._tools) or 'none'}")
        use = self._used.setdefault(call, _Use())
        use.runs += 1
        if use.runs > IN_A_CALL:
            call.note("tool", name=name, outcome="too_many", took_ms=0)
            return refusal("this call has used its tools too often; go on without them")
        began = call.clock()
        ran = _Ran("cancelled", "")
        try:
            async with use.places:
                ran = await self._bounded(tool, Errand(call, heard), arguments)
        except CallEnded:
            ran = _Ran("call_ended", "")
            raise
        finally:
            why = {"error": ran.error} if ran.error else {}
            call.note("tool", name=name, outcome=ran.outcome, took_ms=round((call.clock() - began) * 1000), **why)
        answer = ran.answer
        return answer if len(answer) <= LONGEST_ANSWER_CHARS else answer[:LONGEST_ANSWER_CHARS] + "... (cut)"

    async def aclose(self) -> None:
        """Let the threads go; what still runs in one is not waited for."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _bounded(self, tool: Tool, errand: Errand, arguments: str) -> "_Ran":
        try:
            read = read_arguments(tool, arguments)
            async with asyncio.timeout(tool.deadline_s):
                return _Ran("ok", await tool.run(errand, read))
        except CallEnded:
            raise
        except ToolRefused as refused:
            return _Ran("refused", refusal(str(refused)), str(refused))
        except TimeoutError:
            return _Ran("timeout", refusal(f"no answer within {tool.deadline_s:g} s; it may have been done or not"))
        except DuetoError as error:
            return _Ran("failed", refusal(_in_general(error)), f"{type(error).__name__}: {error}")
        except Exception as error:  # a bug in somebody's tool: its author needs the traceback, the model does not
            errand.call.log.error("tool_traceback", tool=tool.name, exc_info=error)
            return _Ran("failed", refusal("it failed; do without it"), type(error).__name__)


def read_arguments(tool: Tool, arguments: str) -> BaseModel:
    """Read what a model wrote. Raises: ToolRefused: says what was expected, and repeats nothing of what was written."""
    if len(arguments) > LONGEST_ARGUMENTS_CHARS:
        raise ToolRefused(f"its arguments are too long; {LONGEST_ARGUMENTS_CHARS} characters are the most")
    try:
        return tool.arguments.model_validate_json(arguments.strip() or "{}")
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)[:5]
        sentences = [f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in problems]
        raise ToolRefused("; ".join(_short(sentence, 200) for sentence in sentences)) from None


def refusal(text: str, **facts: object) -> str:
    """What a model is told of something that was not done."""
    return msgspec.json.encode({"ok": False, "error": text, **facts}).decode()


def done(**facts: object) -> str:
    """What a model is told of something that was done."""
    return msgspec.json.encode({"ok": True, **facts}).decode()


def _in_general(error: DuetoError) -> str:
    """What a model is told of an error: it would read out to the caller how the house is built."""
    match error:
        case ReplyTimeout():
            return "the switch did not answer; it may have been done or not"
        case NotCapable() | LocalProtocolError():
            return "that can't be done in this call"
        case _:
            return "the switch did not do it"


def nearest(word: str, known: list[str]) -> str | None:
    """Return the name that `word` was probably meant to be."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return close[0] if close else None


def _short(text: str, limit: int = 64) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
