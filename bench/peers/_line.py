"""How a measured server talks to whoever measures it, whatever environment it runs in (standard library only).

It prints one line of JSON with its ports. Then, for every line it is sent, it answers with one line of JSON: how many
events its application has read so far (`events`), and when, by the system-wide monotonic clock, its application got to
know of which hangup (`told`, by Unique-ID; told once, then forgotten). Where it can, the word `alive` brings what is
left of calls as well. At the end of its input it ends.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable

CONTROL_HEADERS = (
    "Event-Name",
    "Unique-ID",
    "Event-Sequence",
    "Answer-State",
    "Hangup-Cause",
    "Caller-Caller-ID-Number",
)
"What an application reads of every event in these measures."
READY = "uuid_setvar {} ready 1"
"The api command that ends a set-up: the application knows its channel, and is subscribed."


class Notes:
    """What a server's application has seen."""

    def __init__(self) -> None:
        self.events = 0
        self.told: dict[str, int] = {}
        self.alive: Callable[[], dict[str, int]] = dict
        "Counts what calls have left behind."

    def hung_up(self, unique_id: str) -> None:
        """The application has just been told that this channel is gone."""
        self.told[unique_id] = time.monotonic_ns()

    def answer(self, question: str = "") -> str:
        """Return the line that answers a question."""
        told, self.told = self.told, {}
        alive = self.alive() if question == "alive" else {}
        return json.dumps({"events": self.events, "told": told, "alive": alive})


def say(line: str) -> None:
    """Print one line, now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_ports(**ports: int) -> None:
    """Print where the server listens: `control`, `media`."""
    say(json.dumps(ports))


async def answer_until_the_end(notes: Notes) -> None:
    """Answer questions until whoever asks is gone."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def asked() -> None:
        data = os.read(0, 4096)
        if not data:
            over.set()
        for question in data.decode().splitlines():
            say(notes.answer(question))

    loop.add_reader(0, asked)
    try:
        await over.wait()
    finally:
        loop.remove_reader(0)
