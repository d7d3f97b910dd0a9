"""The tools that are ours: what a model can do with the telephone call it is in.

A model may be talked into anything by its caller. So nothing it writes reaches the switch but names that the
configuration knows, and digits; the rest is read aloud, or stored as data.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field

from dueto.agents.messages import KeepMessage, Message
from dueto.agents.ports import ToolSpec
from dueto.agents.schemas import schema_of
from dueto.agents.tools import Errand, Places, Tool, done, nearest, refusal
from dueto.call.hours import open_destination
from dueto.call.ports import Destination, TransferResult
from dueto.call.presence import Presence
from dueto.errors import NotCapable, ToolRefused

if TYPE_CHECKING:
    from dueto.call.call import Call

HEARD_S: Final = 20.0
"How long a tool waits for what was said to be heard."
TRANSFER_S: Final = 180.0
"A transfer ends by its own deadlines long before this one: ringing, announcement, answer."
MESSAGES_IN_A_CALL: Final = 5
NAMES: Final = (
    "transfer_call",
    "end_call",
    "hold_call",
    "unhold_call",
    "check_extension_available",
    "send_dtmf",
    "take_message",
)
_SPOKE = "the caller spoke before he had heard all of it: listen to him first, and ask for this again if he wants it"
_EXTENSION = re.compile(r"user/([A-Za-z0-9._*#+-]{1,64})(@[A-Za-z0-9.:-]+)?")


class Arguments(BaseModel):
    """What all have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class TransferCall(Arguments):
    destination: str = Field(max_length=64)
    "Who the caller is connected with."
    reason: str = Field(default="", max_length=300)
    "What he wants, in one sentence; it is told to whoever answers."


class EndCall(Arguments):
    reason: str = Field(default="", max_length=300)
    "Why the call is over, for the record."


class Nothing(Arguments):
    pass


class CheckExtension(Arguments):
    extension: str = Field(max_length=64)
    "A destination's name, or its extension."


class SendDtmf(Arguments):
    digits: str = Field(pattern=r"^[0-9A-D*#wW]{1,32}$")
    "`0` to `9`, `A` to `D`, `*`, `#`; `w` waits half a second, `W` one."


class TakeMessage(Arguments):
    message: str = Field(min_length=1, max_length=2000)
    "What is to be passed on, in the caller's own words."
    for_whom: str = Field(default="", max_length=100)
    "Who is to get it."
    caller_name: str = Field(default="", max_length=100)
    "The caller's name, as he gave it."
    callback_number: str = Field(default="", max_length=40)
    "Where he wants to be called back, if not at the number he calls from."


async def _heard(errand: Errand) -> None:
    """Let the caller hear what was said. Raises: ToolRefused: he spoke instead."""
    try:
        async with asyncio.timeout(HEARD_S):
            if await errand.heard():
                return
    except TimeoutError:
        return
    raise ToolRefused(_SPOKE)


async def _transfer(errand: Errand, arguments: TransferCall) -> str:
    call, name = errand.call, _known(arguments.destination, errand.call.destinations)
    await _heard(errand)
    destination = call.destinations[name]
    announce = None
    if destination.mode != "blind":
        announce = f"A caller for {_spoken(destination)}. {arguments.reason}".strip()
    result = await call.transfer(name, announce=announce)
    return _told(result, name)


def _told(result: TransferResult, name: str) -> str:
    if result.ok:
        return done(outcome=result.outcome, destination=name)
    advice = {
        "busy": "busy",
        "no_answer": "nobody answered",
        "rejected": "the call was rejected",
        "declined": "they can't take the call just now",
        "unreachable": "closed at this hour" if result.hangup_cause == "closed" else "nobody can be reached there",
    }.get(result.outcome, "it did not work")
    text = f"{name}: {advice}. The caller is with you again and knows nothing of it: tell him, and offer something else"
    return refusal(text, outcome=result.outcome, hangup_cause=result.hangup_cause)


async def _end(errand: Errand, arguments: EndCall) -> str:
    await _heard(errand)
    errand.call.note("end_asked", reason=arguments.reason)
    await errand.call.hangup()
    return done(outcome="ended")


async def _hold(errand: Errand, arguments: Nothing) -> str:
    await _heard(errand)
    await errand.call.hold()
    return done(outcome="held")


async def _unhold(errand: Errand, arguments: Nothing) -> str:
    await errand.call.unhold()
    return done(outcome="resumed")


async def _check(errand: Errand, arguments: CheckExtension) -> str:
    call = errand.call
    name = _by_extension(arguments.extension, call.destinations) or _known(arguments.extension, call.destinations)
    taker = open_destination(name, call.destinations, call.local_time())
    if taker is None:
        return done(destination=name, available=False, state="closed at this hour")
    found = _EXTENSION.fullmatch(taker.dial)
    if found is None:
        raise ToolRefused(f"{name} is no extension of this switch: whether somebody is there shows when it is called")
    try:
        presence: Presence = await call.extension(found[1])
    except NotCapable:
        raise ToolRefused("that can't be found out here; it shows when it is called") from None
    state = presence.state if presence.registered else "not registered"
    return done(destination=taker.name, available=presence.available, state=state)


