"""Connections that wait for a call: there before it, replaced unnoticed, gone in the end; a refusal is said once."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from tests.agents.fakes.openai_realtime import KEY, Answer, fake_openai
from tests.support.tls import client_context

from dueto.agents import gemini_live, gemini_session, openai_realtime, openai_session
from dueto.agents.link import Link
from dueto.agents.openai_session import OpenAIOptions
from dueto.agents.ports import Opening, VoiceProvider
from dueto.agents.warm_links import LONGEST_PAUSE_S, OLDEST_S, PROVES_S, STEADY_S, Dial, WarmLinks
from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.settings import load_settings
from dueto.errors import Fault, ProviderFailed
from dueto.sim import Caller, Line, Switch, run_virtual

pytestmark = pytest.mark.at_once

SECRET = "0123456789abcdef0123456789abcdef"
SILENT = Opening(8000, greets=False)
T = TypeVar("T")


@pytest.fixture
def log() -> Callable[[], list[dict[str, Any]]]:
    """What was logged until now."""
    stream = io.StringIO()
    configure_logs("json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


# -- on sockets, with both providers


@dataclass
class There:
    """A provider's server, and the way to it."""

    links: WarmLinks
    connect: Callable[[Opening], Awaitable[VoiceProvider]]
    connections: Callable[[], list[Any]]
    said_on: Callable[[Any], bool]
    "Whether anything was said on that connection."
    end: Callable[[Any], None]
    "Closes it, as a server does that wants no idle ones."
    is_gone: Callable[[Any], asyncio.Event]

    async def until(self, met: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
            while not met():  # noqa: ASYNC110 - both ends have something to tell, each in its own turn
                await asyncio.sleep(0.005)

    async def warm(self, connections: int) -> Any:
        """Wait until so many connections were made and one of them waits; return the last."""
        await self.until(lambda: self.links.ready == 1 and len(self.connections()) == connections)
        return self.connections()[-1]


@contextlib.asynccontextmanager
async def openai(key: str = KEY) -> AsyncIterator[There]:
    async with fake_openai(tls=True) as server:
        options = OpenAIOptions(api_key=key, base_url=server.url, ssl=client_context())
        links = openai_session.links_of(options, size=1, name="secretary")
        yield There(
            links,
            lambda opening: openai_realtime.connect(options, links, opening),
            lambda: server.conversations,
            lambda one: bool(one.received),
            lambda one: one.close(1001, "idle"),
            lambda one: one.gone,
        )
        await links.aclose()


@contextlib.asynccontextmanager
async def gemini(key: str = "") -> AsyncIterator[There]:
    from tests.agents.fakes import gemini_live as fakes

    async def listens(session: Any) -> None:
        await session.connection.closed.wait()

    server = fakes.FakeGemini(listens)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    profile = gemini_live.GeminiProfile.model_validate({"use": "gemini", "base_url": url})
    links = gemini_session.links_of(url, key or fakes.KEY, size=1, name="secretary")
    try:
        yield There(
            links,
            lambda opening: gemini_live.connect(profile, links, opening),
            lambda: server.connections,
            lambda one: one in [session.connection for session in server.sessions],
            lambda one: one.close(1001, "idle"),
            lambda one: one.closed,
        )
        assert server.complaints == []
    finally:
        await links.aclose()
        await server.aclose()


both = pytest.mark.parametrize("provider", [openai, gemini])


@both
async def test_each_call_finds_a_connection_that_was_open_before_it(provider: Any) -> None:
    async with provider() as there:
        there.links.start()
        for number in (1, 2):
            waiting = await there.warm(number)
            assert not there.said_on(waiting)
            conversation = await there.connect(SILENT)
            assert there.said_on(waiting)
            await conversation.aclose()
            await there.is_gone(waiting).wait()


@both
async def test_a_connection_that_the_server_closed_costs_the_next_call_nothing(provider: Any) -> None:
    async with provider() as there:
        there.links.start()
        there.end(await there.warm(1))
        await there.until(lambda: there.links.ready == 0)
        conversation = await there.connect(SILENT)
        assert any(there.said_on(one) for one in there.connections()[1:])
        await conversation.aclose()


@both
async def test_nor_does_one_that_is_closed_while_the_call_takes_it(provider: Any) -> None:
    async with provider() as there:
        there.links.start()
        there.end(await there.warm(1))  # and nothing of it has come here
        conversation = await there.connect(SILENT)
        await there.is_gone(there.connections()[0]).wait()
        assert any(there.said_on(one) for one in there.connections()[1:])
        await conversation.aclose()


@both
async def test_nothing_is_left_open(provider: Any) -> None:
    async with provider() as there:
        there.links.start()
        waiting = await there.warm(1)
        await there.links.aclose()
        async with asyncio.timeout(15):
            await there.is_gone(waiting).wait()
        conversation = await there.connect(SILENT)  # it can still be had, on a connection of its own
        await conversation.aclose()
        assert len(there.connections()) == 2
        assert there.links.ready == 0


@pytest.mark.parametrize(("provider", "key"), [(openai, "sk-wrong"), (gemini, "AIza-wrong")])
async def test_a_wrong_key_is_said_once(provider: Any, key: str, log: Callable[[], list[dict[str, Any]]]) -> None:
    async with provider(key) as there:
        there.links.start()
        for _ in range(2):
            with pytest.raises(ProviderFailed) as caught:
                await there.connect(SILENT)
            assert caught.value.fault == "auth"
        await there.until(log)
    [said] = log()
    assert said["event"] == "no_warm_links"
    assert said["agent"] == "secretary"
    assert "does not accept the API key" in said["error"]
    assert key not in json.dumps(said)


async def test_a_configured_agent_has_its_connection_before_the_first_call_and_none_after_the_last() -> None:
    async def talk(line: Line) -> None:
        await line.hears_speech()

    async with fake_openai([Answer("Good day.", 300)]) as server:
        secretary = {"use": "openai", "api_key": KEY, "base_url": server.url, "warm": 1}
        settings = load_settings(
            None,
            {
                "control": {"listen": "127.0.0.1:0"},
                "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
                "metrics": {"listen": ""},
                "agent": {"use": "secretary"},
                "agents": {"secretary": secretary},
            },
            {},
        )
        async with Gateway(settings) as gateway:
            await server.until(lambda: server.conversations)
            url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=8000&token={{token}}"
            async with Switch(f"127.0.0.1:{gateway.control_port}", url, secret=SECRET) as switch:
                call = await switch.place(Caller(script=talk))
                await call.done()
                await gateway.desk.empty()
        async with asyncio.timeout(15):
            for conversation in server.conversations:
                await conversation.gone.wait()
        assert server.conversations[0].of("session.update")


# -- on the virtual clock, with connections that are none


class Wire(Link):
    """A connection in memory."""

    async def aclose(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        self.closed = True


@dataclass
class Acme:
    """A provider."""

    fault: Fault | None = None
    "Of every attempt to connect."
    lives_s: float = 1e9
    "Then it closes a connection."
    wires: list[Wire] = field(default_factory=list)
    attempts: list[float] = field(default_factory=list)

    async def dial(self, on_message: Callable[[bytes], None], on_closed: Callable[[ProviderFailed], None]) -> Link:
        loop = asyncio.get_running_loop()
        self.attempts.append(loop.time())
        await asyncio.sleep(0.5)
        if self.fault is not None:
            raise ProviderFailed(self.fault, "Acme does not want us")
        wire = Wire("Acme", on_message, on_closed)
        self.wires.append(wire)
        loop.call_later(self.lives_s, self._end, wire, on_closed)
        return wire

    def _end(self, wire: Wire, on_closed: Callable[[ProviderFailed], None]) -> None:
        if not wire.closed:
            wire.closed = True
            on_closed(ProviderFailed("dropped", "Acme closed the connection"))

    @property
    def open(self) -> list[Wire]:
        return [wire for wire in self.wires if not wire.closed]


async def talked(dial: Dial) -> Link:
    return await dial(lambda message: None, lambda failure: None)


def over(acme: Acme, size: int, story: Callable[[WarmLinks], Awaitable[T]]) -> T:
    """Run `story` with that many warm connections, on the virtual clock."""

    async def main() -> T:
        links = WarmLinks(acme.dial, size=size)
        links.start()
        try:
            return await story(links)
        finally:
            await links.aclose()

    return run_virtual(main())


def test_a_connection_that_nobody_wants_is_replaced_before_it_is_closed() -> None:
    acme = Acme()

    async def story(links: WarmLinks) -> None:
        await asyncio.sleep(2)
        for _ in range(1000):
            await asyncio.sleep(1)
            assert links.ready >= 2
            assert len(acme.open) <= 3

    over(acme, 2, story)
    assert len(acme.attempts) == pytest.approx(2 * 1000 / OLDEST_S, abs=4)
    assert acme.open == []


def test_a_wrong_key_is_tried_once_and_again_when_a_call_got_through(log: Callable[[], list[dict[str, Any]]]) -> None:
    acme = Acme("auth")

    async def story(links: WarmLinks) -> None:
        await asyncio.sleep(3600)
        assert len(acme.attempts) == 1
        acme.fault = None
        await links.begin(talked)
        await asyncio.sleep(5)
        assert links.ready == 2

    over(acme, 2, story)
    assert [line["event"] for line in log()] == ["no_warm_links"]


@pytest.mark.parametrize("acme", [Acme("refused"), Acme("quota"), Acme(lives_s=0.0), Acme(lives_s=STEADY_S / 2)])
def test_a_provider_that_refuses_is_left_alone_longer_and_longer(
    acme: Acme, log: Callable[[], list[dict[str, Any]]]
) -> None:
    over(acme, 1, lambda links: asyncio.sleep(3600))
    assert 3600 / (LONGEST_PAUSE_S + STEADY_S) < len(acme.attempts) < 3600 / LONGEST_PAUSE_S + 10
    assert [line["event"] for line in log()] == ["no_warm_links"]


def test_one_that_closes_idle_connections_late_is_asked_for_the_next_at_once() -> None:
    acme = Acme(lives_s=STEADY_S * 2)

    async def story(links: WarmLinks) -> int:
        found = 0
        for _ in range(600):
            await asyncio.sleep(1)
            found += links.ready
        return found

    assert over(acme, 1, story) > 550


def test_a_connection_over_which_nothing_comes_any_more_is_given_up_for_a_fresh_one() -> None:
    acme = Acme()

    async def story(links: WarmLinks) -> tuple[Link, float]:
        await asyncio.sleep(5)
        began = asyncio.get_running_loop().time()

        async def conversation(dial: Dial) -> Link:
            link = await talked(dial)
            if link is acme.wires[0]:
                await asyncio.Event().wait()
            return link

        link = await links.begin(conversation)
        return link, asyncio.get_running_loop().time() - began

    link, took_s = over(acme, 1, story)
    assert link is not acme.wires[0]
    assert took_s == pytest.approx(PROVES_S + 0.5)


def test_what_the_provider_said_before_the_call_is_told_to_the_call() -> None:
    acme = Acme()

    async def story(links: WarmLinks) -> list[bytes]:
        await asyncio.sleep(5)
        acme.wires[0]._on_message(b"welcome")
        told: list[bytes] = []

        async def conversation(dial: Dial) -> Link:
            return await dial(told.append, lambda failure: None)

        await links.begin(conversation)
        acme.wires[0]._on_message(b"and so on")
        return told

    assert over(acme, 1, story) == [b"welcome", b"and so on"]
