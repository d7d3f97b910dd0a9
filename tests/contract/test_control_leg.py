"""What every control engine owes its call: the opening, the events, and the end. Real sockets."""

import asyncio
from ipaddress import ip_network

import pytest
from tests.contract.bench import Bench, Line
from tests.contract.engines import ENGINES
from tests.support.listeners import RememberingDoor, RememberingSink
from tests.support.switch_peer import RECORDED_ID, SwitchPeer, recorded_blocks, recorded_events

from dueto.errors import LegClosed
from dueto.legs.esl_outbound import OutboundOptions
from dueto.wire.esl import ConnectAnswer, Decoder, Event
from dueto.wire.esl.names import AUDIO_SUBCLASSES
from dueto.wire.esl.switch_end import encode_connect_answer

SUBSCRIPTION = (
    b"event plain CHANNEL_HOLD CHANNEL_UNHOLD PLAYBACK_STOP RECORD_STOP BACKGROUND_JOB CUSTOM "
    + " ".join(AUDIO_SUBCLASSES).encode()
    + b"\n\n"
)
FORGERY = "x%0AUnique-ID: VICTIM%0Avariable_uuid: VICTIM%0AEvent-Name: CHANNEL_HANGUP%0A%0AContent-Length: 9"


async def test_the_opening_is_connect_and_exactly_the_subscription(bench: Bench) -> None:
    peer = await bench.dial(await bench.serve(RememberingDoor(), OutboundOptions(linger_s=7)))
    opening = [command.line for command in await peer.open()]
    assert opening[0] == "connect"
    lines = [part + b"\n\n" for part in peer.received.split(b"\n\n")[:-1]]
    assert sorted(lines) == sorted([b"connect\n\n", b"linger 7\n\n", b"myevents\n\n", SUBSCRIPTION])
    assert peer.received.endswith(b"\n\n")


async def test_the_leg_knows_its_channel_from_the_connect_answer(line: Line) -> None:
    assert line.leg.unique_id == RECORDED_ID
    assert line.leg.channel.get("Caller-Caller-ID-Number") == "1001"
    assert line.leg.channel.variable("current_application") == "socket"
    assert line.leg.capabilities.api
    assert line.leg.peer == "127.0.0.1"
    assert not line.leg.closed


async def test_a_socket_without_full_is_known_to_have_no_api(bench: Bench) -> None:
    answer = recorded_blocks("09b-without-full")[0]
    line = await bench.line(answer)
    assert not line.leg.capabilities.api


async def test_every_event_of_a_call_reaches_the_sink_in_order(line: Line) -> None:
    switch = line.switch
    other = "b2b2b2b2-0000-4000-8000-000000000001"
    bridge = {"Other-Leg-Unique-ID": other, "Bridge-A-Unique-ID": RECORDED_ID, "Bridge-B-Unique-ID": other}
    hold = recorded_events("07-hold-unhold", "CHANNEL_HOLD")[0]
    unhold = recorded_events("07-hold-unhold", "CHANNEL_UNHOLD")[0]
    told = recorded_events("10a-audio-stream-events-myevents", "mod_audio_stream::json")[0]
    digits = recorded_events("03a-dtmf-rfc2833-sipp", "DTMF")
    end = [block for block in recorded_blocks("03a-dtmf-rfc2833-sipp") if b"text/event-plain" in block][5:]
    switch.send(*digits, hold, unhold, told)
    switch.send(switch.event("CHANNEL_BRIDGE", bridge), switch.event("CHANNEL_UNBRIDGE", bridge))
    switch.send(*end)
    await line.sink.until("CHANNEL_HANGUP_COMPLETE")
    assert line.sink.names == [
        *["DTMF"] * 5,
        "CHANNEL_HOLD",
        "CHANNEL_UNHOLD",
        "mod_audio_stream::json",
        "CHANNEL_BRIDGE",
        "CHANNEL_UNBRIDGE",
        "CHANNEL_HANGUP",
        "CHANNEL_UNPARK",
        "CHANNEL_EXECUTE_COMPLETE",
        "CHANNEL_STATE",
        "CHANNEL_STATE",
        "CHANNEL_HANGUP_COMPLETE",
    ]
    events = line.sink.events
    assert [event.get("DTMF-Digit") for event in events[:5]] == ["1", "2", "3", "#", "*"]
    assert {event.get("DTMF-Duration") for event in events[:5]} == {"1280"}
    assert events[7].body == Decoder().feed(told)[0].body_bytes.decode()
    assert events[7].body
    assert events[8].get("Other-Leg-Unique-ID") == other
    assert events[10].get("Hangup-Cause") == "NORMAL_CLEARING"


