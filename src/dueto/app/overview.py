"""What a configuration comes to, for eyes: `dueto agents`, `dueto check`, `dueto tools`."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from dueto.agents.loading import BUILT_IN, find_kind, kinds, missing_extra
from dueto.agents.messages import Message
from dueto.agents.own_tools import load_tools
from dueto.agents.ports import ToolSpec
from dueto.agents.profiles import Profile, VoiceProfile
from dueto.agents.tools import Places
from dueto.app.gateway import Gateway
from dueto.app.sections import RouteSettings
from dueto.app.settings import Settings
from dueto.errors import SettingsError

ToolFormat = Literal["json", "elevenlabs"]
ELEVENLABS_LONGEST_S = 120


def agents_overview(settings: Settings) -> str:
    """List the kinds of agents on this machine, and the agents of the configuration."""
    lines = ["Kinds (`use = ...`):"]
    for name in kinds():
        try:
            find_kind(name)
            text = "ready" if name in BUILT_IN else "ready, of another package"
            if extra := missing_extra(name):
                text = f"needs pip install 'dueto[{extra}]'"
        except SettingsError as error:
            text = str(error)
        lines.append(f"  {name:<16} {text}")
    lines.append("  module:callable  an agent of your own")
    lines.append("Agents of this configuration:")
    lines += [f"  {name:<16} {_agent(profile)}" for name, profile in settings.agents.items()] or ["  none"]
    lines.append(f"Who answers: {_chain(settings, settings.agent.use)}")
    return "\n".join(lines) + "\n"


def check_overview(settings: Settings) -> str:
    """Build everything that `dueto serve` would, without opening a door, and say who gets which call.

    Raises: SettingsError: one line per problem.
    """
    Gateway(settings)
    lines = ["The configuration is good. Who gets which call:"]
    for number, route in enumerate(settings.route, start=1):
        agent = route.agent or settings.agent.use
        whose = f", tenant {route.tenant}" if route.tenant else ""
        lines.append(f"  {number}. {', '.join(_conditions(route)) or 'any'}: {_chain(settings, agent)}{whose}")
    rest = "all others" if settings.route else "all"
    lines.append(f"  {rest}: {_chain(settings, settings.agent.use)}")
    lines.append(f"Callers{' of no tenant' if settings.tenants else ''} can reach {_reachable(settings, '')}")
    for name, tenant in settings.tenants.items():
        most = f"; {tenant.max_calls} calls at once" if tenant.max_calls else ""
        lines.append(f"Callers of tenant {name} can reach {_reachable(settings, name)}{most}")
    lines += [f"Remark: {remark}" for remark in (*settings.settings_remarks, *_idle(settings))]
    return "\n".join(lines) + "\n"


def tools_listing(settings: Settings, agent: str, form: ToolFormat) -> str:
    """Return the tools of an agent as JSON: as models are told of them, or to be pasted into ElevenLabs, one by one.

    Raises: SettingsError: it has none.
    """
    name = agent or settings.agent.use
    profile = settings.agents.get(name)
    if profile is None:
        kind = find_kind(name)
        if kind is not None and issubclass(kind.profile, VoiceProfile):
            profile = kind.profile(use=name)
        elif kind is None:
            raise SettingsError(
                f'--agent: there is no agent "{name}"; there are {", ".join([*settings.agents, *kinds()])}'
            )
    if not isinstance(profile, VoiceProfile):
        raise SettingsError(f'the agent "{name}" has no tools; name one of [agents.NAME] that has: --agent NAME')
    box = load_tools(profile.tools, agent=name, keep=_keep_nothing)
    specs = box.describe(Places(settings.destinations_by_name(), datetime.now()))
    if form == "json":
        shown = [{"name": spec.name, "description": spec.description, "parameters": spec.parameters} for spec in specs]
        return _pretty(shown)
    return "\n".join(_pretty(elevenlabs_tool(spec, box.deadline_s(spec.name))) for spec in specs)


def elevenlabs_tool(spec: ToolSpec, deadline_s: float) -> dict[str, Any]:
    """Return a tool as ElevenLabs' form for a client tool takes it: a smaller schema, a description for every leaf."""
    return {
        "type": "client",
        "name": spec.name,
        "description": spec.description,
        "expects_response": True,
        "response_timeout_secs": min(round(deadline_s) + 5, ELEVENLABS_LONGEST_S),
        "parameters": _elevenlabs("arguments", spec.parameters),
    }


def _elevenlabs(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    for part in schema.get("anyOf", ()):  # `str | None`: what it is where it is given
        if part.get("type") != "null":
            return _elevenlabs(name, {**part, "description": schema.get("description", "")})
    text = schema.get("description") or name.replace("_", " ")
    if schema.get("type") == "object":
        properties = {key: _elevenlabs(key, inner) for key, inner in schema.get("properties", {}).items()}
        return {"type": "object", "required": schema.get("required", []), "description": text, "properties": properties}
    if schema.get("type") == "array":
        return {"type": "array", "description": text, "items": _elevenlabs("item", schema.get("items", {}))}
    choices = {"enum": schema["enum"]} if "enum" in schema and schema.get("type") == "string" else {}
    return {"type": schema.get("type", "string"), "description": text, **choices}


async def _keep_nothing(message: Message) -> None:
    """For describing `take_message` only."""


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _agent(profile: Profile) -> str:
    facts = [profile.use]
    if profile.fallbacks:
        facts.append(f"then {', '.join(profile.fallbacks)}")
    if profile.max_calls:
        facts.append(f"{profile.max_calls} calls at once")
    if isinstance(profile, VoiceProfile):
        facts.append(f"tools: {', '.join(profile.tools) or 'none'}")
    return "; ".join(facts)


def _chain(settings: Settings, name: str) -> str:
    profile = settings.agents.get(name)
    links = [name, *(() if profile is None else profile.fallbacks)]
    return ", then ".join(_link(settings, link) for link in links)


def _link(settings: Settings, name: str) -> str:
    if name in settings.agents:
        use = settings.agents[name].use
        return name if use == name else f"{name} ({use})"
    return f"destination {name}" if name in settings.destinations else name


def _idle(settings: Settings) -> Iterator[str]:
    """Yield what nobody ever gets."""
    working = {settings.agent.use, *(route.agent for route in settings.route)}
    for name in tuple(working & settings.agents.keys()):
        working.update(settings.agents[name].fallbacks)
    yield from (f"no call comes to [agents.{name}]" for name in settings.agents if name not in working)
    tenants = {route.tenant for route in settings.route}
    yield from (f"no route names [tenants.{name}]" for name in settings.tenants if name not in tenants)


def _reachable(settings: Settings, tenant: str) -> str:
    return ", ".join(settings.destinations_of(tenant)) or "nobody"


def _conditions(route: RouteSettings) -> Iterator[str]:
    for key in ("dialled", "caller", "domain", "secretary"):
        if texts := getattr(route, key):
            yield f"{key} {' or '.join(texts)}"
    for name, texts in route.variables.items():
        yield f"{name} = {' or '.join(texts)}"
