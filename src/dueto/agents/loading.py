"""From `agent.use` to an agent that can be run."""

import importlib
import inspect
import sys
from pathlib import Path

from dueto.agents.echo import echo
from dueto.agents.profiles import LoadedAgent
from dueto.call.ports import Agent, Destination
from dueto.errors import SettingsError


def load_agent(use: str, destinations: list[Destination]) -> LoadedAgent:
    """Return the agent called `use`: `echo`, `receptionist`, or `module:callable`.

    Raises: SettingsError: there is no such agent, or an extra is missing; the text says what to do.
    """
    if use == "echo":
        return LoadedAgent("echo", echo)
    if use == "receptionist":
        try:
            from dueto.agents.receptionist import Receptionist
        except ImportError as error:
            missing = error.name
            raise SettingsError(f"the receptionist needs {missing}: pip install 'dueto[receptionist]'") from None
        receptionist = Receptionist(destinations)
        return LoadedAgent(use, receptionist, receptionist.mouth, receptionist.start, receptionist.aclose)
    return LoadedAgent(use, _imported(use))


def _imported(use: str) -> Agent:
    module_name, _, attribute = use.partition(":")
    if not attribute:
        raise SettingsError(f'[agent] use: expected "echo", "receptionist" or "module:callable", not "{use}"')
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` would: an agent beside the configuration is found
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(f'[agent] use: "{use}": {error}') from None
    target: object = found
    for name in attribute.split("."):
        target = getattr(target, name, None)
    if not callable(target):
        raise SettingsError(f'[agent] use: {module_name} has no callable "{attribute}"')
    call_method = getattr(target, "__call__", None)  # noqa: B004 - an object with an async __call__ is an agent too
    if not (inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call_method)):
        raise SettingsError(f'[agent] use: "{use}" is no coroutine function: write `async def {attribute}(call): ...`')
    return target
