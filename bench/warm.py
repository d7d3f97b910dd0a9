"""What a connection that is open before the call saves: from the call's start until the provider is ready.

`early`: it is opened with the call's control leg, and the stream comes that much later.

    python -m bench.warm [--round-trip 150] [--calls 10]

The providers are the tests' strict ones, behind TLS and a relay that holds every byte for half a round trip, and a new
connection for a whole one, as the handshake of TCP would. Nothing else takes time there: a real model has its own.
"""

import argparse
import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.agents.fakes.gemini_live import KEY as GEMINI_KEY
from tests.agents.fakes.gemini_live import FakeGemini
from tests.agents.fakes.openai_realtime import KEY as OPENAI_KEY
from tests.agents.fakes.openai_realtime import fake_openai
from tests.support.tls import client_context, server_context

from dueto.agents import gemini_live, gemini_session, openai_realtime, openai_session
from dueto.agents.ports import Connect, Opening
from dueto.agents.warm_links import WarmLinks

OPENING = Opening(8000, greets=False, call_id="the next")
Made = tuple[WarmLinks, Connect]


@asynccontextmanager
async def far_away(port: int, round_trip_s: float) -> AsyncIterator[int]:
    """Yield a port that leads to that one, as if it were so far away."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            loop.call_later(round_trip_s / 2, writer.write, data)
        loop.call_later(round_trip_s / 2, writer.close)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip_s)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for task in (asyncio.ensure_future(carry(reader, back)), asyncio.ensure_future(carry(there, writer))):
            tasks.add(task)

    relay = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield relay.sockets[0].getsockname()[1]
    finally:
        relay.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def openai(round_trip_s: float) -> AsyncIterator[Callable[[int], Made]]:
    """Yield what makes the way to OpenAI, with so many warm connections."""
    async with fake_openai(tls=True) as server, far_away(urlsplit(server.url).port or 0, round_trip_s) as port:
        url = f"https://localhost:{port}/v1"
        options = openai_session.OpenAIOptions(api_key=OPENAI_KEY, base_url=url, ssl=client_context())

        def make(size: int) -> Made:
            links = openai_session.links_of(options, size=size)
            return links, lambda opening: openai_realtime.connect(options, links, opening)

        yield make


@asynccontextmanager
async def gemini(round_trip_s: float) -> AsyncIterator[Callable[[int], Made]]:
    """Yield what makes the way to Gemini, with so many warm connections."""

    async def listens(session: Any) -> None:
        await session.connection.closed.wait()

    server = FakeGemini(listens)
    await server.start(server_context())
    try:
        async with far_away(server.port, round_trip_s) as port:
            url = f"https://localhost:{port}"
            profile = gemini_live.GeminiProfile(use="gemini", base_url=url)

            def make(size: int) -> Made:
                links = gemini_session.links_of(url, GEMINI_KEY, client_context(), size=size)
                return links, lambda opening: gemini_live.connect(profile, links, opening)

            yield make
    finally:
        await server.aclose()


async def took_ms(connect: Connect, ready: Callable[[], Awaitable[None]], calls: int) -> list[float]:
    """Return how long each of so many calls waited for its provider, one after the other."""
    loop, took = asyncio.get_running_loop(), []
    for _ in range(calls):
        await ready()
        began = loop.time()
        conversation = await connect(OPENING)
        took.append((loop.time() - began) * 1000)
        await conversation.aclose()
    return took


async def measure(round_trip_s: float, calls: int) -> None:
    """Print the table."""
    print(f"round trip {round_trip_s * 1000:.0f} ms, {calls} calls; ms until the provider is ready, median (longest)")
    for name, provider in (("OpenAI", openai), ("Gemini", gemini)):
        for gap_s in (0.1, 0.3, 0.6):
            async with provider(round_trip_s) as make:
                links, connect = make(0)

                async def expected(links: WarmLinks = links, gap_s: float = gap_s) -> None:
                    links.expected.expect(OPENING.call_id)
                    await asyncio.sleep(gap_s)

                took = await took_ms(connect, expected, calls)
                await links.aclose()
            print(f"{name}, early, {gap_s * 1000:.0f} ms: {statistics.median(took):.0f} ({max(took):.0f})")
        for size in (0, 1):
            async with provider(round_trip_s) as make:
                links, connect = make(size)
                links.start()

                async def ready(links: WarmLinks = links, size: int = size) -> None:
                    while links.ready < size:  # noqa: ASYNC110 - it is the time between two calls
                        await asyncio.sleep(0.01)

                try:
                    took = await took_ms(connect, ready, calls)
                finally:
                    await links.aclose()
            print(f"{name}, {'warm' if size else 'cold'}: {statistics.median(took):.0f} ({max(took):.0f})")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--round-trip", type=float, default=150.0, help="in ms")
    parser.add_argument("--calls", type=int, default=10)
    options = parser.parse_args()
    asyncio.run(measure(options.round_trip / 1000, options.calls))


if __name__ == "__main__":
    main()
