"""What a model can do in a call, and what it can't, whatever it writes. On virtual time, with the simulated switch."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from tests.call.test_transfers import loudness, virtually
from tests.support.virtual import Virtual, virtual_desk

from dueto.agents import tools as bounds
from dueto.agents.call_tools import NAMES, call_tools
from dueto.agents.messages import Message, MessageFile, NotKept
from dueto.agents.own_tools import load_tools
from dueto.agents.tools import Places, Toolbox
from dueto.call import Call, CallRules, Destination
from dueto.call.events import Held, Resumed
from dueto.call.house import Whereabouts
from dueto.errors import CallEnded, SettingsError, ToolRefused
from dueto.sim import Caller, Endpoint, SimCall, Switch, tone

RULES = CallRules(public_url="ws://127.0.0.1:8085", rate_hz=8000)
DESTINATIONS = {
    "sales": Destination("sales", "user/1001", ("sales", "sales department")),
    "support": Destination("support", "user/1002", when="sat 10:00-12:00", fallback="sales"),
    "billing": Destination("billing", "user/1003", when="sat 10:00-12:00"),
    "office": Destination("office", "sofia/gateway/office/1"),
}
ENDPOINTS = {"user/1001": Endpoint("answers", hangs_up_after_s=1.0), "sofia/gateway/office/1": Endpoint("busy")}
MONDAY = datetime(2026, 11, 23, 12, 0)
ALL = [name for name in NAMES if name != "take_message"]


async def heard() -> bool:
    """A caller who hears everything out."""
    return True


async def interrupts() -> bool:
    """A caller who speaks into it."""
    return False


class Using:
    """An agent that does what a test wants with its tools, and keeps what became of it."""

    def __init__(self, what: Callable[[Call], Awaitable[Any]]) -> None:
        self.what = what
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = asyncio.Event()
        self.events: list[Any] = []

    async def __call__(self, call: Call) -> None:
        reading = asyncio.ensure_future(self._read(call))
        try:
            self.result = await self.what(call)
        except BaseException as error:
            self.error = error
        self.done.set()
        await reading

    async def _read(self, call: Call) -> None:
        async for event in call.events():
            self.events.append(event)


async def in_a_call(
    what: Callable[[Call], Awaitable[Any]],
    look: Callable[[SimCall, Switch, Virtual], Awaitable[None]] | None = None,
    *,
    caller: Caller | None = None,
    hangs_up: bool = True,
    **house: Any,
) -> Using:
    agent = Using(what)
    fields = {"destinations": DESTINATIONS, "whereabouts": Whereabouts("127.0.0.1:8022"), "local_time": lambda: MONDAY}
    async with virtual_desk(agent, rules=RULES, **(fields | house)) as virtual:
        async with virtual.switch(endpoints=ENDPOINTS, record=True) as switch:
            call = await switch.place(caller or Caller())
            async with asyncio.timeout(300):
                await agent.done.wait()
            if look is not None:
                await look(call, switch, virtual)
            if hangs_up:
                call.hang_up()
            await call.over()
    return agent


def ran(name: str, arguments: dict[str, Any] | str, box: Toolbox | None = None, **more: Any) -> dict[str, Any]:
    """Run one tool in one call; its answer, read."""
    found: list[Using] = []
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    listening = more.pop("listening", heard)

    @virtually
    async def run() -> None:
        tools = box or load_tools(ALL)
        found.append(await in_a_call(lambda call: tools.run(call, name, written, listening), **more))

    run()
    if found[0].error is not None:
        raise found[0].error
    answer: dict[str, Any] = json.loads(found[0].result)
    return answer


# -- transfers


def test_a_transfer_tells_the_switchs_own_outcome() -> None:
    assert ran("transfer_call", {"destination": "sales", "reason": "an invoice"}) == {
        "ok": True,
        "outcome": "bridged",
        "destination": "sales",
    }
    busy = ran("transfer_call", {"destination": "office"})
    assert (busy["ok"], busy["outcome"], busy["hangup_cause"]) == (False, "busy", "USER_BUSY")
    assert busy["error"].startswith("office: busy. The caller is with you again")


def test_a_destination_is_known_by_what_callers_call_it_too() -> None:
    assert ran("transfer_call", {"destination": "Sales Department"})["outcome"] == "bridged"


def test_outside_of_its_hours_a_destination_is_closed_or_somebody_else_takes_the_call() -> None:
    closed = ran("transfer_call", {"destination": "billing"})
    assert (closed["outcome"], closed["hangup_cause"]) == ("unreachable", "closed")
    assert "closed at this hour" in closed["error"]
    assert ran("transfer_call", {"destination": "support"})["ok"]


@pytest.mark.parametrize(
    "written",
    [
        "user/9999",
        "sofia/gateway/trunk/0900123456",
        "sales\nbridge: user/9",
        "sales,user/9",
        "{origination_caller_id_number=1}user/9",
        "${system(reboot)}",
        "sales' 'x",
        "",
        "../sales",
    ],
)
def test_no_text_reaches_a_destination_that_is_not_configured(written: str) -> None:
    async def look(call: SimCall, switch: Switch, virtual: Virtual) -> None:
        assert "transferring" not in virtual.names()
        assert len(switch.calls) == 1

    answer = ran("transfer_call", {"destination": written}, look=look)
    assert answer["ok"] is False
    assert answer["error"].startswith("there is no such destination; there are sales, support, billing, office")


@given(st.text(max_size=80))
def test_nothing_but_a_configured_name_is_ever_taken_for_one(written: str) -> None:
    from dueto.agents.call_tools import _known

    try:
        assert _known(written, DESTINATIONS) in DESTINATIONS
    except ToolRefused:
        return


def test_a_caller_who_speaks_before_the_transfer_is_listened_to() -> None:
    answer = ran("transfer_call", {"destination": "sales"}, listening=interrupts)
    assert "listen to him first" in answer["error"]


# -- the end of the call


def test_the_call_ends_when_the_goodbye_was_heard() -> None:
    goodbye = tone(8000, 3.0, 700)
    lengths: list[float] = []

    @virtually
    async def run() -> None:
        async def ending(call: Call) -> None:
            saying = call.utterance()
            saying.add(goodbye)
            saying.finish()

            async def all_heard() -> bool:
                await saying.heard()
                return True

            await load_tools(["end_call"]).run(call, "end_call", '{"reason": "all is said"}', all_heard)

        async def look(call: SimCall, switch: Switch, virtual: Virtual) -> None:
            await call.over()
            assert call.hangup_cause == "NORMAL_CLEARING"
            lengths.append(len(call.heard.strip(b"\0")) / 16000)
            assert loudness(call.heard, 700) > 0.9
            (tool,) = [fields for _, name, fields in virtual.journal if name == "tool"]
            assert (tool["name"], tool["outcome"]) == ("end_call", "ok")

        await in_a_call(ending, look, hangs_up=False)

    run()
    assert lengths[0] == pytest.approx(3.0, abs=0.05), "not a syllable is missing"


def test_a_caller_who_speaks_into_the_goodbye_is_not_hung_up() -> None:
    async def look(call: SimCall, switch: Switch, virtual: Virtual) -> None:
        assert "hungup" not in virtual.names()

    assert ran("end_call", {}, listening=interrupts, look=look)["ok"] is False


def test_a_goodbye_that_never_ends_does_not_keep_the_line_for_ever() -> None:
    async def never() -> bool:
        return bool(await asyncio.get_running_loop().create_future())

    async def look(call: SimCall, switch: Switch, virtual: Virtual) -> None:
        async with asyncio.timeout(1):
            await call.over()

    assert ran("end_call", {}, listening=never, look=look, hangs_up=False)["outcome"] == "ended"


# -- hold, keys, extensions


def test_hold_and_unhold_are_the_switchs_own() -> None:
    found: list[Using] = []

    @virtually
    async def run() -> None:
        box = load_tools(["hold_call", "unhold_call"])

        async def both(call: Call) -> list[str]:
            return [await box.run(call, name, "", heard) for name in ("hold_call", "unhold_call")]

        found.append(await in_a_call(both))

    run()
    assert [json.loads(answer)["outcome"] for answer in found[0].result] == ["held", "resumed"]
    assert [type(event) for event in found[0].events if isinstance(event, Held | Resumed)] == [Held, Resumed]


def test_digits_go_to_the_other_side_and_only_digits() -> None:
    assert ran("send_dtmf", {"digits": "12#w3"})["ok"]
    for wrong in ("12 3", "1\n2", "x", "1" * 33, "1;api reboot"):
        answer = ran("send_dtmf", {"digits": wrong})
        assert answer["error"].startswith("digits: String should")
        assert wrong not in answer["error"] or wrong == "x"


class Link:
    """Enough of the switch's own event socket for presence."""

    up = True

    async def api(self, command: str, argument: str = "", *, timeout_s: float = 5.0) -> str:
        assert (command, argument) == ("show", "registrations as json")
        return '{"rows": [{"reg_user": "1001"}]}'

    async def channels(self) -> list[Any]:
        return []

    def watch(self, unique_id: str, sink: object) -> Callable[[], None]:
        return lambda: None


