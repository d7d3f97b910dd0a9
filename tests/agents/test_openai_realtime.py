"""OpenAI Realtime as a provider, against a strict server on loopback: what is sent, what is told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.agents.fakes.openai_realtime import KEY, Answer, FakeOpenAI, fake_openai
from tests.support.tls import client_context

from dueto.agents import openai_session
from dueto.agents import openai_wire as wire
from dueto.agents.link import Link
from dueto.agents.openai_realtime import OpenAIRealtime, connect, openai_realtime
from dueto.agents.openai_session import OpenAIOptions
from dueto.agents.ports import (
    CallerBegan,
    CallerStopped,
    Line,
    Opening,
    ProviderEvent,
    RolledOver,
    Spoke,
    SpokeLast,
    ToolAsked,
    ToolSpec,
    Transcribed,
    Used,
)
from dueto.agents.warm_links import WarmLinks
from dueto.errors import ProviderFailed, RemoteProtocolError
from dueto.sim import tone

pytestmark = pytest.mark.at_once

LOOK_UP = ToolSpec("look_up", "Looks something up.", {"type": "object", "properties": {"what": {"type": "string"}}})


class Talk:
    """A provider, and what it told."""

    def __init__(self, provider: OpenAIRealtime) -> None:
        self.provider = provider
        self.events: list[ProviderEvent] = []
        self.failure: ProviderFailed | None = None
        self.changed = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            async for event in self.provider.events():
                self.events.append(event)
                self.changed.set()
        except ProviderFailed as failure:
            self.failure = failure
        self.changed.set()

    async def until(self, met: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not met():
                self.changed.clear()
                await self.changed.wait()

    async def saw(self, kind: type[ProviderEvent], times: int = 1) -> Any:
        await self.until(lambda: len(self.of(kind)) >= times)
        return self.of(kind)[times - 1]

    async def failed(self) -> ProviderFailed:
        await self.until(lambda: self.failure is not None)
        assert self.failure is not None
        return self.failure

    def of(self, kind: type[ProviderEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def spoken_ms(self, item_id: str) -> int:
        pcm = b"".join(event.pcm for event in self.of(Spoke) if event.item_id == item_id)
        return len(pcm) * 500 // self.provider.speaks_hz

    def says(self, seconds: float, *, silence_s: float = 0.5) -> None:
        """The caller says something and falls silent."""
        rate = self.provider.hears_hz
        sound = tone(rate, seconds, 300.0) + bytes(round(2 * rate * silence_s))
        for at in range(0, len(sound), rate // 25):
            self.provider.hear(sound[at : at + rate // 25])

    async def close(self) -> None:
        async with asyncio.timeout(10):
            await self.provider.aclose()
            await self._reading


@contextlib.asynccontextmanager
async def talking(server: FakeOpenAI, opening: Opening | None = None, **options: Any) -> AsyncIterator[Talk]:
    connect = openai_realtime(url=server.url, api_key=KEY, **options)
    provider = await connect(opening or Opening(8000, greets=False))
    assert isinstance(provider, OpenAIRealtime)
    talk = Talk(provider)
    try:
        yield talk
    finally:
        await talk.close()


async def refused(server: FakeOpenAI, **options: Any) -> ProviderFailed:
    with pytest.raises(ProviderFailed) as caught:
        await openai_realtime(url=server.url, api_key=KEY, **options)(Opening(8000))
    assert KEY not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


async def test_a_session_is_set_up_in_the_ga_shape_with_g711_for_a_call_at_8_khz() -> None:
    async with fake_openai() as server:
        opening = Opening(8000, tools=(LOOK_UP,), facts={"caller_number": "1001"}, greets=False)
        async with talking(server, opening, instructions="Be brief.", language="de", noise_reduction="far_field"):
            there = await server.conversation()
        assert there.query == {"path": "/v1/realtime", "model": "gpt-realtime-2.1"}
        assert there.headers["Authorization"] == f"Bearer {KEY}"
    session = there.session
    assert session["audio"]["input"]["format"] == session["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    assert session["audio"]["input"]["turn_detection"]["interrupt_response"] is False
    assert session["audio"]["input"]["transcription"] == {"model": "gpt-transcribe", "language": "de"}
    assert session["output_modalities"] == ["audio"]
    assert session["tools"][0]["name"] == "look_up"
    assert session["instructions"].startswith("Be brief.")
    assert '{"caller_number": "1001"}' in session["instructions"]


async def test_other_calls_are_heard_and_answered_at_24_khz() -> None:
    async with fake_openai([Answer(ms=500)]) as server:
        async with talking(server, Opening(16000, greets=False), turn_detection="server_vad") as talk:
            assert (talk.provider.hears_hz, talk.provider.speaks_hz) == (24000, 24000)
            talk.says(0.5)
            item = (await talk.saw(SpokeLast)).item_id
            assert talk.spoken_ms(item) == 500
        there = await server.conversation()
    assert there.session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert there.session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
    assert there.audio_ms == 1000


async def test_what_the_caller_says_arrives_as_he_said_it() -> None:
    async with fake_openai() as server:
        async with talking(server, Opening(16000, greets=False)) as talk:
            talk.says(0.4)
            there = await server.conversation()
            await server.until(lambda: there.audio_ms >= 900)
    assert bytes(there.audio[: 2 * 24000 * 4 // 10]) == tone(24000, 0.4, 300.0)


async def test_a_turn_is_told_from_beginning_to_end_with_transcripts_both_ways_and_usage() -> None:
    async with fake_openai([Answer("At your service.", 400)], caller_says="Hello there.") as server:
        async with talking(server) as talk:
            talk.says(0.6, silence_s=0.5)
            await talk.saw(Used)
    kinds = [type(event) for event in talk.events if not isinstance(event, Spoke)]
    assert kinds == [CallerBegan, CallerStopped, Transcribed, SpokeLast, Transcribed, Used]
    assert talk.of(Transcribed)[0].line == Line("caller", "Hello there.")
    assert talk.of(Transcribed)[1].line == Line("agent", "At your service.")
    assert talk.of(Transcribed)[1].item_id == talk.of(SpokeLast)[0].item_id
    assert 300 <= talk.of(CallerStopped)[0].ago_ms <= 500
    assert talk.of(Used)[0].amounts["output_audio_tokens"] == 8


@pytest.mark.parametrize("greeting", ["", 'Welcome to "Acme".'])
async def test_the_model_speaks_first_with_the_words_it_is_given(greeting: str) -> None:
    async with fake_openai([Answer("Welcome.", 200)]) as server:
        async with talking(server, Opening(8000), greeting=greeting) as talk:
            await talk.saw(SpokeLast)
            there = await server.conversation()
    role, text = there.lines[0]
    assert role == "system"
    assert (json.dumps(greeting) if greeting else "briefly") in text


async def test_what_was_said_before_is_told() -> None:
    said = (Line("agent", "Hello."), Line("caller", "Is Bob there?"))
    async with fake_openai([Answer("No.", 200)]) as server:
        async with talking(server, Opening(8000, said_so_far=said, greets=False)) as talk:
            talk.provider.prompt("Go on.")
            await talk.saw(SpokeLast)
            there = await server.conversation()
    assert there.lines == [("assistant", "Hello."), ("user", "Is Bob there?"), ("system", "Go on.")]


async def test_an_interruption_cancels_truncates_once_and_lets_nothing_more_through() -> None:
    async with fake_openai([Answer(ms=6000, pace=1.0), Answer("Yes?", 300)]) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            await talk.saw(Spoke, 5)
            item = talk.of(Spoke)[0].item_id
            talk.provider.cancel()
            talk.provider.cancel()
            talk.provider.truncate(item, 230)
            talk.provider.truncate(item, 230)
            came = len(talk.of(Spoke))
            there = await server.conversation()
            await there.until("conversation.item.truncate")
            talk.says(0.5)
            await talk.until(lambda: len(talk.of(Used)) == 2)
    assert len(there.of("response.cancel")) == 1
    assert there.items[item].truncated_ms == 230
    late = [event for event in talk.of(Spoke)[came:] if event.item_id == item]
    assert late == []
    assert talk.spoken_ms(talk.of(Spoke)[-1].item_id) == 300


async def test_nothing_is_truncated_beyond_what_came_and_what_was_not_heard_at_all_is_deleted() -> None:
    async with fake_openai([Answer(ms=300), Answer(ms=300)]) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            first = (await talk.saw(SpokeLast, 1)).item_id
            await talk.saw(Used, 1)
            talk.says(0.5)
            second = (await talk.saw(SpokeLast, 2)).item_id
            talk.provider.truncate(first, 5000)
            talk.provider.truncate(second, 0)
            talk.provider.truncate("unknown", 10)
            there = await server.conversation()
            await there.until("conversation.item.delete")
    assert there.items[first].truncated_ms == 300
    assert there.items[second].deleted


async def test_an_answer_that_was_only_asked_for_is_cancelled_when_it_begins() -> None:
    async with fake_openai([Answer(ms=3000, delay_s=0.05), Answer(ms=200)]) as server:
        async with talking(server) as talk:
            talk.provider.prompt("Say something.")
            talk.provider.cancel()
            there = await server.conversation()
            await there.until("response.cancel")
            talk.provider.prompt("Again.")
            await talk.saw(SpokeLast, 2)
    assert {event.item_id for event in talk.of(Spoke)} == {talk.of(SpokeLast)[1].item_id}


async def test_a_tool_is_asked_for_answered_and_spoken_of() -> None:
    asks = Answer("Let me see.", 300, tool=("look_up", '{"what":"x"}'))
    async with fake_openai([asks, Answer("It is y.", 200)]) as server:
        async with talking(server, Opening(8000, tools=(LOOK_UP,), greets=False)) as talk:
            talk.says(0.5)
            ask = await talk.saw(ToolAsked)
            talk.provider.answer(ask.ask_id, '{"found":"y"}')
            talk.provider.answer(ask.ask_id, "twice")
            await talk.saw(SpokeLast, 2)
            there = await server.conversation()
    assert (ask.name, ask.arguments) == ("look_up", '{"what":"x"}')
    assert there.outputs == {ask.ask_id: '{"found":"y"}'}
    assert len(there.of("response.create")) == 1


async def test_keys_are_told_and_answered_notes_are_only_told() -> None:
    async with fake_openai([Answer("You pressed one.", 200)]) as server:
        async with talking(server) as talk:
            talk.provider.note("The caller is on hold.")
            talk.provider.press("12#")
            await talk.saw(SpokeLast)
            there = await server.conversation()
    assert there.lines[0] == ("system", "The caller is on hold.")
    assert there.lines[1][0] == "user"
    assert "12#" in there.lines[1][1]
    assert len(there.of("response.create")) == 1


async def test_an_answer_that_is_wanted_while_another_is_made_waits_for_it() -> None:
    async with fake_openai([Answer(ms=500, pace=1.0), Answer("Second.", 200)]) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            await talk.saw(Spoke)
            talk.provider.prompt("And now this.")
            await talk.saw(SpokeLast, 2)
            there = await server.conversation()
    assert len(there.of("response.create")) == 1


async def test_the_session_is_carried_on_in_a_new_one_between_two_turns() -> None:
    script = [Answer("First answer here.", 300), Answer("Second answer.", 300)]
    async with fake_openai(script, caller_says="My name is Ann.") as server:
        async with talking(server, instructions="Be brief.", session_s=0.4) as talk:
            talk.says(0.5)
            item = (await talk.saw(SpokeLast)).item_id
            await talk.saw(Used)
            talk.provider.truncate(item, 100)
            await talk.saw(RolledOver)
            first = await server.conversation(0)
            second = await server.conversation(1)
            await asyncio.wait_for(first.gone.wait(), 10)
            talk.says(0.5)
            await talk.saw(SpokeLast, 2)
    assert second.lines[:2] == [("user", "My name is Ann."), ("assistant", "First ...")]
    assert second.session == first.session
    assert second.audio_ms >= 900


async def test_a_session_is_not_left_in_the_middle_of_a_turn() -> None:
    async with fake_openai([Answer(ms=600, pace=1.0)]) as server:
        async with talking(server, session_s=0.2) as talk:
            talk.says(0.5)
            await talk.saw(Spoke)
            await talk.saw(SpokeLast)
            assert talk.spoken_ms(talk.of(Spoke)[0].item_id) == 600
            await talk.saw(RolledOver)
    assert talk.events.index(talk.of(RolledOver)[0]) > talk.events.index(talk.of(SpokeLast)[0])


async def test_at_the_servers_own_limit_the_conversation_goes_on_too() -> None:
    async with fake_openai([Answer("Hello.", 200), Answer("Still here.", 200)], limit_s=0.6) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            await talk.saw(SpokeLast)
            rolled = await talk.saw(RolledOver)
            server.limit_s = None
            await server.conversation(1)
    assert rolled.reason == "the session's time was up"
    assert talk.failure is None


async def test_a_limit_that_leads_nowhere_is_a_failure_with_its_reason() -> None:
    async with fake_openai(limit_s=0.2) as server:
        async with talking(server) as talk:
            await server.conversation()
            server.refuses = (429, b'{"error":{"message":"Too many sessions"}}')
            failure = await talk.failed()
    assert failure.fault == "limit"
    assert "Too many sessions" in str(failure)


async def test_the_end_that_a_session_announces_is_believed() -> None:
    async with fake_openai(expires_in_s=61.0) as server:
        async with talking(server) as talk:
            await talk.saw(RolledOver)


@pytest.mark.parametrize(
    ("options", "fault", "says"),
    [
        ({"refuses": (401, b"{}")}, "auth", "does not accept the API key"),
        ({"refuses": (429, b'{"error":{"message":"You exceeded your quota"}}')}, "quota", "You exceeded your quota"),
        ({"refuses": (404, b"{}")}, "model", "no such"),
        ({"refuses": (503, b"<html>")}, "refused", "HTTP 503"),
        ({"closes_with": (3000, "invalid_request_error.invalid_api_key")}, "auth", "does not accept the API key"),
        ({"closes_with": (1011, "oops")}, "dropped", "1011: oops"),
        (
            {"rejects_setup": {"code": "model_not_found", "message": "no `m`"}},
            "model",
            "no such model or voice: no `m`",
        ),
        (
            {"rejects_setup": {"code": "invalid_value", "message": "bad", "param": "session.audio.output.voice"}},
            "model",
            "no such model or voice: bad",
        ),
        ({"rejects_setup": {"code": "insufficient_quota", "message": "pay"}}, "quota", "quota"),
        ({"rejects_setup": {"code": "x", "message": f"strange\nkey {KEY}"}}, "refused", "strange key ***"),
    ],
)
async def test_a_refusal_names_its_fault_in_one_sentence(options: dict[str, Any], fault: str, says: str) -> None:
    async with fake_openai(**options) as server:
        failure = await refused(server)
    assert (failure.fault, says in str(failure)) == (fault, True), str(failure)


async def test_a_wrong_key_is_refused_without_being_repeated() -> None:
    async with fake_openai() as server:
        with pytest.raises(ProviderFailed) as caught:
            await openai_realtime(url=server.url, api_key="sk-wrong-but-secret")(Opening(8000))
    assert caught.value.fault == "auth"
    assert "sk-" not in str(caught.value)


async def test_a_server_that_is_slow_to_agree_is_given_up_in_time() -> None:
    async with fake_openai(silent=True) as server:
        failure = await refused(server, connect_s=0.2)
    assert (failure.fault, str(failure)) == ("timeout", "OpenAI did not answer within 0.2 s")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(ms=1000, garbage=b'{"type":"response.output_audio.delta","delta":"%%%"}'), "protocol"),
        (Answer(ms=1000, garbage=b"\xff\xfe not json"), "protocol"),
        (Answer(ms=1000, garbage=b'{"type":"response.done","response":[]}'), "protocol"),
        (Answer(ms=1000, breaks=True), "dropped"),
        (Answer(ms=0, status="failed", error={"type": "t", "code": "insufficient_quota", "message": "pay"}), "quota"),
    ],
)
async def test_what_goes_wrong_in_mid_conversation_is_told_once_behind_what_was_said(
    answer: Answer, fault: str
) -> None:
    async with fake_openai([answer]) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            failure = await talk.failed()
            talk.says(0.5)
            talk.provider.prompt("x")
    assert failure.fault == fault
    assert isinstance(talk.events[0], CallerBegan)


async def test_an_answer_that_failed_is_asked_for_once_more() -> None:
    broken = Answer(ms=0, status="failed", error={"type": "server_error", "code": "", "message": "sorry"})
    async with fake_openai([broken, Answer("Here I am.", 200), broken, broken]) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            await talk.saw(SpokeLast)
            assert talk.failure is None
            await talk.saw(Used, 2)
            talk.says(0.5)
            failure = await talk.failed()
    assert failure.fault == "refused"
    assert "sorry" in str(failure)


async def test_events_nobody_knows_are_passed_over() -> None:
    async with fake_openai([Answer("Hello.", 200)]) as server:
        async with talking(server) as talk:
            there = await server.conversation()
            there.tell("response.something.new", anything=[1, 2])
            there.refuse({}, "some_new_code", "who knows")
            talk.says(0.5)
            await talk.saw(SpokeLast)
    assert talk.failure is None


async def test_azure_and_servers_of_ones_own_are_reached_their_way() -> None:
    async with fake_openai() as server:
        base = server.url.removesuffix("/v1")
        for options, path, query in (
            ({"azure": True}, "/openai/v1/realtime", {"model": "mine"}),
            ({"azure": True, "api_version": "2025-04-01-preview"}, "/openai/realtime", {"deployment": "mine"}),
        ):
            connect = openai_realtime(url=base, api_key=KEY, model="mine", **options)
            provider = await connect(Opening(8000, greets=False))
            there = server.conversations[-1]
            await provider.aclose()
            assert there.query["path"] == path
            assert query.items() <= there.query.items()
            assert there.headers["api-key"] == KEY
            assert "Authorization" not in there.headers


def test_addresses() -> None:
    assert wire.realtime_url("https://api.openai.com/v1", "m") == "wss://api.openai.com/v1/realtime?model=m"
    assert wire.realtime_url("ws://host:1/v1/realtime?tenant=a", "m n") == "ws://host:1/v1/realtime?tenant=a&model=m+n"


async def test_over_tls_with_a_certificate_of_ones_own() -> None:
    async with fake_openai([Answer("Hello.", 200)], tls=True) as server:
        async with talking(server, ssl=client_context()) as talk:
            talk.says(0.5)
            await talk.saw(SpokeLast)


async def test_closing_again_and_in_the_middle_of_a_roll_over_leaves_nothing() -> None:
    async with fake_openai() as server:
        async with talking(server, session_s=0.05) as talk:
            await server.until(lambda: len(server.conversations) >= 2)
            await talk.provider.aclose()
            await talk.provider.aclose()
            await server.until(lambda: all(one.gone.is_set() for one in server.conversations))


def test_the_wire_reads_what_it_knows_and_refuses_what_it_cannot_read() -> None:
    delta = wire.read(
        b'{"type":"response.output_audio.delta","event_id":"e","response_id":"r","item_id":"i",'
        b'"output_index":0,"content_index":0,"delta":"AAEC"}'
    )
    assert delta == wire.AudioDelta("r", "i", b"\x00\x01\x02", 0)
    assert wire.read(b'{"type":"rate_limits.updated"}') is None
    for broken in (b"", b"[]", b'{"type":1}', b'{"type":"response.output_audio.delta"}', b"\xff"):
        with pytest.raises(RemoteProtocolError):
            wire.read(broken)
    assert json.loads(wire.append(b"\x00\x01"))["audio"] == "AAE="


async def test_a_cough_during_an_answer_leaves_the_next_answer_free_to_be_asked_for() -> None:
    async with fake_openai([Answer(ms=500, pace=1.0), Answer("Noted.", 200)]) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            await talk.saw(Spoke)
            talk.says(0.2)  # nobody cancels: it was a cough
            await talk.saw(CallerStopped, 2)
            talk.provider.prompt("Go on.")
            await talk.saw(SpokeLast, 2)
    assert talk.failure is None


async def test_a_turn_that_ended_while_a_cancelled_answer_was_still_being_made_is_answered() -> None:
    async with fake_openai([Answer(ms=3000, pace=1.0), Answer("Yes?", 200)], cancels_after_s=0.3) as server:
        async with talking(server) as talk:
            talk.says(0.5)
            item = (await talk.saw(Spoke)).item_id
            talk.says(0.3)
            talk.provider.cancel()
            await talk.saw(CallerStopped, 2)
            await talk.until(lambda: any(event.item_id != item for event in talk.of(SpokeLast)))
    assert talk.spoken_ms(talk.of(SpokeLast)[-1].item_id) == 200


async def test_a_turn_that_the_server_does_not_answer_does_not_block_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_session, "ANSWERS_S", 0.2)
    async with fake_openai([Answer("Here.", 200)], answers_turns=False) as server:
        async with talking(server) as talk:
            talk.says(0.3)
            await talk.saw(CallerStopped)
            talk.provider.prompt("Say something.")
            await talk.saw(SpokeLast)


async def test_what_comes_in_the_very_read_that_agrees_to_the_session_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def agreed(
        options: Any, links: Any, setup: Any, history: Any, on_event: Any, on_closed: Any, call_id: str
    ) -> Any:
        session = openai_session.OpenAISession(on_event, on_closed)
        on_event(session, wire.AudioDelta(response_id="r1", item_id="i1", delta=bytes(480)))
        return session

    monkeypatch.setattr("dueto.agents.openai_realtime.open_session", agreed)
    provider = await openai_realtime(api_key=KEY)(Opening(16000, greets=False))
    async with asyncio.timeout(5):
        assert await anext(provider.events()) == Spoke("i1", bytes(480))
    await provider.aclose()


async def test_a_server_that_agrees_and_leaves_in_the_same_read_has_failed() -> None:
    class Leaving(Link):
        def send(self, message: bytes) -> None:
            self._on_message(b'{"type":"session.updated","event_id":"e","session":{"type":"realtime"}}')
            self.closed = True
            self._tell("dropped", "OpenAI closed the connection (1001)")

        async def aclose(self) -> None:
            pass

    async def dial(on_message: Any, on_closed: Any) -> Link:
        return Leaving("OpenAI", on_message, on_closed)

    with pytest.raises(ProviderFailed, match="closed the connection") as caught:
        await connect(OpenAIOptions(), WarmLinks(dial), Opening(8000, greets=False))
    assert caught.value.fault == "dropped"
