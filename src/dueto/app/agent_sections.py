"""`[agents.NAME]`: read by the kind it uses, and held against the rest of the configuration."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails

from dueto.agents.loading import find_kind, is_callable_name, kinds, read_profile
from dueto.agents.profiles import Profile
from dueto.app.environment import nearest
from dueto.errors import SettingsError

if TYPE_CHECKING:
    from dueto.app.settings import Settings


def _read(value: object) -> Profile:
    """Have the kind read its keys. Raises: pydantic.ValidationError, whose places are those within the section."""
    if isinstance(value, Profile):
        return value
    if not isinstance(value, Mapping):
        raise ValidationError.from_exception_data("agent", [_problem("model_type", (), value)])
    try:
        profile = read_profile(value)
    except SettingsError as error:
        raise _wrong_use(value["use"], str(error)) from None
    if profile is None:
        raise _wrong_use(value["use"], expected_kind(value["use"]))
    return profile


AgentSection = Annotated[SerializeAsAny[Profile], PlainValidator(_read)]
"One `[agents.NAME]`."


def expected_kind(use: str, names: Iterable[str] = ()) -> str:
    """Say what `use` can be, for one that is neither of `names` nor a kind."""
    known = [*names, *kinds()]
    close = nearest(use, known)
    listed = ", ".join(f'"{name}"' for name in known)
    return f'expected {listed} or "module:callable"' + (f'; did you mean "{close}"?' if close else "")


def agent_problems(settings: "Settings") -> Iterator[str]:
    """Yield what is wrong with the agents and with what is said of them elsewhere, one sentence each."""
    for name, profile in settings.agents.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
            yield f"[agents.{ascii(name)[1:-1]}]: expected a name of letters, digits, _ and -"
        yield from _fallback_problems(settings, name, profile)
    use = settings.agent.use
    if use not in settings.agents:
        yield from (f"[agent] use: {problem}" for problem in use_problems(use, settings.agents))


def use_problems(use: str, names: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with `use` where it can name an agent or a kind that asks for no keys."""
    if is_callable_name(use):
        return  # imported when it is to serve, not to print a dialplan
    try:
        if read_profile({"use": use}) is None:
            expected, semicolon, hint = expected_kind(use, names).partition("; ")
            yield f'{expected}, not "{use}"{semicolon}{hint}'
    except SettingsError as error:
        yield str(error)
    except ValidationError as error:
        missing = ", ".join(str(problem["loc"][-1]) for problem in error.errors() if problem["loc"])
        yield f'"{use}" has to be told its {missing}; write [agents.NAME] with use = "{use}", and its NAME here'


def list_keys(tree: Mapping[str, Any]) -> set[str]:
    """Return the keys that are lists, of the agents that `tree` (a configuration as it was written) speaks of."""
    return {
        key
        for profile in profile_classes(tree).values()
        for key, field in profile.model_fields.items()
        if getattr(field.annotation, "__origin__", None) in (tuple, list)
    }


def profile_classes(tree: Mapping[str, Any]) -> dict[str, type[Profile]]:
    """Return what reads each `[agents.NAME]` of a configuration as it was written; of a kind unknown, what all have."""
    sections = tree.get("agents")
    found = {}
    for name, section in (sections if isinstance(sections, Mapping) else {}).items():
        use = section.get("use") if isinstance(section, Mapping) else None
        try:
            kind = find_kind(use) if isinstance(use, str) else None
        except SettingsError:
            kind = None
        found[name] = Profile if kind is None else kind.profile
    return found


def _fallback_problems(settings: "Settings", name: str, profile: Profile) -> Iterator[str]:
    for fallback in profile.fallbacks:
        if fallback == name:
            yield f"[agents.{name}] fallbacks: {name} can't take over from itself"
        elif fallback not in settings.agents and fallback not in settings.destinations:
            known = [*settings.agents, *settings.destinations, *kinds()]
            if any(True for _ in use_problems(fallback, ())):
                close = nearest(fallback, known)
                hint = f'; did you mean "{close}"?' if close else ""
                yield f'[agents.{name}] fallbacks: there is no agent or destination "{fallback}"{hint}'


def _wrong_use(use: object, text: str) -> ValidationError:
    return ValidationError.from_exception_data(
        "agent", [_problem("value_error", ("use",), use, error=ValueError(text))]
    )


def _problem(kind: Any, place: tuple[str, ...], value: object, **context: Any) -> InitErrorDetails:
    details = InitErrorDetails(type=kind, loc=place, input=value)
    context = context or {"class_name": "Profile"}
    details["ctx"] = context
    return details