def test_an_extension_is_asked_for_by_name_or_number_if_it_is_configured() -> None:
    free = {"ok": True, "destination": "sales", "available": True, "state": "idle"}
    assert ran("check_extension_available", {"extension": "sales"}, switch=Link()) == free
    assert ran("check_extension_available", {"extension": "1001"}, switch=Link()) == free
    assert ran("check_extension_available", {"extension": "support"}, switch=Link()) == free, "who takes its calls now"
    closed = ran("check_extension_available", {"extension": "billing"}, switch=Link())
    assert (closed["available"], closed["state"]) == (False, "closed at this hour")
    assert (
        "there is no such destination"
        in ran("check_extension_available", {"extension": "1000"}, switch=Link())["error"]
    )
    assert "no extension of this switch" in ran("check_extension_available", {"extension": "office"})["error"]
    assert "can't be found out" in ran("check_extension_available", {"extension": "sales"})["error"]


# -- messages


def test_a_message_is_kept_with_who_called_and_when(tmp_path: Path) -> None:
    file = MessageFile(tmp_path / "messages.jsonl")
    box = load_tools(["take_message"], agent="front", keep=file.keep)
    arguments = {"message": "The boiler\nis cold.", "for_whom": "Ms Weber", "callback_number": "0151 23"}
    assert ran("take_message", arguments, box, caller=Caller(number="4912345"))["outcome"] == "kept"
    (line,) = (tmp_path / "messages.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert kept.pop("call")
    assert kept.pop("at").startswith("2026-11-23T12:00:00")
    assert kept.pop("destination_number") is not None
    assert kept == {
        "agent": "front",
        "tenant": "",
        "caller_number": "4912345",
        "text": "The boiler\nis cold.",
        "caller_name": "",
        "callback": "0151 23",
        "for_whom": "Ms Weber",
        "recording": "",
    }
    assert (tmp_path / "messages.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_caller_leaves_no_more_than_a_few_messages() -> None:
    kept: list[Message] = []

    async def keep(message: Message) -> None:
        kept.append(message)

    found: list[Using] = []

    @virtually
    async def run() -> None:
        box = load_tools(["take_message"], keep=keep)

        async def often(call: Call) -> list[str]:
            return [await box.run(call, "take_message", '{"message": "x"}', heard) for _ in range(7)]

        found.append(await in_a_call(often))

    run()
    assert len(kept) == 5
    assert json.loads(found[0].result[-1])["error"].startswith("5 messages have been taken")


async def test_what_does_not_fit_on_the_disk_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "messages.jsonl"
    file = MessageFile(path, largest_bytes=1000)
    message = Message("2026", "id", "a", "t", "1", "2", "x" * 300)
    await file.keep(message)
    size = path.stat().st_size
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:20]))
    with pytest.raises(NotKept, match="could not be stored: the disk is full"):
        await file.keep(message)
    assert path.stat().st_size == size
    monkeypatch.undo()
    await file.keep(message)
    with pytest.raises(NotKept, match=r"messages\.jsonl is full"):
        await file.keep(message)
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["x" * 300] * 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_path_that_is_no_file_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[records\] messages: .*not a file"):
        MessageFile(Path("/dev/full")).check()
    with pytest.raises(SettingsError, match="No such file or directory; make its folder first: mkdir -p "):
        MessageFile(tmp_path / "no" / "such").check()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="symbolic link"):
        MessageFile(tmp_path / "link").check()


