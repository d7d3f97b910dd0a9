"""Runs the calls: the real gateway, once for each dialect, and a simulated switch for each, on loopback sockets."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dueto.agents.cascade.kind import CascadeProfile
from dueto.agents.loading import load_agent
from dueto.agents.profiles import LoadedAgent
from dueto.app.demo.cast import DESTINATIONS, Actor, Lines, Role, telephones
from dueto.app.demo.narrator import narrated
from dueto.app.demo.notebook import Notebook
from dueto.app.demo.story import Story
from dueto.app.demo.telling import figures_of, moments_of, outcome_of
from dueto.app.gateway import Gateway
from dueto.app.settings import Settings, load_settings
from dueto.sim import Caller, Line, SimCall, Switch

APART_S = 2.0
"Between the beginnings of two calls."
LONGEST_CALL_S = 60.0
"A call that is not over by then is broken off, and judged by what had happened."
LET_GO_S = 10.0
RECORDINGS = "recordings"
PROFILES = {
    "cascade": CascadeProfile(
        use="cascade", greeting="Good morning. What can I do for you?", recognisers=1, listeners=4
    )
}
AgentName = Literal["receptionist", "echo"]


@dataclass(frozen=True, slots=True)
class OnStage:
    """A call that has been placed."""

    role: Role
    call: SimCall


async def perform(
    roles: Sequence[Role],
    agent_name: AgentName,
    lines: Lines,
    *,
    apart_s: float = APART_S,
    notebook: Notebook | None = None,
    placed: Callable[[OnStage], None] = lambda on_stage: None,
    out: Path | None = None,
) -> list[Story]:
    """Place the calls one after the other, wait for their ends, and return their stories in the order of `roles`.

    `placed` is told of each call as it begins. The gateways' own recordings go into a folder in `out`; None: there are
    none. Cancelling breaks everything off.
    Raises: SettingsError: the agent can't be had (an extra is missing), or a listener can't be opened.
    """
    notebook = notebook or Notebook()
    async with AsyncExitStack() as stack:
        agents: dict[str, LoadedAgent] = {}
        for name in dict.fromkeys(role.agent for role in roles):
            agents[name] = load_agent(name or agent_name, DESTINATIONS, PROFILES)
            stack.push_async_callback(agents[name].aclose)
        await asyncio.gather(*(agent.start() for agent in agents.values()))
        return await _perform(roles, agents, lines, apart_s, notebook, placed, out)


async def _perform(
    roles: Sequence[Role],
    agents: Mapping[str, LoadedAgent],
    lines: Lines,
    apart_s: float,
    notebook: Notebook,
    placed: Callable[[OnStage], None],
    out: Path | None,
) -> list[Story]:
    async with AsyncExitStack() as stack:
        houses: dict[object, tuple[Gateway, Switch]] = {}
        for role in {_house(role): role for role in roles}.values():
            settings, agent = _settings(role, out), agents[role.agent]
            gateway = await stack.enter_async_context(
                Gateway(settings, agent=narrated(agent, notebook), mouth=agent.mouth, journal=notebook.journal)
            )
            houses[_house(role)] = gateway, await stack.enter_async_context(_switch(gateway, role, seed=len(houses)))
        running = []
        async with asyncio.TaskGroup() as tasks:
            for number, role in enumerate(roles):
                if number:
                    await asyncio.sleep(apart_s)
                on_stage = await _place(role, houses[_house(role)][1], lines, notebook)
                placed(on_stage)
                tasks.create_task(_see_through(on_stage.call))
                running.append(on_stage)
        with contextlib.suppress(TimeoutError):  # a gateway that holds on to a call is told of in its figures
            async with asyncio.timeout(LET_GO_S):
                for gateway, _ in houses.values():
                    await gateway.desk.empty()
        first = running[0].call.placed_at if running else 0.0
        return [_story(on_stage, notebook, first, out) for on_stage in running]


def _house(role: Role) -> object:
    """Return what tells the gateways and switches of the calls apart."""
    return role.agent, role.dialect, role.busy, role.announced


def _settings(role: Role, out: Path | None) -> Settings:
    """A gateway on free ports, and nothing from this machine's environment."""
    return load_settings(
        None,
        {
            "control": {"listen": "127.0.0.1:0"},
            "media": {"listen": "127.0.0.1:0", "dialect": role.dialect, "secret": secrets.token_hex(16)},
            "metrics": {"listen": ""},
            "recording": {} if out is None else {"directory": str(out / RECORDINGS), "calls": "all"},
            "destinations": {
                d.name: {
                    "dial": d.dial,
                    "words": list(d.words),
                    "digit": d.digit,
                    "mode": "announced" if d.name in role.announced else "blind",
                }
                for d in DESTINATIONS
            },
        },
        {},
    )


def _switch(gateway: Gateway, role: Role, *, seed: int) -> Switch:
    settings = gateway.settings
    path = settings.media.path
    return Switch(
        f"127.0.0.1:{gateway.control_port}",
        f"ws://127.0.0.1:{gateway.media_port}{path}?rate={settings.media.rate_hz}&mix=mono&token={{token}}",
        secret=settings.media.secret.get_secret_value(),
        dialect="audio_stream" if role.dialect == "unicast" else role.dialect,
        start="gateway" if role.dialect == "unicast" else "dialplan",
        endpoints=telephones(role.busy, role.announced),
        seed=seed,  # the same one makes the same ids
    )


async def _place(role: Role, switch: Switch, lines: Lines, notebook: Notebook) -> OnStage:
    async def script(line: Line) -> None:
        def note(name: str, **fields: object) -> None:
            notebook.note(call.unique_id, "caller", name, **fields)

        await role.script(Actor(line, note, role.patience_s), lines)

    call = await switch.place(Caller(role.number, role.name, script))
    return OnStage(role, call)


async def _see_through(call: SimCall) -> None:
    try:
        async with asyncio.timeout(LONGEST_CALL_S):
            await call.over()
            await call.released()
    except TimeoutError:
        call.hang_up()
        await call.over()


def _story(on_stage: OnStage, notebook: Notebook, first: float, out: Path | None) -> Story:
    role, call = on_stage.role, on_stage.call
    notes = notebook.of(call)
    recorded = next((str(note.fields["path"]) for note in notes if note.name == "recording"), "")
    telephones: Mapping[str, str] = {destination.name: destination.dial for destination in DESTINATIONS}
    return Story(
        key=role.key,
        title=role.title,
        about=role.about,
        caller=f"{role.name}, {role.number}",
        unique_id=call.unique_id,
        dialect=role.dialect,
        started_s=call.placed_at - first,
        rate_hz=call.rate_hz,
        said=call.said,
        heard=call.heard,
        moments=moments_of(notes, call.placed_at),
        figures=figures_of(call, notes),
        outcome=outcome_of(call, notes, telephones),
        expected=role.expected,
        error=str(call.error) if call.error is not None else "",
        recording=os.path.relpath(recorded, out) if recorded and out is not None else "",
    )