async def _send_dtmf(errand: Errand, arguments: SendDtmf) -> str:
    await errand.call.send_dtmf(arguments.digits)
    return done(outcome="sent")


def _taking(keep: KeepMessage, agent: str) -> Callable[[Errand, Any], Awaitable[str]]:
    counts: WeakKeyDictionary[Call, int] = WeakKeyDictionary()

    async def take(errand: Errand, arguments: TakeMessage) -> str:
        call = errand.call
        if counts.get(call, 0) >= MESSAGES_IN_A_CALL:
            raise ToolRefused(f"{MESSAGES_IN_A_CALL} messages have been taken in this call, and no more are")
        message = Message(
            at=call.local_time().astimezone().isoformat(timespec="seconds"),
            call=call.unique_id,
            agent=agent,
            tenant=call.tenant,
            caller_number=call.caller_number[:64],
            destination_number=call.destination_number[:64],
            text=arguments.message,
            caller_name=arguments.caller_name,
            callback=arguments.callback_number,
            for_whom=arguments.for_whom,
            recording=str(call.recording.path or "") if call.recording else call.switch_recording,
        )
        await keep(message)
        counts[call] = counts.get(call, 0) + 1
        call.note("message_taken", characters=len(arguments.message))
        return done(outcome="kept")

    return take


def call_tools(agent: str, keep: KeepMessage | None = None) -> dict[str, Tool]:
    """Return our tools by name, for the agent called so. `keep` takes the messages; without it that tool is missing."""
    tools = [
        Tool("transfer_call", TransferCall, _transfer, _describe_transfer, TRANSFER_S),
        _plain(
            "end_call", EndCall, _end, "End the call, once the caller has nothing more to ask. Say goodbye first.", 60
        ),
        _plain("hold_call", Nothing, _hold, "Put the caller on hold, with music. Tell him so first.", 45),
        _plain("unhold_call", Nothing, _unhold, "Take the caller back from hold."),
        Tool("check_extension_available", CheckExtension, _check, _describe_check),
        _plain(
            "send_dtmf", SendDtmf, _send_dtmf, "Press keys towards the other side, as for a menu that asks for digits."
        ),
    ]
    if keep is not None:
        text = "Take a message from the caller, for somebody who is not there. Read it back to him first."
        tools.append(_plain("take_message", TakeMessage, _taking(keep, agent), text))
    return {tool.name: tool for tool in tools}


def _plain(
    name: str,
    arguments: type[BaseModel],
    run: Callable[[Errand, Any], Awaitable[str]],
    text: str,
    deadline_s: float = 15.0,
) -> Tool:
    spec = ToolSpec(name, text, schema_of(arguments))
    return Tool(name, arguments, run, lambda places: spec, deadline_s)


def _describe_transfer(places: Places) -> ToolSpec | None:
    if not places.destinations:
        return None
    text = "Connect the caller with somebody. Tell him so first. There are: " + _listed(places)
    return ToolSpec("transfer_call", text, _choosing(TransferCall, "destination", places.destinations))


def _describe_check(places: Places) -> ToolSpec | None:
    names = [one.name for one in places.destinations.values() if _EXTENSION.fullmatch(one.dial)]
    if not names:
        return None
    text = "Find out whether somebody could take a call right now, without calling. There are: "
    return ToolSpec("check_extension_available", text + ", ".join(names) + ".", schema_of(CheckExtension))


def _listed(places: Places) -> str:
    return "; ".join(_described(one, places) for one in places.destinations.values()) + "."


def _described(one: Destination, places: Places) -> str:
    """Say of a destination what it is called, and when somebody is there."""
    others = [word for word in one.words if word != one.name]
    facts = [f"called {' or '.join(others)} too"] if others else []
    if one.when:
        taker = open_destination(one.name, places.destinations, places.now)
        state = "open now" if taker is one else "closed now" + (f", {taker.name} takes its calls" if taker else "")
        facts.append(f"there {one.when}, {state}")
    return f"{one.name} ({'; '.join(facts)})" if facts else one.name


def _choosing(arguments: type[BaseModel], key: str, names: Mapping[str, object]) -> Mapping[str, Any]:
    """The schema of `arguments` with `key` being one of `names`."""
    schema = dict(schema_of(arguments))
    properties = dict(schema["properties"])
    properties[key] = {"type": "string", "enum": list(names), "description": properties[key]["description"]}
    return {**schema, "properties": properties}


def _spoken(destination: Destination) -> str:
    return destination.words[0] if destination.words else destination.name


def _known(written: str, destinations: Mapping[str, Destination]) -> str:
    """Return the name of the destination that a model means. Raises: ToolRefused: there is none such."""
    name = written.strip()
    if name in destinations:
        return name
    for one in destinations.values():
        if name.lower() in (one.name.lower(), *one.words):
            return one.name
    close = nearest(name, list(destinations))
    hint = f"; did you mean {close}?" if close else ""
    raise ToolRefused(f"there is no such destination; there are {', '.join(destinations) or 'none'}{hint}")


def _by_extension(extension: str, destinations: Mapping[str, Destination]) -> str | None:
    for one in destinations.values():
        found = _EXTENSION.fullmatch(one.dial)
        if found is not None and found[1] == extension:
            return one.name
    return None