def test_messages_need_to_know_where_they_go() -> None:
    with pytest.raises(
        SettingsError, match=r"\[agents.front\] tools: take_message needs to know .*\[records\] messages"
    ):
        load_tools(["take_message"], agent="front")


# -- one's own


class Order(BaseModel):
    number: int = Field(ge=1, description="As printed on the receipt.")
    lines: list[str] = []


async def lookup_order(
    order: Order, call: Call, urgent: bool = False, via: Literal["post", "van"] = "post"
) -> dict[str, Any]:
    """Say where an order is."""
    return {"caller": call.caller_number, "number": order.number, "urgent": urgent, "via": via}


def add(a: int, b: Annotated[int, Field(le=10, description="The second one.")] = 1) -> int:
    """Add two numbers."""
    return a + b


async def explodes() -> None:
    """Never works."""
    raise RuntimeError("password=hunter2 in /etc/secret")


async def hangs() -> None:
    """Takes for ever."""
    await asyncio.get_running_loop().create_future()


async def chatters(n: int) -> str:
    """Talks a lot."""
    return "x" * n


async def says_no() -> str:
    """Refuses."""
    raise ToolRefused("the shop is closed; ask again on Monday")


HERE = __name__


def test_a_typed_function_is_a_tool() -> None:
    box = load_tools([lookup_order, f"{HERE}:add"])
    first, second = box.describe(Places({}, MONDAY))
    assert (first.name, first.description) == ("lookup_order", "Say where an order is.")
    assert first.parameters == {
        "type": "object",
        "properties": {
            "order": {
                "type": "object",
                "properties": {
                    "number": {"type": "integer", "minimum": 1, "description": "As printed on the receipt."},
                    "lines": {"type": "array", "items": {"type": "string"}, "default": []},
                },
                "required": ["number"],
            },
            "urgent": {"type": "boolean", "default": False},
            "via": {"type": "string", "enum": ["post", "van"], "default": "post"},
        },
        "required": ["order"],
        "additionalProperties": False,
    }
    assert second.parameters["properties"]["b"] == {
        "type": "integer",
        "maximum": 10,
        "description": "The second one.",
        "default": 1,
    }
    answer = ran("lookup_order", {"order": {"number": 4}, "via": "van"}, box, caller=Caller(number="49"))
    assert answer == {"caller": "49", "number": 4, "urgent": False, "via": "van"}


