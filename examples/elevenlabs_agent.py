"""An agent made at ElevenLabs on your own telephone line: ELEVENLABS_API_KEY=... python elevenlabs_agent.py AGENT_ID

Its client tools are printed by `dueto tools --config elevenlabs_agent.toml --format elevenlabs`.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from dueto import Gateway, load_settings
from dueto.agents.elevenlabs import elevenlabs
from dueto.agents.own_tools import load_tools
from dueto.agents.provider import ProviderAgent


def secretary(agent_id: str, **options: Any) -> ProviderAgent:
    """Return the agent, for any number of calls. Its prompt may speak of {{company}} and {{caller_number}}."""
    connect = elevenlabs(
        agent_id=agent_id,
        api_key=os.environ["ELEVENLABS_API_KEY"],
        variables={"company": "Acme"},
        **options,
    )
    return ProviderAgent(connect, tools=load_tools(["transfer_call", "end_call"]))


async def main(agent_id: str) -> None:
    settings = load_settings(Path("dueto.toml"), {}, os.environ)
    async with Gateway(settings, agent=secretary(agent_id)) as gateway:
        await gateway.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
