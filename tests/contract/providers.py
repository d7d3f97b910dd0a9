"""Every voice provider there is, before the same story: a strict fake each, told in that fake's own way.

The story: the caller says something, and the model says "Good morning." (400 ms); he says something else, and it looks
up `{"a": "b"}`, then says "Found." (200 ms); whatever he says then, it begins a story that takes ten seconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from tests.agents.fakes.openai_realtime import KEY as OPENAI_KEY
from tests.agents.fakes.openai_realtime import Answer, fake_openai
from tests.agents.fakes.sockets import Hearing
from tests.agents.scripted import ScriptedProvider

from dueto.agents.openai_realtime import openai_realtime
from dueto.agents.ports import CallerBegan, CallerStopped, Connect, Line, ToolAsked, Transcribed
from dueto.errors import ProviderFailed

Trouble = Literal["", "key", "silent"]
STORY_MS = 10_000
LOOK_UP = {"a": "b"}


@dataclass
class Stage:
    """Where the story is told."""

    connect: Connect
    brought: list[str] = field(default_factory=list)
    "What tools brought, as the model got it."
    breaks_off: Callable[[], None] = lambda: None
    "The provider is gone, for good."
    key: str = ""


Rig = Callable[[Trouble], contextlib.AbstractAsyncContextManager[Stage]]


@contextlib.asynccontextmanager
async def scripted(trouble: Trouble) -> AsyncIterator[Stage]:
    """In memory."""
    hearing = Hearing()
    speaking: list[asyncio.Task[None]] = []
    stage = Stage(lambda opening: model.connect(opening), key="secret")

    async def hears(text: str, turn: int) -> None:
        await hearing.until(lambda: hearing.turns > turn)
        model.tell(CallerBegan())
        await hearing.until(lambda: hearing.ends > turn)
        model.tell(CallerStopped())
        model.tell(Transcribed(Line("caller", text)))

    async def story(told: ScriptedProvider) -> None:
        await hears("Hello.", 0)
        await told.says("one", 400)
        told.tell(Transcribed(Line("agent", "Good morning."), "one"))
        await hears("Look it up.", 1)
        told.tell(ToolAsked("ask", "look_up", '{"a": "b"}'))
        stage.brought.append((await told.until("answer", "ask"))[2])
        await told.says("two", 200)
        await hears("And now?", 2)
        speaking.append(asyncio.ensure_future(told.says("three", STORY_MS, pace=0.2)))
        await hears("", 3)

    class Hears(ScriptedProvider):
        def hear(self, frame: bytes) -> None:
            super().hear(frame)
            hearing.hear(np.frombuffer(frame, np.int16), self.hears_hz)

        def cancel(self) -> None:
            super().cancel()
            for task in speaking:
                task.cancel()

        async def aclose(self) -> None:
            await super().aclose()
            self.cancel()
            await asyncio.gather(*speaking, return_exceptions=True)

    refuses = {
        "": None,
        "key": ProviderFailed("auth", "Acme does not accept the API key"),
        "silent": ProviderFailed("timeout", "Acme did not answer within 0.3 s"),
    }[trouble]
    model = Hears(story, refuses=refuses)
    stage.breaks_off = lambda: model._told.fail(ProviderFailed("dropped", "the connection to Acme broke"))
    yield stage


@contextlib.asynccontextmanager
async def openai(trouble: Trouble) -> AsyncIterator[Stage]:
    """OpenAI Realtime."""
    script = [
        Answer("Good morning.", 400),
        Answer("", 0, tool=("look_up", '{"a": "b"}')),
        Answer("Found.", 200),
        Answer("Once upon a time.", STORY_MS),
    ]
    key = "sk-of-somebody-else" if trouble == "key" else OPENAI_KEY
    async with fake_openai(script, silent=trouble == "silent", caller_says="Hello.") as server:
        connect = openai_realtime(url=server.url, api_key=key, connect_s=0.3 if trouble == "silent" else 10.0)
        stage = Stage(connect, key=key)

        def breaks_off() -> None:
            server.refuses = (503, b"")
            for conversation in server.conversations:
                conversation.reset()

        stage.breaks_off = breaks_off
        yield stage
        stage.brought += [output for there in server.conversations for output in there.outputs.values()]


def _google_and_eleven() -> dict[str, Rig]:
    """Those whose fakes are built on the vendor's own package; none where that is not installed."""
    try:
        from tests.agents.fakes import elevenlabs as fake_eleven
        from tests.agents.fakes import gemini_live as fake_gemini
    except BaseException as skipped:  # pytest's own Skipped is no Exception
        if type(skipped).__name__ != "Skipped":
            raise
        return {}
    from dueto.agents.elevenlabs import elevenlabs
    from dueto.agents.gemini_live import gemini_live

    def story(stage: Stage) -> Any:
        async def script(session: Any) -> None:
            await session.hears("Hello.")
            await session.says("Good morning.", 400)
            await session.hears("Look it up.")
            brought = await session.asks("look_up", LOOK_UP)
            stage.brought.append(str(brought))
            await session.says("Found.", 200)
            await session.hears("And now?")
            await session.says("Once upon a time.", STORY_MS)
            await session.connection.closed.wait()

        return script

    @contextlib.asynccontextmanager
    async def serving(server: Any, stage: Stage, trouble: Trouble) -> AsyncIterator[Stage]:
        server.silent = trouble == "silent"
        await server.start()

        def breaks_off() -> None:
            server._server.close()
            for connection in server.connections:
                connection.drop()

        stage.breaks_off = breaks_off
        try:
            yield stage
        finally:
            await server.aclose()

    @contextlib.asynccontextmanager
    async def gemini(trouble: Trouble) -> AsyncIterator[Stage]:
        """Gemini Live."""
        key = "AIza-of-somebody-else" if trouble == "key" else fake_gemini.KEY
        stage = Stage(lambda opening: connect(opening), key=key)
        server = fake_gemini.FakeGemini(story(stage))

        async def connect(opening: Any) -> Any:
            wait_s = 0.3 if trouble == "silent" else 10.0
            url = f"http://127.0.0.1:{server.port}"
            return await gemini_live(api_key=key, base_url=url, connect_s=wait_s)(opening)

        async with serving(server, stage, trouble):
            yield stage

    @contextlib.asynccontextmanager
    async def eleven(trouble: Trouble) -> AsyncIterator[Stage]:
        """An ElevenLabs agent."""
        key = "sk_of-somebody-else" if trouble == "key" else fake_eleven.KEY
        stage = Stage(lambda opening: connect(opening), key=key)
        server = fake_eleven.FakeElevenLabs(
            story(stage), fake_eleven.Agent(tools=frozenset({"look_up"}), overrides=fake_eleven.ALL_OVERRIDES)
        )

        async def connect(opening: Any) -> Any:
            wait_s = 0.3 if trouble == "silent" else 10.0
            made = elevenlabs(agent_id=fake_eleven.AGENT, api_key=key, base_url=server.base_url, connect_s=wait_s)
            return await made(opening)

        async with serving(server, stage, trouble):
            yield stage

    return {"gemini": gemini, "elevenlabs": eleven}


RIGS: dict[str, Rig] = {"in memory": scripted, "openai": openai, **_google_and_eleven()}
