"""Tools of your own: typed Python functions, `tools = ["my_module:lookup_order"]`.

    async def lookup_order(number: int, call: Call) -> str:
        \"\"\"Say where an order is, by its number.\"\"\"
        return await shop.where(number, caller=call.caller_number)

The docstring is what the model knows of it, the types are what its arguments are checked by, and what is returned is
what the model is told: a text, or anything that is JSON. A parameter of type `Call` gets the call. `ToolRefused` raised
says to the model what it can do instead.
"""

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from dueto.agents.call_tools import NAMES, call_tools
from dueto.agents.loading import is_callable_name, load_object
from dueto.agents.messages import KeepMessage
from dueto.agents.ports import ToolSpec
from dueto.agents.schemas import arguments_of, described, schema_of
from dueto.agents.tools import Errand, Tool, Toolbox, nearest
from dueto.errors import SettingsError, ToolRefused

THREADS: Final = 8
"For the functions of all calls that are no coroutines."


def load_tools(
    names: Iterable[str | Callable[..., Any]],
    *,
    agent: str = "agent",
    keep: KeepMessage | None = None,
    deadline_s: float = 15.0,
) -> Toolbox:
    """Return the tools called `names`: ours, or `module:function`; from code, functions as they are.

    `deadline_s`: how long your own may take. `keep` takes the messages of `take_message`.
    Raises: SettingsError: there is no such tool, or it can't be one; one line per problem.
    """
    ours = call_tools(agent, keep)
    executor = ThreadPoolExecutor(THREADS, thread_name_prefix="dueto tool")  # starts a thread when one is needed
    tools: dict[str, Tool] = {}
    problems = []
    for name in names:
        try:
            tool = ours.get(name) if isinstance(name, str) else None
            tool = tool or from_function(_function(name), str(name), executor, deadline_s=deadline_s)
            if tool.name in tools:
                raise SettingsError(f"there are two tools called {tool.name}")
            tools[tool.name] = tool
        except SettingsError as error:
            problems.append(f"[agents.{agent}] tools: {error}")
    if problems:
        raise SettingsError("\n".join(problems))
    return Toolbox(tools.values(), executor=executor)


def from_function(
    function: Callable[..., Any], where: str, executor: ThreadPoolExecutor, *, deadline_s: float = 15.0
) -> Tool:
    """Make a tool of a typed function. One that is no coroutine runs in a thread. Raises: SettingsError."""
    name, text = described(function, where)
    arguments, takes_call = arguments_of(function, where)
    spec = ToolSpec(name, text, schema_of(arguments))

    async def run(errand: Errand, read: BaseModel) -> str:
        given = {key: getattr(read, key) for key in type(read).model_fields}
        if takes_call:
            given[takes_call] = errand.call
        if inspect.iscoroutinefunction(function):
            result = await function(**given)
        else:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(executor, functools.partial(function, **given))
        return _as_text(result)

    return Tool(name, arguments, run, lambda places: spec, deadline_s)


def _as_text(result: object) -> str:
    if result is None:
        return "done"
    if isinstance(result, str):
        return result
    try:
        return to_json(result).decode()
    except PydanticSerializationError:
        raise ToolRefused("it answered with something that is no text") from None


def _function(name: str | Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(name, str):
        return name
    if name == "take_message":
        raise SettingsError('take_message needs to know where messages go: [records] messages = "/path/messages.jsonl"')
    if not is_callable_name(name):
        close = nearest(name, list(NAMES))
        hint = f'; did you mean "{close}"?' if close else ""
        raise SettingsError(f'expected one of {", ".join(NAMES)} or "module:function", not "{name}"{hint}')
    found = load_object(name, f'the tool "{name}"')
    if not callable(found):
        raise SettingsError(f'"{name}" is no function')
    return found
