"""dueto as it serves, with the agent that talks to OpenAI Realtime; the provider is ours, over TLS."""

import asyncio
import os

from _line import Notes, answer_until_the_end, say_ports
from _realtime import provider, trusting
from dueto_gateway import settings

from dueto.agents.openai_realtime import openai_realtime
from dueto.agents.provider import ProviderAgent
from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.serve import new_event_loop, settle


async def main() -> None:
    """Serve until whoever measures is gone."""
    port, ca = provider()
    agent = ProviderAgent(openai_realtime(url=f"https://127.0.0.1:{port}/v1", api_key="sk-bench", ssl=trusting(ca)))
    with open(os.devnull, "w") as nobody:  # noqa: ASYNC230 - before anything is served
        configure_logs("json", nobody)
        async with Gateway(settings(), agent=agent) as gateway:
            say_ports(control=gateway.control_port, media=gateway.media_port)
            settle()
            await answer_until_the_end(Notes())


with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
