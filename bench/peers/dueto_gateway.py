"""dueto as it serves: the real Gateway with tokens, metrics and JSON log lines, which are made and not written down.

    dueto_gateway.py AGENT [KEY=VALUE ...]        `echo`, `echo_and_note`, `slow`, or what `agent.use` takes

Keys are those of the configuration (`control.engine=greenswitch`).
"""

import asyncio
import gc
import os
import sys
from collections import Counter
from typing import Any

from _line import Notes, answer_until_the_end, say_ports

from dueto.agents.echo import echo
from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.serve import new_event_loop, settle
from dueto.app.settings import Settings
from dueto.call import Call
from dueto.call.events import HungUp
from dueto.call.hearing import Hearing
from dueto.call.mailbox import Mailbox
from dueto.call.session import Session
from dueto.call.stream_player import StreamPlayer
from dueto.legs.esl_outbound import OutboundLeg
from dueto.legs.media_server import PicowsMediaLeg

OF_CALLS = (Session, Call, OutboundLeg, PicowsMediaLeg, StreamPlayer, Hearing, Mailbox)
SECRET = "0123456789abcdef-bench"
notes = Notes()


async def echo_and_note(call: Call) -> None:
    """The echo, and a note of every event; of the hangup, its time."""
    call.audio_to(call.write_now)
    async for event in call.events():
        notes.events += 1
        if isinstance(event, HungUp):
            notes.hung_up(call.unique_id)


async def slow(call: Call) -> None:
    """Read one event, and think about it for good."""
    async for _ in call.events():
        notes.events += 1
        await asyncio.Event().wait()


def alive() -> dict[str, int]:
    """Count what must be gone when no call is left: tasks, and objects of calls (after a full collection)."""
    gc.collect()
    kinds = map(type, gc.get_objects())  # of the type: `isinstance` asks a weak proxy, which may be dead
    found = Counter(kind.__name__ for kind in kinds if issubclass(kind, OF_CALLS))
    return {"tasks": len(asyncio.all_tasks()), **found}


AGENTS = {"echo": echo, "echo_and_note": echo_and_note, "slow": slow}


def settings(*changes: str) -> Settings:
    """Return the configuration that is measured: free ports, tokens required, everything else as it comes."""
    values: dict[str, dict[str, Any]] = {
        "control": {"listen": "127.0.0.1:0", "max_calls": 20_000},
        "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
        "metrics": {"listen": ""},
    }
    for change in changes:
        key, _, value = change.partition("=")
        section, _, name = key.rpartition(".")
        values.setdefault(section, {})[name] = value
    return Settings.model_validate(values)


async def main(agent: str, *changes: str) -> None:
    """Serve until whoever measures is gone."""
    with open(os.devnull, "w") as nobody:  # noqa: ASYNC230 - before anything is served
        configure_logs("json", nobody)
        async with Gateway(settings(*changes), agent=AGENTS.get(agent)) as gateway:
            say_ports(control=gateway.control_port, media=gateway.media_port)
            notes.alive = alive
            settle()
            await answer_until_the_end(notes)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
