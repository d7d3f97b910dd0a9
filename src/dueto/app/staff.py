"""Everybody who can take a call: each agent of a configuration, built once, and who gets which call."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dueto.agents.failover import FailOver, Limit, Limited, Post, connects_with
from dueto.agents.loading import load_agent
from dueto.agents.media_streams import Exchange
from dueto.agents.messages import KeepMessage
from dueto.agents.profiles import APOLOGY, LoadedAgent
from dueto.agents.routing import Assignment, Router, Rule, pattern
from dueto.app.sections import RouteSettings
from dueto.call.house import CallRules
from dueto.call.keys import parse_keys
from dueto.call.ports import Agent, Destination, Mouth

if TYPE_CHECKING:
    from dueto.app.settings import Settings


def _no_mouth() -> Mouth | None:
    return None


@dataclass(frozen=True, slots=True)
class Equipment:
    """What agents are built with."""

    environment: Mapping[str, str] = field(default_factory=dict)
    keepers: Mapping[str, KeepMessage] = field(default_factory=dict)
    "Where messages go, by tenant; those of the empty name are for all that have none of their own."
    exchange: Exchange | None = None
    "For agents whose peers call back: the calls that their REST requests speak of."
    mouth: Mouth | None = None
    "What all of them speak with, whatever they bring."
    spare_mouth: Callable[[], Mouth | None] = _no_mouth
    "Makes one for those that bring none."


class Staff:
    """The agents of a gateway. One that serves several tenants is built once for each; its limit is for all of them."""

    def __init__(
        self, settings: "Settings", rules: CallRules, equipment: Equipment, *, agent: Agent | None = None
    ) -> None:
        """`agent`, from code, takes the place of `agent.use`. Raises: SettingsError: one of them can't be built."""
        self._settings = settings
        self._rules = rules
        self._equipment = equipment
        self._spare_mouth: Mouth | None = None
        self._built: dict[tuple[str, str], LoadedAgent] = {}
        self._limits: dict[str, Limit] = {}
        self._tenant_limits = {name: Limit(tenant.max_calls) for name, tenant in settings.tenants.items()}
        self.otherwise = self._assignment(settings.agent.use, "", agent)
        "Who takes what no route speaks of."
        self._routes = [self._rule(route) for route in settings.route]

    @property
    def router(self) -> Router | None:
        """Who chooses, where there is a choice."""
        if not self._routes:
            return None
        return Router(self._routes, self.otherwise, patience_s=self._settings.correlation.warn_after_s)

    async def start(self) -> None:
        """Start every agent. Raises: SettingsError: one can't; all of them are for `aclose` then."""
        for built in self._built.values():
            await built.start()

    async def aclose(self) -> None:
        """Close every agent. Raises: what the first of them raised, when all are closed."""
        closing = (built.aclose() for built in self._built.values())
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _rule(self, route: RouteSettings) -> Rule:
        return Rule(
            self._assignment(route.agent or self._settings.agent.use, route.tenant),
            pattern(route.dialled),
            pattern(route.caller),
            pattern(route.domain),
            pattern(route.secretary),
            {name: found for name, texts in route.variables.items() if (found := pattern(texts)) is not None},
        )

    def _assignment(self, name: str, tenant_name: str, agent: Agent | None = None) -> Assignment:
        settings, rules = self._settings, self._rules
        tenant = settings.tenants.get(tenant_name)
        destinations = settings.destinations_of(tenant_name)
        when_full = settings.agent.when_full if tenant is None else tenant.when_full
        if tenant is not None and tenant.when_failed:
            rules = replace(rules, when_failed=tenant.when_failed)
        if agent is not None:
            name = getattr(agent, "__name__", type(agent).__name__)
            keys = parse_keys(settings.dtmf)
            mouth = self._equipment.mouth or self._spare()
            return Assignment(name, agent, destinations, rules, mouth, keys, tenant_name)
        posts = [self._post(name, tenant_name, destinations)]
        profile = settings.agents.get(name)
        for fallback in () if profile is None else profile.fallbacks:
            posts.append(self._post(fallback, tenant_name, destinations))
        run = posts[0].run
        if len(posts) > 1 or posts[0].limit.most:
            run = FailOver(posts, apology=APOLOGY if profile is None else profile.apology, when_full=when_full)
        if tenant is not None and tenant.max_calls:
            run = Limited(run, self._tenant_limits[tenant_name], tenant_name, when_full)
        keys = parse_keys(settings.dtmf if profile is None or profile.dtmf is None else profile.dtmf)
        return Assignment(name, run, destinations, rules, posts[0].mouth, keys, tenant_name)

    def _post(self, name: str, tenant: str, destinations: Mapping[str, Destination]) -> Post:
        """Who is called so: an agent, a destination, or a kind with its defaults."""
        settings, equipment = self._settings, self._equipment
        if name in destinations and name not in settings.agents:
            return Post(name, connects_with(name), equipment.mouth or self._spare())
        built = self._built.get((name, tenant))
        if built is None:
            built = load_agent(
                name,
                destinations.values(),
                settings.agents,
                equipment.environment,
                equipment.keepers.get(tenant, equipment.keepers.get("")),
                equipment.exchange,
            )
            self._built[name, tenant] = built
        profile = settings.agents.get(name)
        limit = self._limits.setdefault(name, Limit(0 if profile is None else profile.max_calls))
        return Post(name, built.run, equipment.mouth or built.mouth or self._spare(), limit)

    def _spare(self) -> Mouth | None:
        if self._spare_mouth is None:
            self._spare_mouth = self._equipment.spare_mouth()
        return self._spare_mouth