@pytest.mark.parametrize("subclass", AUDIO_SUBCLASSES)
async def test_each_audio_event_reaches_the_sink_with_its_body(bench: Bench, subclass: str) -> None:
    line = await bench.line()
    body = '{"größe":"ä\n\nContent-Length: 3\n\n"}'.encode()
    line.switch.send(line.switch.event("CUSTOM", {"Event-Subclass": subclass}, body), line.switch.event("DTMF"))
    await line.sink.until("DTMF")
    assert line.sink.names == [subclass, "DTMF"]
    assert line.sink.events[0].body_bytes == body


async def test_bytes_may_come_one_by_one(line: Line) -> None:
    for byte in b"".join(recorded_blocks("03a-dtmf-rfc2833-sipp")[4:8]):
        line.switch.send(bytes((byte,)))
    await line.sink.until_heard(4)
    assert line.sink.names == ["DTMF"] * 4


async def test_events_before_the_sink_are_kept_in_order(bench: Bench) -> None:
    door = RememberingDoor(attaches=False)
    peer = await bench.dial(await bench.serve(door))
    await peer.open()
    leg = await door.leg()
    for number in range(30):
        peer.send(peer.event("DTMF", {"DTMF-Digit": str(number % 10), "Event-Sequence": str(number + 1)}))
    peer.send(peer.lingers())
    asked = asyncio.ensure_future(leg.api("status"))  # its reply comes after all of them
    peer.answer(await peer.command())
    await asked
    sink = RememberingSink()
    leg.attach(sink)
    peer.send(peer.event("CHANNEL_HANGUP"))
    await sink.until("CHANNEL_HANGUP")
    assert [event.sequence for event in sink.events[:30]] == list(range(1, 31))
    assert sink.names[30:] == ["lingering", "CHANNEL_HANGUP"]


async def test_a_sink_that_comes_too_late_still_hears_all_and_that_it_is_over(bench: Bench) -> None:
    door = RememberingDoor(attaches=False)
    peer = await bench.dial(await bench.serve(door))
    await peer.open()
    leg = await door.leg()
    peer.send(peer.event("CHANNEL_HANGUP"))
    unanswered = asyncio.ensure_future(leg.api("status"))
    await peer.command()
    peer.end()
    with pytest.raises(LegClosed):
        await unanswered
    sink = RememberingSink()
    leg.attach(sink)
    assert sink.names == ["CHANNEL_HANGUP", "closed"]


async def test_a_hostile_caller_name_forges_nothing(bench: Bench) -> None:
    hostile = {"Caller-Caller-ID-Name": FORGERY, "variable_caller_id_name": FORGERY}
    answer = {"Event-Name": "CHANNEL_DATA"} | hostile | {"Unique-ID": RECORDED_ID, "variable_uuid": RECORDED_ID}
    line = await bench.line(encode_connect_answer(answer.items()))
    assert line.leg.unique_id == RECORDED_ID
    assert line.leg.channel.variable("uuid") == RECORDED_ID
    assert line.leg.channel.get("Caller-Caller-ID-Name").startswith("x\nUnique-ID: VICTIM\n")
    block = line.switch.event("DTMF", hostile | {"DTMF-Digit": "1"})
    named_first = block.replace(b"Event-Name: DTMF\n", b"").replace(b"DTMF-Digit", b"Event-Name: DTMF\nDTMF-Digit")
    line.switch.send(block, named_first, line.switch.event("CHANNEL_HOLD"))
    await line.sink.until("CHANNEL_HOLD")
    assert line.sink.names == ["DTMF", "DTMF", "CHANNEL_HOLD"]
    assert {event.unique_id for event in line.sink.events} == {RECORDED_ID}


