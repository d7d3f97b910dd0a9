"""What the sections of a configuration say of each other: names that must exist, and be meant once."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dueto.app.agent_sections import agent_problems, use_problems
from dueto.app.environment import nearest
from dueto.app.sections import DestinationSettings, RouteSettings
from dueto.call.keys import parse_keys

if TYPE_CHECKING:
    from dueto.app.settings import Settings

_LEAVING = ("return_to_dialplan", "hangup")


def problems_between_sections(settings: "Settings") -> list[str]:
    """Return what is wrong, one sentence each."""
    problems = [
        *_destination_problems(settings.destinations),
        *agent_problems(settings),
        *_tenant_problems(settings),
        *(problem for at, route in enumerate(settings.route, 1) for problem in _route_problems(settings, at, route)),
    ]
    tables = {"[dtmf]": settings.dtmf} | {
        f"[agents.{name}.dtmf]": profile.dtmf or {} for name, profile in settings.agents.items()
    }
    for where, table in tables.items():
        for digit, key in parse_keys(table).items():
            if key.target and key.target not in settings.destinations:
                problems.append(f'{where} "{digit}": there is no destination "{key.target}"')
    problems += _when_failed_problems("[agent]", settings.agent.when_failed, settings.destinations)
    return problems


def _destination_problems(destinations: Mapping[str, DestinationSettings]) -> Iterator[str]:
    for name in destinations:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) or name in _LEAVING:
            yield f"[destinations.{ascii(name)[1:-1]}]: expected a name of letters, digits, _ and -"
        yield from _fallback_problems(name, destinations)


def _fallback_problems(name: str, destinations: Mapping[str, DestinationSettings]) -> Iterator[str]:
    entry, seen = destinations[name], {name}
    if entry.fallback and not entry.when:
        yield f"[destinations.{name}] fallback: without `when` it is open always, and needs none"
        return
    while entry.fallback:
        if entry.fallback not in destinations:
            yield f'[destinations.{name}] fallback: there is no destination "{entry.fallback}"'
            return
        if entry.fallback in seen:
            yield f'[destinations.{name}] fallback: "{entry.fallback}" leads back to where it began'
            return
        seen.add(entry.fallback)
        entry = destinations[entry.fallback]


def _tenant_problems(settings: "Settings") -> Iterator[str]:
    for name, tenant in settings.tenants.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            yield f"[tenants.{ascii(name)[1:-1]}]: expected a name of letters, digits, . _ and -"
        strangers = [one for one in tenant.destinations if one not in settings.destinations]
        for stranger in strangers:
            yield f'[tenants.{name}] destinations: there is no destination "{stranger}"{_hint(stranger, settings)}'
        if strangers:
            continue
        theirs = settings.destinations_of(name)
        yield from _alike(f"[tenants.{name}] ", {one: settings.destinations[one] for one in theirs})
        for one in theirs.values():
            if one.fallback and one.fallback not in theirs:
                yield f'[tenants.{name}] destinations: "{one.fallback}", the fall-back of {one.name}, is missing'
        if tenant.when_failed:
            yield from _when_failed_problems(f"[tenants.{name}]", tenant.when_failed, theirs)
    if all(one in settings.destinations for tenant in settings.tenants.values() for one in tenant.destinations):
        yield from _alike("", {one: settings.destinations[one] for one in settings.destinations_of("")})


def _alike(place: str, destinations: Mapping[str, DestinationSettings]) -> Iterator[str]:
    """Yield which of the destinations that a caller chooses among could not be told apart."""
    digits: dict[str, str] = {}
    words: dict[str, str] = {}
    for name, entry in destinations.items():
        if entry.digit and digits.setdefault(entry.digit, name) != name:
            yield f'{place}[destinations.{name}] digit: "{entry.digit}" is that of {digits[entry.digit]} already'
        for word in entry.words:
            if words.setdefault(word, name) != name:
                yield f'{place}[destinations.{name}] words: "{word}" is one of {words[word]} already'


def _route_problems(settings: "Settings", at: int, route: RouteSettings) -> Iterator[str]:
    if not route.agent and not route.tenant:
        yield f"[[route]] {at}: expected an agent, or a tenant, or both"
    if route.agent and route.agent not in settings.agents:
        yield from (f"[[route]] {at}, agent: {problem}" for problem in use_problems(route.agent, settings.agents))
    if route.tenant and route.tenant not in settings.tenants:
        close = nearest(route.tenant, list(settings.tenants))
        hint = f'; did you mean "{close}"?' if close else f"; write [tenants.{route.tenant}]"
        yield f'[[route]] {at}, tenant: there is no tenant "{route.tenant}"{hint}'
        return
    profile = settings.agents.get(route.agent or settings.agent.use)
    theirs = settings.destinations_of(route.tenant) if not list(_strangers(settings)) else settings.destinations
    for fallback in () if profile is None else profile.fallbacks:
        if fallback in settings.destinations and fallback not in settings.agents and fallback not in theirs:
            whose = f"tenant {route.tenant}" if route.tenant else "callers without a tenant"
            yield f'[[route]] {at}: "{fallback}", a fall-back of the agent, is no destination of {whose}'


def _strangers(settings: "Settings") -> Iterator[str]:
    for tenant in settings.tenants.values():
        yield from (one for one in tenant.destinations if one not in settings.destinations)


def _when_failed_problems(place: str, failed: str, destinations: Mapping[str, object]) -> Iterator[str]:
    if failed in _LEAVING or failed in destinations:
        return
    close = nearest(failed, [*_LEAVING, *destinations])
    hint = f'; did you mean "{close}"?' if close else ""
    expected = 'expected "return_to_dialplan", "hangup" or the name of a destination'
    yield f'{place} when_failed: {expected}, not "{failed}"{hint}'


def _hint(name: str, settings: "Settings") -> str:
    close = nearest(name, list(settings.destinations))
    return f'; did you mean "{close}"?' if close else ""
