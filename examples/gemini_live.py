"""A secretary that Gemini Live speaks for, made in Python: GEMINI_API_KEY=... python gemini_live.py

`gemini_live.toml` says the same as a configuration. The tool is that of order_tool.py.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

from dueto import Gateway, load_settings
from dueto.agents.gemini_live import gemini_live
from dueto.agents.own_tools import load_tools
from dueto.agents.provider import ProviderAgent


def secretary(**options: Any) -> ProviderAgent:
    """Return the agent, for any number of calls."""
    connect = gemini_live(
        api_key=os.environ["GEMINI_API_KEY"],
        voice="Kore",
        instructions="You are the secretary of Acme. Answer in one or two short sentences.",
        greeting="Acme, good day! How can I help you?",
        **options,
    )
    return ProviderAgent(connect, tools=load_tools(["transfer_call", "end_call", "order_tool:lookup_order"]))


async def main() -> None:
    async with Gateway(load_settings(Path("dueto.toml"), {}, os.environ), agent=secretary()) as gateway:
        await gateway.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
