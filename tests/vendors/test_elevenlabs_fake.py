"""The vendor's own client has whole conversations with the fake: it does not merely agree with us."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Literal

import pytest
from tests.agents.fakes.elevenlabs import AGENT, ALL_OVERRIDES, KEY, Agent, FakeElevenLabs, Script, Session, check_tool
from tests.agents.fakes.sockets import tone

from dueto.agents.own_tools import load_tools
from dueto.agents.tools import Places
from dueto.app.overview import elevenlabs_tool
from dueto.call import Destination

pytestmark = pytest.mark.at_once

elevenlabs = pytest.importorskip("elevenlabs")


@functools.cache
def vendor() -> Any:
    import warnings

    with warnings.catch_warnings():  # it names a class that its own websockets has given up
        warnings.simplefilter("ignore")
        from elevenlabs.conversational_ai import conversation
    return conversation


@contextlib.asynccontextmanager
async def fake_agent(script: Script, agent: Agent | None = None, **more: Any) -> AsyncIterator[FakeElevenLabs]:
    fake = FakeElevenLabs(script, agent, **more)
    await fake.start()
    try:
        async with asyncio.timeout(20):
            yield fake
    finally:
        await fake.aclose()


class Telephone:
    """The vendor's audio interface: what it heard, and a mouth."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.interrupted = threading.Event()
        self.started = threading.Event()
        self.speak: Callable[[bytes], None] = lambda audio: None
        self._heard = threading.Condition()

    def start(self, input_callback: Callable[[bytes], None]) -> None:
        self.speak = input_callback
        self.started.set()

    def stop(self) -> None: ...

    def output(self, audio: bytes) -> None:
        with self._heard:
            self.heard += audio
            self._heard.notify()

    def heard_ms(self, ms: int) -> None:
        """Wait until that much was heard."""
        with self._heard:
            assert self._heard.wait_for(lambda: len(self.heard) >= 32 * ms, 10)

    def interrupt(self) -> None:
        self.interrupted.set()

    def says(self, ms: int) -> None:
        pcm = tone(ms, 16000) + bytes(2 * 16 * 400)
        for at in range(0, len(pcm), 640):
            self.speak(pcm[at : at + 640])


def client(fake: FakeElevenLabs, telephone: Telephone, *, key: str = KEY, **more: Any) -> Any:
    class Interface(Telephone, vendor().AudioInterface):  # type: ignore[misc, name-defined]
        pass

    telephone.__class__ = Interface
    return vendor().Conversation(
        elevenlabs.ElevenLabs(api_key=key, base_url=fake.base_url),
        AGENT,
        requires_auth=True,
        audio_interface=telephone,
        **more,
    )


async def test_the_vendors_client_has_a_conversation_with_a_tool() -> None:
    over, greeted = asyncio.Event(), asyncio.Event()
    results: list[tuple[str, bool]] = []

    async def script(session: Session) -> None:
        await session.says(session.first_message, 200)
        greeted.set()
        await session.hears("Sales, please.")
        results.append(await session.asks("transfer_call", {"destination": "sales"}))
        await session.says("They are busy.", 200)
        over.set()

    agent = Agent(tools=frozenset({"transfer_call"}), overrides=ALL_OVERRIDES)
    said: list[tuple[str, str]] = []
    async with fake_agent(script, agent) as fake:
        tools = vendor().ClientTools()
        tools.register("transfer_call", lambda parameters: f"{parameters['destination']} is busy")
        telephone = Telephone()
        config = vendor().ConversationInitiationData(
            conversation_config_override={"agent": {"prompt": {"prompt": "Be brief."}, "first_message": "Hello."}},
            dynamic_variables={"caller_number": "+4930123"},
        )
        conversation = client(
            fake,
            telephone,
            client_tools=tools,
            config=config,
            callback_agent_response=lambda text: said.append(("agent", text)),
            callback_user_transcript=lambda text: said.append(("caller", text)),
        )
        await asyncio.to_thread(conversation.start_session)
        session = await fake.session()
        await asyncio.to_thread(telephone.started.wait, 10)
        await greeted.wait()
        await asyncio.to_thread(telephone.says, 200)
        await over.wait()
        await asyncio.to_thread(telephone.heard_ms, 400)
        conversation.end_session()
        await asyncio.to_thread(conversation.wait_for_session_end)
        assert said == [("agent", "Hello."), ("caller", "Sales, please."), ("agent", "They are busy.")]
        assert results == [("sales is busy", False)]
        assert bytes(telephone.heard) == tone(200, 16000) * 2
        assert session.pongs == [1]
        assert fake.complaints == []


async def test_the_vendors_client_drops_what_was_interrupted() -> None:
    async def script(session: Session) -> None:
        session.sends_audio(tone(100, 16000, 300))
        session.interrupts("A long story.", up_to=session.sent[-1] + 1)
        session.sends_audio(tone(100, 16000, 500))  # still under way when the caller interrupted
        session.sends_audio(tone(100, 16000, 700))

    async with fake_agent(script) as fake:
        telephone = Telephone()
        conversation = client(fake, telephone)
        await asyncio.to_thread(conversation.start_session)
        await asyncio.to_thread(telephone.heard_ms, 200)
        conversation.end_session()
        await asyncio.to_thread(conversation.wait_for_session_end)
        assert fake.complaints == []
        assert telephone.interrupted.is_set()
        assert bytes(telephone.heard) == tone(100, 16000, 300) + tone(100, 16000, 700)
        assert fake.complaints == []


async def test_the_vendors_client_reads_why_it_was_sent_away() -> None:
    ended: list[Any] = []

    async def script(session: Session) -> None:
        raise AssertionError("nobody gets so far")

    async with fake_agent(script, Agent(overrides=frozenset())) as fake:
        with pytest.raises(elevenlabs.core.ApiError, match="401"):
            await asyncio.to_thread(client(fake, Telephone(), key="another").start_session)
        config = vendor().ConversationInitiationData(conversation_config_override={"agent": {"language": "de"}})
        conversation = client(fake, Telephone(), config=config, callback_disconnect=ended.append)
        await asyncio.to_thread(conversation.start_session)
        await asyncio.to_thread(conversation.wait_for_session_end)
        assert ended[0].close_code == 1008
        assert "language" in ended[0].close_reason


def test_the_tools_that_are_printed_for_elevenlabs_are_client_tools_as_it_knows_them() -> None:
    async def look_up(numbers: list[int], day: Literal["today", "tomorrow"], note: str | None = None) -> str:
        """Looks something up."""
        return ""

    names: list[Any] = ["transfer_call", "end_call", "hold_call", "send_dtmf", "check_extension_available", look_up]
    places = Places({"sales": Destination("sales", "user/1001", ("sales",), "1")}, datetime.now())
    specs = load_tools(names).describe(places)
    assert len(specs) == len(names)
    for spec in specs:
        assert check_tool(elevenlabs_tool(spec, 15.0)) == []