# -- the end


async def test_a_linger_notice_may_come_before_the_hangup(line: Line) -> None:
    line.switch.send(line.switch.lingers(), line.switch.event("CHANNEL_HANGUP", {"Hangup-Cause": "USER_BUSY"}))
    await line.sink.until("CHANNEL_HANGUP")
    assert line.sink.names == ["lingering", "CHANNEL_HANGUP"]
    assert not line.leg.closed


async def test_a_leg_whose_channel_lives_lets_go_at_once(line: Line) -> None:
    line.leg.notify_session_ended("done")
    command = await line.switch.command()
    assert command.line == "exit"
    line.switch.answer(command)
    assert await line.switch.closed() == b""
    await line.sink.until("closed")
    assert line.sink.names == ["closed"]
    assert line.door.refusals == []


async def test_after_a_hangup_exit_waits_for_the_last_event(line: Line) -> None:
    line.switch.send(line.switch.event("CHANNEL_HANGUP"))
    await line.sink.until("CHANNEL_HANGUP")
    line.leg.notify_session_ended("the caller hung up")
    line.leg.notify_session_ended("twice is once")
    line.switch.send(line.switch.event("CHANNEL_STATE"))
    await line.sink.until("CHANNEL_STATE")
    asked = asyncio.ensure_future(line.leg.api("status"))
    command = await line.switch.command()
    assert command.line == "api status"  # and no exit before it
    line.switch.answer(command)
    await asked
    line.switch.send(line.switch.event("CHANNEL_HANGUP_COMPLETE"), line.switch.event("DTMF"))
    line.switch.answer(await line.switch.command())
    assert await line.switch.closed() == b""
    assert line.switch.received.endswith(b"api status\n\nexit\n\n")
    assert line.sink.names[:4] == ["CHANNEL_HANGUP", "CHANNEL_STATE", "CHANNEL_HANGUP_COMPLETE", "DTMF"]


async def test_exit_is_said_once_and_nothing_after_it(line: Line) -> None:
    line.switch.send(line.switch.event("CHANNEL_HANGUP_COMPLETE"))
    await line.sink.until("CHANNEL_HANGUP_COMPLETE")
    line.leg.notify_session_ended("over")
    line.leg.notify_session_ended("over")
    with pytest.raises(LegClosed):
        await line.leg.api("status")
    exit_command = await line.switch.command()
    line.switch.answer(exit_command)
    assert exit_command.line == "exit"
    assert await line.switch.closed() == b""
    assert line.switch.received.endswith(b"exit\n\n")


async def _everybody_waits(line: Line) -> list["asyncio.Future[object]"]:
    leg = line.leg
    tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(leg.execute("playback", "queued.wav"))]
    line.switch.answer(await line.switch.command())
    tasks.append(asyncio.ensure_future(leg.execute("playback", "unanswered.wav")))
    await line.switch.command()
    tasks.append(asyncio.ensure_future(leg.api("status")))
    await line.switch.command()
    tasks.append(asyncio.ensure_future(leg.break_all()))
    await line.switch.command()
    return tasks


@pytest.mark.parametrize("how", ["goodbye", "end", "reset"])
async def test_whoever_waits_when_the_connection_ends_is_told_and_the_sink_exactly_once(bench: Bench, how: str) -> None:
    line = await bench.line()
    tasks = await _everybody_waits(line)
    getattr(line.switch, how)()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [type(result) for result in results] == [LegClosed] * len(tasks)
    await line.sink.until("closed")
    assert line.leg.closed
    with pytest.raises(LegClosed):
        await line.leg.api("status")
    with pytest.raises(LegClosed):
        await line.leg.execute("answer")
    line.leg.notify_session_ended("too late")
    line.leg.abort()
    assert line.sink.names == ["closed"]


