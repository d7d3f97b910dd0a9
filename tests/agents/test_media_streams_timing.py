"""Marks, clears and the ends of sentences towards a bot, on virtual time: what the caller heard is the judge."""

import asyncio
import gc
import itertools
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.agents.fakes.media_streams_bot import Talk
from tests.support.virtual import virtual_desk

from dueto.agents.media_streams import Exchange, MediaStreamsAgent, MediaStreamsProfile, messages, stream
from dueto.audio import ulaw_encode
from dueto.call import Call
from dueto.errors import ProviderFailed, RemoteProtocolError
from dueto.sim import Caller, Line, SimCall, run_virtual, tone
from dueto.wire.media import AUDIO_STREAM, AUDIO_STREAM_BINARY, Dialect

Script = Callable[[Talk], Awaitable[None]]


class MemoryLink:
    """A link that ends in a `Talk` of this very loop."""

    def __init__(self, talk: Talk, closed: Callable[[ProviderFailed], None]) -> None:
        self.talk = talk
        self.closed = False
        self.close_code = 0
        self.dropped_ms = 0
        self._tell = closed

    def send(self, message: bytes) -> None:
        if not self.closed:
            asyncio.get_running_loop().call_soon(self.talk.take, message)

    def send_audio(self, message: bytes, ms: int = 20) -> None:
        self.send(message)

    def fail(self, failure: ProviderFailed) -> None:
        self.closed = True
        self._tell(failure)

    def hang(self, code: int) -> None:
        self.closed = True
        self.close_code = code
        self._tell(ProviderFailed("dropped", f"the bot closed the connection ({code})"))

    async def aclose(self) -> None:
        self.closed = True
        await asyncio.sleep(0)


@pytest.fixture
def script() -> list[Script]:
    return []


@pytest.fixture(autouse=True)
def link(monkeypatch: pytest.MonkeyPatch, script: list[Script]) -> Iterator[list[Talk]]:
    talks: list[Talk] = []
    tasks: list[asyncio.Task[None]] = []

    async def open_link(
        provider: str, url: str, message: Callable[[bytes], None], closed: Callable[..., None], **more: object
    ) -> MemoryLink:
        talk = Talk()
        link = MemoryLink(talk, closed)
        talk.write = lambda text: asyncio.get_running_loop().call_soon(message, text.encode()) and None
        talk.hang = link.hang
        talks.append(talk)

        async def play() -> None:
            await talk.until(lambda: bool(talk.start))
            await script[0](talk)

        tasks.append(asyncio.ensure_future(play()))
        return link

    monkeypatch.setattr(stream, "open_link", open_link)
    yield talks
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()
    for talk in talks:
        assert talk.complaints == []


def now() -> float:
    return asyncio.get_running_loop().time()


def converse(
    script: list[Script], bot: Script, caller: Callable[[Line], Awaitable[None]] | None = None,
    dialect: Dialect = AUDIO_STREAM_BINARY, rate_hz: int = 8000,
) -> SimCall:  # fmt: skip
    """One call with that bot; it ends when the bot closes the stream, or the caller's script is over."""
    script.append(bot)

    async def until_hangup(line: Line) -> None:
        await line.until_hangup()

    async def one_call() -> SimCall:
        agent = MediaStreamsAgent(MediaStreamsProfile(use="media_streams", url="ws://bot/ws"), Exchange())
        failed: list[Exception] = []

        async def run(call: Call) -> None:
            try:
                await agent(call)
            except Exception as error:
                failed.append(error)

        async with (
            virtual_desk(run, dialect=dialect) as here,
            here.switch(dialect=dialect.name, record=True) as switch,
        ):
            call = await switch.place(Caller(script=caller or until_hangup, rate_hz=rate_hz))
            await call.done()
        if failed:
            raise failed[0]
        return call

    return run_virtual(one_call(), start_s=1000.0)


def sound(seconds: float) -> bytes:
    return ulaw_encode(tone(8000, seconds, 440.0))


def loud_frames(call: SimCall) -> np.ndarray:
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    return np.flatnonzero(np.abs(heard).max(axis=1) > 500)


@pytest.mark.parametrize("dialect", [AUDIO_STREAM_BINARY, AUDIO_STREAM], ids=lambda dialect: dialect.name)
def test_a_mark_comes_back_when_what_was_before_it_was_heard(script: list[Script], dialect: Dialect) -> None:
    took: list[float] = []

    async def bot(talk: Talk) -> None:
        if dialect.downlink == "file":
            await asyncio.sleep(1)  # its control leg is there by now
        sent_at = now()
        for name in ("one", "two"):
            talk.say(sound(2.0))
            talk.mark(name)
        await talk.until(lambda: len(talk.marks) == 2)
        took.extend(at - sent_at for _, at in talk.marks)
        assert talk.names() == ["one", "two"]
        talk.close()

    call = converse(script, bot, dialect=dialect)
    slack = 1.0 if dialect.downlink == "file" else 0.25
    assert 1.999 <= took[0] <= 2.0 + slack
    assert 3.999 <= took[1] <= 4.0 + slack
    assert len(loud_frames(call)) * 20 == pytest.approx(4000, abs=60)


