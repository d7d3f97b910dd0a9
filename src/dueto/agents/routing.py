"""Which agent takes a call: by what was dialled, who calls, the domain, channel variables, the stream's free key."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from dueto.call.house import CallRules, House
from dueto.call.keys import Key
from dueto.call.ports import Agent, Destination, Mouth

if TYPE_CHECKING:
    from dueto.call.call import Call

DOMAIN_VARIABLES: Final = ("domain_name", "sip_req_host", "sip_to_host")
"Where the domain stands: FusionPBX sets the first; the others are of the INVITE."


def pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches any of `texts`, whole, in upper or lower case; None: there are no texts.

    `*` is anything, `?` one character, `[0-9]` one of a set.
    """
    written = "|".join(translate(text) for text in texts)
    return re.compile(written, re.IGNORECASE) if written else None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who takes a call, and under which rules."""

    name: str
    "The agent's."
    agent: Agent
    destinations: Mapping[str, Destination]
    "Where its callers can be transferred to, and nowhere else."
    rules: CallRules
    mouth: Mouth | None = None
    keys: Mapping[str, Key] = field(default_factory=dict)
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[route]]`. What it does not speak of may be anything."""

    to: Assignment
    dialled: re.Pattern[str] | None = None
    caller: re.Pattern[str] | None = None
    domain: re.Pattern[str] | None = None
    secretary: re.Pattern[str] | None = None
    variables: Mapping[str, re.Pattern[str]] = field(default_factory=dict)

    @property
    def asks_the_switch(self) -> bool:
        """Whether it speaks of what only the control leg knows."""
        return bool(self.dialled or self.domain or self.variables)

    def matches(self, call: "Call") -> bool:
        """Whether it is meant for this call, by what is known of it now."""
        if self.dialled and not self.dialled.match(call.destination_number):
            return False
        if self.caller and not self.caller.match(call.caller_number):
            return False
        if self.secretary and not self.secretary.match(call.secretary):
            return False
        if self.domain and not self.domain.match(domain_of(call)):
            return False
        return all(wanted.match(call.variable(name)) for name, wanted in self.variables.items())


class Router:
    """Implements `dueto.call.house.Route`: the first rule that matches."""

    def __init__(self, rules: Sequence[Rule], otherwise: Assignment, *, patience_s: float) -> None:
        """`patience_s`: how long a call whose media came first waits for its control leg, where a rule needs it."""
        self._rules = rules
        self._otherwise = otherwise
        self._patience_s = patience_s
        self._house: House | None = None

    def settle(self, house: House) -> House:
        """Return the `house` of a gateway that routes: of a call not yet routed, and the pattern of those that are."""
        self._house = replace(house, route=self)
        return self._house

    async def __call__(self, call: "Call") -> House:
        """Return the house of this call."""
        assert self._house is not None, "settle() comes first"
        number, to = await self._choose(call)
        call.note("routed", route=number, agent=to.name, tenant=to.tenant)
        return replace(
            self._house,
            agent=to.agent,
            agent_name=to.name,
            tenant=to.tenant,
            destinations=to.destinations,
            rules=to.rules,
            mouth=to.mouth or self._house.mouth,
            keys=to.keys,
        )

    def foresee(self, call: "Call") -> Agent | None:
        """Return who will take a call whose control leg is here, by what that tells; None: it depends on the stream."""
        for rule in self._rules:
            if rule.secretary is not None:
                return None
            if rule.matches(call):
                return rule.to.agent
        return self._otherwise.agent

    async def _choose(self, call: "Call") -> tuple[int, Assignment]:
        """Return the number of the rule (0: none of them) and what it says."""
        joined = False
        for number, rule in enumerate(self._rules, start=1):
            if rule.asks_the_switch and not joined:
                joined = True
                await call.joined(self._patience_s)
            if rule.matches(call):
                return number, rule.to
        return 0, self._otherwise


def domain_of(call: "Call") -> str:
    """Return the domain that a call belongs to; empty where nobody said."""
    return next(filter(None, (call.variable(name) for name in DOMAIN_VARIABLES)), "")