async def test_a_function_that_is_no_coroutine_runs_in_a_thread() -> None:
    box = load_tools([add])
    assert await box.run(FakeCall(), "add", '{"a": 2, "b": 3}', heard) == "5"  # type: ignore[arg-type]
    await box.aclose()


class FakeCall:
    """A call for tools that want nothing of it."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.errors: list[str] = []
        self.log = self

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def note(self, event: str, **fields: object) -> None:
        self.notes.append((event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.errors.append(event)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("{", "arguments: Invalid JSON"),
        ("[]", "arguments: "),
        ('{"a": "x"}', "a: Input should be a valid integer"),
        ('{"a": 1, "b": 11}', "b: Input should be less than or equal to 10"),
        ('{"a": 1, "c": 1}', "c: Extra inputs are not permitted"),
        ("{}", "a: Field required"),
        ('{"a": 1' + " " * 20_000 + "}", "its arguments are too long"),
        ("[" * 10_000, "arguments: Invalid JSON"),
    ],
)
async def test_wrong_arguments_are_told_to_the_model(written: str, sentence: str) -> None:
    box = load_tools([add])
    answer = json.loads(await box.run(FakeCall(), "add", written, heard))  # type: ignore[arg-type]
    assert answer["error"].startswith(sentence)


@given(st.text(max_size=300), st.sampled_from([*ALL, "add", "lookup_order", "", "transfer_cal"]))
def test_whatever_a_model_writes_it_gets_an_answer(written: str, name: str) -> None:
    async def run() -> str:
        return await BOX.run(FakeCall(), name, written, heard)  # type: ignore[arg-type]

    answer = asyncio.run(run())
    assert isinstance(answer, str)
    assert answer


BOX = load_tools([*ALL, add, lookup_order])


def test_a_tool_that_fails_leaks_nothing_to_the_model() -> None:
    @virtually
    async def run() -> None:
        box, call = load_tools([explodes, hangs, chatters, says_no], deadline_s=2.0), FakeCall()

        async def answer(name: str, written: str = "") -> str:
            return await box.run(call, name, written, heard)  # type: ignore[arg-type]

        assert json.loads(await answer("explodes"))["error"] == "it failed; do without it"
        assert call.errors == ["tool_traceback"]
        assert "hunter2" not in str(call.notes)
        assert json.loads(await answer("hangs"))["error"] == "no answer within 2 s; it may have been done or not"
        assert call.notes[-1] == ("tool", {"name": "hangs", "outcome": "timeout", "took_ms": 2000})
        assert json.loads(await answer("says_no"))["error"] == "the shop is closed; ask again on Monday"
        assert (await answer("chatters", '{"n": 100000}')).endswith("xxx... (cut)")
        assert len(await answer("chatters", '{"n": 100000}')) < 8100
        assert json.loads(await answer("no" * 100))["error"].startswith("there is no such tool; there are explodes")

    run()


def test_a_model_that_goes_round_in_circles_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "IN_A_CALL", 3)

    @virtually
    async def run() -> None:
        box, call = load_tools([chatters]), FakeCall()
        answers = [await box.run(call, "chatters", '{"n": 1}', heard) for _ in range(4)]  # type: ignore[arg-type]
        assert answers[:3] == ["x", "x", "x"]
        assert "too often" in answers[3]
        assert await box.run(FakeCall(), "chatters", '{"n": 1}', heard) == "x", "of one call, not of all"  # type: ignore[arg-type]

    run()


def test_a_tool_ends_with_its_call() -> None:
    found: list[Using] = []

    @virtually
    async def run() -> None:
        async def late(call: Call) -> str:
            await call.hangup()
            return await load_tools(ALL).run(call, "transfer_call", '{"destination": "sales"}', heard)

        found.append(await in_a_call(late, hangs_up=False))

    run()
    assert isinstance(found[0].error, CallEnded)


# -- what the model is told, and what the author of a tool is told


def test_the_descriptions_know_who_there_is_and_when() -> None:
    spec = call_tools("a")["transfer_call"].describe(Places(DESTINATIONS, MONDAY))
    assert spec is not None
    assert spec.parameters["properties"]["destination"]["enum"] == list(DESTINATIONS)
    assert "sales (called sales department too)" in spec.description
    assert "support (there sat 10:00-12:00, closed now, sales takes its calls)" in spec.description
    assert "billing (there sat 10:00-12:00, closed now); office." in spec.description
    saturday = call_tools("a")["transfer_call"].describe(Places(DESTINATIONS, datetime(2026, 11, 28, 11, 0)))
    assert saturday is not None
    assert "billing (there sat 10:00-12:00, open now)" in saturday.description


def test_without_destinations_nobody_is_offered_a_transfer() -> None:
    assert [spec.name for spec in load_tools(ALL).describe(Places({}, MONDAY))] == [
        "end_call",
        "hold_call",
        "unhold_call",
        "send_dtmf",
    ]


def test_every_schema_is_plain_json_without_references() -> None:
    async def keep(message: Message) -> None: ...

    for spec in load_tools([*NAMES, lookup_order, add], keep=keep).describe(Places(DESTINATIONS, MONDAY)):
        text = json.dumps(spec.parameters)
        assert "$ref" not in text
        assert '"title"' not in text
        assert spec.parameters["type"] == "object"
        assert 10 < len(spec.description) < 1000


async def untyped(a) -> None:  # type: ignore[no-untyped-def]
    """No type."""


async def starred(*a: int) -> None:
    """Any number."""


async def nameless(a: int) -> None: ...


class Node(BaseModel):
    child: "Node | None" = None


async def recursive(node: Node) -> None:
    """Contains itself."""


async def takes_a_call_back(what: Callable[[], None]) -> None:
    """No JSON can be that."""


@pytest.mark.parametrize(
    ("tool", "sentence"),
    [
        ("transfer_cal", 'expected one of transfer_call, .* not "transfer_cal"; did you mean "transfer_call"'),
        ("no.such.module:thing", "needs what is not here: No module named"),
        (f"{HERE}:nothing", 'has no callable "nothing"'),
        (f"{HERE}:untyped", "a needs a type: def untyped"),
        (f"{HERE}:starred", "given by name, one by one"),
        (f"{HERE}:nameless", "needs a docstring"),
        (f"{HERE}:recursive", "Node contains itself"),
        (f"{HERE}:takes_a_call_back", "can't be had from a model"),
        (f"{HERE}:HERE", "is no function"),
    ],
)
def test_what_can_be_no_tool_is_told_at_start(tool: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=r"\[agents\.front\] tools: .*" + sentence):
        load_tools([tool], agent="front")


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="two tools called add"):
        load_tools([add, f"{HERE}:add"])
