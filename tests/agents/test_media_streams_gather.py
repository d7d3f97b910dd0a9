"""What a caller presses or says to a bot's `<Gather>`, on virtual time: which of it the bot is told, and when."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from tests.agents.test_cascade import Detectors, Parts
from tests.support.virtual import Virtual, virtual_desk

from dueto.agents.fillers import Sound
from dueto.agents.media_streams import Account, Exchange
from dueto.agents.media_streams.line import BotLine
from dueto.agents.media_streams.verbs import Gather, Hangup, Pause, Play, Redirect, Verb
from dueto.agents.media_streams.words import Words
from dueto.call import Call, CallRules
from dueto.errors import NotCapable
from dueto.sim import Caller, Line, SimCall, run_virtual, tone

BOTH = frozenset(("dtmf", "speech"))
MENU = Play("http://bot/menu.wav")
FIVE_S = Sound(tone(8000, 5.0, 440.0), 8000)


class Bot:
    """Its webhook and its sounds."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], float]] = []

    async def ask(self, url: str, form: Mapping[str, str], method: str = "POST") -> tuple[Verb, ...]:
        known = ("Digits", "FinishedOnKey", "SpeechResult", "Confidence")
        told = {name: form[name] for name in known if name in form}
        self.asked.append((url, told, asyncio.get_running_loop().time()))
        return (Hangup(),)

    async def sound(self, url: str) -> Sound:
        return FIVE_S


class NoneLeft(Detectors):
    def borrow(self) -> Any:
        raise NotCapable("all 16 speech detectors are in use")


def gathered(
    verb: Gather,
    script: Callable[[Line], Awaitable[None]],
    *,
    says: tuple[str, ...] = (),
    detectors: Any = None,
) -> tuple[Bot, SimCall, Virtual]:
    """One call to a bot that gathers, and asks `/nothing` what comes after nothing."""
    bot = Bot()
    words = Words(detectors or Detectors(), Parts(list(says))) if says or detectors else None  # type: ignore[arg-type]

    async def agent(call: Call) -> None:
        line = BotLine(call, Exchange(Account()), bot, connect_s=1.0, words=words)  # type: ignore[arg-type]
        await line.run((verb, Redirect("http://bot/nothing")))

    async def one_call() -> tuple[SimCall, Virtual]:
        async with virtual_desk(agent, rules=CallRules(rate_hz=8000)) as here, here.switch(record=True) as switch:
            call = await switch.place(Caller(script=script))
            await call.done()
        return call, here

    call, here = run_virtual(one_call(), start_s=1000.0)
    return bot, call, here


def pressing(keys: str, after_s: float = 1.0) -> Callable[[Line], Awaitable[None]]:
    async def script(line: Line) -> None:
        await line.wait(after_s)
        for key in keys:
            await line.press(key)
            await line.wait(0.3)
        await line.until_hangup(60)

    return script


@pytest.mark.parametrize(
    ("keys", "verb", "told"),
    [
        ("12", Gather("http://bot/x", most=2), {"Digits": "12"}),
        ("123#", Gather("http://bot/x"), {"Digits": "123", "FinishedOnKey": "#"}),
        ("#", Gather("http://bot/x"), {"Digits": "", "FinishedOnKey": "#"}),
        ("1#*", Gather("http://bot/x", ended_by="*"), {"Digits": "1#", "FinishedOnKey": "*"}),
        ("12", Gather("http://bot/x", timeout_s=2.0), {"Digits": "12"}),
        ("", Gather("http://bot/x", timeout_s=2.0, tells_nothing=True), {"Digits": ""}),
        ("", Gather("http://bot/x", timeout_s=2.0), None),
        ("4", Gather("http://bot/x", prompt=(Pause(1.0), MENU), most=1), {"Digits": "4"}),
        ("4", Gather("http://bot/x", prompt=(MENU,), most=1, takes=BOTH), {"Digits": "4"}),
    ],
)
def test_keys(keys: str, verb: Gather, told: dict[str, str] | None) -> None:
    bot, _, _ = gathered(verb, pressing(keys))
    assert [(url, form) for url, form, _ in bot.asked] == (
        [("http://bot/nothing", {})] if told is None else [("http://bot/x", told)]
    )


def test_the_first_word_cuts_the_prompt_and_what_was_said_is_told() -> None:
    async def script(line: Line) -> None:
        await line.hears_speech()
        await line.wait(1.0)
        await line.say(tone(8000, 1.0, 300.0))
        await line.until_hangup(60)

    verb = Gather("http://bot/x", prompt=(MENU, MENU), takes=frozenset(("speech",)))
    bot, call, _ = gathered(verb, script, says=("Sales, please.",))
    assert [form for _, form, _ in bot.asked] == [{"SpeechResult": "Sales, please.", "Confidence": "1.0"}]
    assert bot.asked[0][2] - 1000 < 5.0, "nobody has waited for the prompt"
    assert len(call.heard) / 2 / call.rate_hz < 5.0


def test_a_noise_is_nothing_and_what_comes_after_it_counts() -> None:
    async def script(line: Line) -> None:
        await line.wait(0.5)
        await line.say(tone(8000, 0.3, 300.0))
        await line.wait(2.0)
        await line.say(tone(8000, 0.8, 300.0))
        await line.until_hangup(60)

    bot, _, _ = gathered(Gather("http://bot/x", takes=BOTH, timeout_s=9.0), script, says=("", "the workshop"))
    assert [form["SpeechResult"] for _, form, _ in bot.asked] == ["the workshop"]


def test_who_speaks_when_the_time_is_over_is_heard_to_his_end() -> None:
    async def script(line: Line) -> None:
        await line.wait(1.5)
        await line.say(tone(8000, 3.0, 300.0))
        await line.until_hangup(60)

    bot, _, _ = gathered(Gather("http://bot/x", takes=BOTH, timeout_s=2.0), script, says=("a long story",))
    assert [form["SpeechResult"] for _, form, _ in bot.asked] == ["a long story"]


def test_where_nobody_listens_keys_alone_are_taken_and_words_alone_are_a_clear_fault() -> None:
    bot, _, here = gathered(Gather("http://bot/x", takes=BOTH, most=1), pressing("7"), detectors=NoneLeft())
    assert [form for _, form, _ in bot.asked] == [{"Digits": "7"}]
    for detectors, text in ((NoneLeft(), "in use"), (None, "set `stt`")):
        verb = Gather("http://bot/x", takes=frozenset(("speech",)))
        bot, _, here = gathered(verb, pressing(""), detectors=detectors)
        assert bot.asked == []
        (failed,) = [fields["error"] for _, name, fields in here.journal if name == "agent_failed"]
        assert text in str(failed)