def test_a_mark_with_nothing_before_it_comes_back_at_once(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        sent_at = now()
        talk.mark("silence")
        await talk.until(lambda: bool(talk.marks))
        assert talk.marks[0][1] - sent_at < 0.02
        talk.close()

    converse(script, bot)


def test_chunks_of_any_size_with_a_mark_behind_each_are_heard_without_a_gap(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        speech = sound(3.0)
        cuts = [0]
        for size in [1, 159, 161, 333, 1000, 7] * 40:
            cuts.append(min(cuts[-1] + size, len(speech)))
        for number, (start, end) in enumerate(itertools.pairwise(cuts)):
            talk.say(speech[start:end])
            talk.mark(str(number))
        await talk.until(lambda: len(talk.marks) == len(cuts) - 1)
        assert talk.names() == [str(number) for number in range(len(cuts) - 1)]
        talk.close()

    call = converse(script, bot)
    at = loud_frames(call)
    assert np.diff(at).max() == 1
    assert len(at) * 20 == pytest.approx(3000, abs=60)


def test_a_last_part_of_a_frame_is_heard_and_its_mark_comes_back(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        talk.say(sound(0.5) + sound(0.2)[:37])
        talk.mark("end")
        await talk.until(lambda: bool(talk.marks))
        talk.close()

    converse(script, bot)


def test_clear_is_silence_and_every_mark_comes_back_at_once_in_order(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        for name in "abcd":
            talk.say(sound(1.5))
            talk.mark(name)
        await talk.until(lambda: talk.names() == ["a"])
        await asyncio.sleep(0.5)
        cleared_at = now()
        talk.clear()
        await talk.until(lambda: len(talk.marks) == 4)
        assert talk.names() == list("abcd")
        assert talk.marks[-1][1] - cleared_at < 0.02
        talk.say(sound(0.3))
        talk.mark("after")
        await talk.until(lambda: len(talk.marks) == 5)
        talk.close()

    call = converse(script, bot)
    heard_ms = len(loud_frames(call)) * 20
    assert 2000 + 300 <= heard_ms <= 2000 + 300 + 300, "what was in the switch by then, and what was said afterwards"


def test_what_a_bot_says_far_ahead_is_kept_heard_whole_and_still_cleared_at_once(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        for number in range(180):
            talk.say(sound(1.0))
            talk.mark(str(number))
        await talk.until(lambda: len(talk.marks) == 150, 200)
        talk.clear()
        await talk.until(lambda: len(talk.marks) == 180)
        assert talk.names() == [str(number) for number in range(180)]
        talk.close()

    async def caller(line: Line) -> None:
        await line.until_hangup(300)

    call = converse(script, bot, caller)
    assert len(loud_frames(call)) * 20 == pytest.approx(150_000, abs=400)


def test_what_was_said_before_the_bot_left_is_heard_to_its_end(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        talk.say(sound(2.0))
        talk.close()

    call = converse(script, bot)
    assert len(loud_frames(call)) * 20 == pytest.approx(2000, abs=40)
    assert call.hangup_cause == "NORMAL_CLEARING"


def test_the_caller_is_heard_at_8_khz_whatever_the_rate_of_the_call(script: list[Script], link: list[Talk]) -> None:
    async def bot(talk: Talk) -> None:
        await talk.until(lambda: len(talk.audio) >= 16000)

    async def caller(line: Line) -> None:
        await line.wait(0.5)
        await line.say(tone(8000, 2.0, 440.0))
        await line.wait(0.5)

    converse(script, bot, caller)
    talk = link[0]
    assert talk.stopped
    assert np.diff(talk.timestamps).tolist() == [20] * (len(talk.timestamps) - 1)
    assert len(talk.audio) == pytest.approx(8000 * 3, abs=8000)


def test_after_a_hold_the_timestamps_tell_the_time(script: list[Script], link: list[Talk]) -> None:
    async def bot(talk: Talk) -> None:
        return None

    async def caller(line: Line) -> None:
        await line.wait(1.0)
        line.hold()
        await line.wait(5.0)
        line.unhold()
        await line.wait(1.0)

    converse(script, bot, caller)
    stamps = link[0].timestamps
    assert stamps[-1] == pytest.approx(7000, abs=700)


def test_on_hold_a_sentence_is_kept_and_what_a_bot_says_into_the_silence_is_not(script: list[Script]) -> None:
    held, resumed = asyncio.Event(), asyncio.Event()

    async def bot(talk: Talk) -> None:
        talk.say(sound(1.0))
        await held.wait()
        talk.say(sound(0.5))  # the rest of it
        talk.mark("sentence")
        for number in range(3):
            await asyncio.sleep(2)
            talk.say(sound(0.7))  # are you still there?
            talk.mark(str(number))
        resumed.set()
        await talk.until(lambda: len(talk.marks) == 4)
        talk.close()

    async def caller(line: Line) -> None:
        await line.hears_speech()
        await line.wait(0.3)
        line.hold()
        await line.wait(0.05)
        held.set()
        await resumed.wait()
        line.unhold()
        await line.until_hangup()

    assert len(loud_frames(converse(script, bot, caller))) * 20 == pytest.approx(1500, abs=200)


def test_a_key_reaches_the_bot(script: list[Script], link: list[Talk]) -> None:
    async def bot(talk: Talk) -> None:
        await talk.until(lambda: talk.digits == "4#")
        talk.close()

    async def caller(line: Line) -> None:
        await line.wait(0.5)
        await line.press("4#")
        await line.until_hangup()

    converse(script, bot, caller)
    assert link[0].digits == "4#"


def test_a_bot_that_breaks_off_has_failed(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        talk.say(sound(5.0))
        await asyncio.sleep(1)
        talk.close(1011)

    with pytest.raises(ProviderFailed, match="1011"):
        converse(script, bot)


def test_a_bot_that_says_more_than_we_know_is_heard_all_the_same(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        talk.say(sound(0.4))
        for _ in range(2 * stream.MAX_ODD):
            talk.write('{"event":"keepalive"}')
        talk.write('{"event":"media","media":{"payload":"no base64"}}')
        talk.write('{"event":"media"}')
        talk.mark("end")
        await talk.until(lambda: bool(talk.marks))
        talk.close()

    assert len(loud_frames(converse(script, bot))) * 20 == pytest.approx(400, abs=40)


def test_a_bot_that_talks_nothing_but_nonsense_has_failed(script: list[Script]) -> None:
    async def bot(talk: Talk) -> None:
        for _ in range(stream.MAX_ODD + 1):
            talk.write('{"event":"hello"}')

    with pytest.raises(ProviderFailed, match="does not speak Media Streams"):
        converse(script, bot)


def test_a_bot_that_sends_without_end_has_failed(script: list[Script], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_KEPT_BYTES", 100_000)

    async def bot(talk: Talk) -> None:
        for _ in range(80):
            talk.say(sound(1.0))

    with pytest.raises(ProviderFailed, match="more than anybody"):
        converse(script, bot)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 900)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 1200)),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTIONS)
def test_whatever_a_bot_does_each_mark_comes_back_once_in_order_and_never_too_early(
    script: list[Script], link: list[Talk], actions: list[tuple[str, int]]
) -> None:
    script.clear()
    link.clear()
    earliest: list[float] = []
    "When each mark can come back at best: what was said before it takes its time, unless it is cleared."

    async def bot(talk: Talk) -> None:
        end, waiting = now(), 0
        for action, ms in actions:
            match action:
                case "say":
                    talk.say(sound(ms / 1000))
                    end = max(end, now()) + ms / 1000
                case "mark":
                    talk.mark(str(len(earliest)))
                    earliest.append(max(end, now()))
                case "clear":
                    talk.clear()
                    end = now()
                    earliest[waiting:] = [min(at, end) for at in earliest[waiting:]]
                    waiting = len(earliest)
                case "wait":
                    await asyncio.sleep(ms / 1000)
        await talk.until(lambda: len(talk.marks) == len(earliest))
        talk.close()

    call = converse(script, bot)
    talk = link[0]
    assert talk.complaints == []
    assert talk.names() == [str(number) for number in range(len(earliest))]
    assert all(at >= best - 0.021 for (_, at), best in zip(talk.marks, earliest, strict=True))
    said_ms = sum(ms for action, ms in actions if action == "say")
    heard_ms = len(loud_frames(call)) * 20
    pieces = sum(action == "say" for action, _ in actions)
    assert heard_ms <= said_ms + 40 * pieces
    if "clear" not in [action for action, _ in actions]:
        assert heard_ms >= said_ms - 40 * pieces


@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists).map(msgspec.json.encode),
    )
)
def test_what_is_no_message_is_refused_and_nothing_of_it_repeated(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.decode(text)


def alive() -> list[object]:
    """What there is of calls and streams right now."""
    gc.collect()
    ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("dueto.")]
    return [thing for thing in ours if type(thing).__name__ in ("BotStream", "BotLine", "Flow", "Call", "Session")]


def test_nothing_of_a_stream_outlives_its_call(script: list[Script], link: list[Talk]) -> None:
    async def bot(talk: Talk) -> None:
        talk.say(sound(5.0))
        talk.mark("never")

    async def caller(line: Line) -> None:
        await line.hears_speech()

    before = {id(thing) for thing in alive()}  # an error that another test keeps holds its call
    for _ in range(3):
        script.clear()
        converse(script, bot, caller)
    link.clear()  # the tests' own end of it
    assert [thing for thing in alive() if id(thing) not in before] == []
