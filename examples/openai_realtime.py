"""A secretary that OpenAI Realtime speaks for, made in Python: OPENAI_API_KEY=... python openai_realtime.py

`openai_realtime.toml` says the same as a configuration, and uses the tool below.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

from dueto import Gateway, load_settings
from dueto.agents.openai_realtime import openai_realtime
from dueto.agents.own_tools import load_tools
from dueto.agents.provider import Manners, ProviderAgent


async def opening_hours(day: str) -> str:
    """Say when Acme is open on a day of the week."""
    return "closed" if day.lower() in ("saturday", "sunday") else "from nine to five"


def secretary(**options: Any) -> ProviderAgent:
    """Return the agent, for any number of calls."""
    connect = openai_realtime(
        api_key=os.environ["OPENAI_API_KEY"],
        instructions="You are the secretary of Acme. Answer in one or two short sentences.",
        greeting="Acme, good day! How can I help you?",
        **options,
    )
    tools = load_tools(["transfer_call", "end_call", opening_hours])
    return ProviderAgent(connect, tools=tools, manners=Manners(min_speech_ms=150))


async def main() -> None:
    async with Gateway(load_settings(Path("dueto.toml"), {}, os.environ), agent=secretary()) as gateway:
        await gateway.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