async def test_abort_ends_the_connection_without_a_word(line: Line) -> None:
    waiting = asyncio.ensure_future(line.leg.execute("playback", "a.wav"))
    line.switch.answer(await line.switch.command())
    line.leg.abort()
    assert await line.switch.closed() == b""
    with pytest.raises(LegClosed):
        await waiting
    await line.sink.until("closed")
    assert line.sink.names == ["closed"]


@pytest.mark.parametrize(
    "nonsense",
    [b"no colon here\n\n", b"Content-Type: text/event-plain\nContent-Length: -1\n\n", b"Content-Type: text/html\n\n"],
)
async def test_a_hangup_right_before_nonsense_still_counts(bench: Bench, nonsense: bytes) -> None:
    line = await bench.line()
    line.switch.send(line.switch.event("CHANNEL_HANGUP", {"Hangup-Cause": "USER_BUSY"}), nonsense)
    await line.sink.until("closed")
    assert line.sink.names == ["CHANNEL_HANGUP", "closed"]
    assert line.sink.events[0].get("Hangup-Cause") == "USER_BUSY"
    assert line.door.refusals == [("control", "protocol_error", "127.0.0.1")]
    await line.switch.closed()


async def test_a_reply_that_nobody_asked_for_ends_the_leg(line: Line) -> None:
    line.switch.reply("+OK")
    await line.sink.until("closed")
    assert line.door.refusals == [("control", "protocol_error", "127.0.0.1")]
    await line.switch.closed()


# -- who is let in


async def test_a_connection_from_elsewhere_is_refused_without_a_word(bench: Bench) -> None:
    door = RememberingDoor()
    port = await bench.serve(door, OutboundOptions(allow=(ip_network("192.0.2.0/24"),)))
    peer = await bench.dial(port)
    assert await peer.closed() == b""
    assert await door.refusal() == ("control", "not_allowed", "127.0.0.1")
    assert door.legs == []


async def test_a_switch_that_stays_silent_is_given_up(bench: Bench) -> None:
    door = RememberingDoor()
    peer = await bench.dial(await bench.serve(door, OutboundOptions(connect_s=0.05)))
    assert (await peer.closed()).startswith(b"connect\n\n")
    assert await door.refusal() == ("control", "silent", "127.0.0.1")
    assert door.legs == []


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Type: command/reply\nReply-Text: -ERR command not found\n\n",
        encode_connect_answer({"Event-Name": "CHANNEL_DATA"}.items()),
        b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n",
    ],
    ids=["refused", "no Unique-ID", "not a switch"],
)
async def test_a_connect_answer_that_names_no_channel_is_refused(bench: Bench, answer: bytes) -> None:
    door = RememberingDoor()
    peer = await bench.dial(await bench.serve(door))
    await peer.command()
    peer.send(answer)
    await peer.closed()
    assert await door.refusal() == ("control", "protocol_error", "127.0.0.1")
    assert door.legs == []


async def test_a_server_that_no_longer_listens_lets_its_calls_live(bench: Bench) -> None:
    door = RememberingDoor()
    server = ENGINES[bench.engine](door, OutboundOptions())
    port = await server.start("127.0.0.1", 0)
    peer = await SwitchPeer.dial(port)
    try:
        await peer.open()
        leg = await door.leg()
        await server.stop_listening()
        with pytest.raises(OSError, match=str(port)):
            await SwitchPeer.dial(port)
        asked = asyncio.ensure_future(leg.api("status"))
        peer.answer(await peer.command())
        assert await asked == "+OK Success"
        peer.end()
        await door.sink.until("closed")
    finally:
        await peer.aclose()
        await server.aclose()


def test_the_recorded_answer_is_what_the_peer_says_it_is() -> None:
    message = Decoder().feed(recorded_blocks("01-normal-linger")[0])[0]
    assert isinstance(message, ConnectAnswer)
    assert isinstance(message.channel, Event)
    assert message.channel.unique_id == RECORDED_ID
