"""The native control leg's time: on the virtual clock, over memory pipes. (What it does: the contract suite.)"""

import asyncio
import functools
import gc
import weakref
from collections.abc import Callable, Coroutine
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.listeners import RememberingDoor, RememberingSink
from tests.support.switch_peer import SwitchPeer, recorded_blocks

from dueto.errors import CommandRefused, Dropped, LegClosed, LocalProtocolError, ReplyTimeout
from dueto.legs.esl_outbound import (
    CLOSE_S,
    LAST_EVENTS_S,
    LATER_S,
    MAX_COMMANDS,
    MAX_EARLY_EVENTS,
    MAX_LATER_BYTES,
    OutboundLeg,
    OutboundOptions,
)
from dueto.legs.executions import MAX_WAITING
from dueto.sim.pipes import PipeFaults
from dueto.sim.virtual import run_virtual
from dueto.wire.esl import Api
from dueto.wire.esl.names import AUDIO_SUBCLASSES


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop whose clock jumps."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs), start_s=1000.0)

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def wired(
    door: RememberingDoor, options: OutboundOptions | None = None, faults: PipeFaults | None = None
) -> tuple[SwitchPeer, OutboundLeg]:
    leg = OutboundLeg(door, options or OutboundOptions())
    return SwitchPeer.wire_up(leg, faults), leg


async def opened(faults: PipeFaults | None = None) -> tuple[SwitchPeer, OutboundLeg, RememberingSink]:
    door = RememberingDoor()
    switch, leg = wired(door, faults=faults)
    await switch.open()
    await door.leg()
    return switch, leg, door.sink


@virtually
async def test_the_opening_needs_no_round_trip() -> None:
    switch, _ = wired(RememberingDoor(), OutboundOptions(linger_s=3))
    for word in ("connect", "linger", "myevents", "event"):  # nothing is answered
        assert (await switch.command()).word == word
    custom = " ".join(AUDIO_SUBCLASSES)
    assert switch.received == (
        b"connect\n\nlinger 3\n\nmyevents\n\n"
        b"event plain CHANNEL_HOLD CHANNEL_UNHOLD PLAYBACK_STOP RECORD_STOP BACKGROUND_JOB CUSTOM "
        + custom.encode()
        + b"\n\n"
    )
    await switch.aclose()


@virtually
async def test_a_silent_switch_is_given_up_when_its_time_is_over() -> None:
    door = RememberingDoor()
    began = now()
    switch, leg = wired(door, OutboundOptions(connect_s=5.0))
    await switch.closed()
    assert now() - began == pytest.approx(5.0)
    assert door.refusals == [("control", "silent", "127.0.0.1")]
    assert leg.closed
    await switch.aclose()


@virtually
async def test_who_may_not_come_is_refused_once_and_hears_nothing() -> None:
    door = RememberingDoor()
    switch, leg = wired(door, OutboundOptions(allow=(ip_network("192.0.2.0/24"),)))
    await asyncio.sleep(60)
    assert await switch.closed() == b""
    assert door.refusals == [("control", "not_allowed", "127.0.0.1")]
    assert leg.closed
    await switch.aclose()


@pytest.mark.parametrize("refusals", [[], [("control", "protocol_error", "127.0.0.1")]])
@virtually
async def test_a_switch_that_ends_it_before_it_answers_was_not_silent(refusals: list[tuple[str, str, str]]) -> None:
    door = RememberingDoor()
    switch, leg = wired(door)
    switch.send(*(b"nonsense\n\n" for _ in refusals))
    switch.end()
    await asyncio.sleep(60)
    assert leg.closed
    assert door.refusals == refusals
    await switch.aclose()


@virtually
async def test_a_connect_answer_in_the_last_moment_counts() -> None:
    door = RememberingDoor()
    switch, leg = wired(door, OutboundOptions(connect_s=5.0))
    await asyncio.sleep(4.999)
    await switch.open()
    await asyncio.sleep(60)
    assert door.refusals == []
    assert not leg.closed
    await switch.aclose()


@pytest.mark.parametrize("late_s", [0.0, 1.0])
@virtually
async def test_exit_is_not_kept_waiting_longer_than_the_last_events_may_take(late_s: float) -> None:
    switch, leg, sink = await opened()
    switch.send(switch.event("CHANNEL_HANGUP"))
    await sink.until("CHANNEL_HANGUP")
    hung_up_at = now()
    await asyncio.sleep(late_s)  # the session may take its time to end: the 1.5 s are the switch's, not ours
    leg.notify_session_ended("the caller hung up")
    assert (await switch.command()).line == "exit"
    assert now() - hung_up_at == pytest.approx(LAST_EVENTS_S)
    await switch.aclose()


@virtually
async def test_who_is_hung_up_now_is_heard_before_the_last_events_of_who_is_gone() -> None:
    gone, _, ended = await opened()
    living, _, speaking = await opened()
    gone.send(gone.event("CHANNEL_HANGUP"))
    await ended.until("CHANNEL_HANGUP")
    heard: list[str] = []
    for who, sink in (("gone", ended), ("living", speaking)):
        sink.on_event = lambda event, who=who: heard.append(f"{who}: {event.name}")
    gone.send(gone.event("CHANNEL_STATE"), gone.event("CHANNEL_HANGUP_COMPLETE"))  # first, and in the same turn
    living.send(living.event("CHANNEL_HANGUP"))
    began = now()
    await ended.until("CHANNEL_HANGUP_COMPLETE")
    assert heard == ["living: CHANNEL_HANGUP", "gone: CHANNEL_STATE", "gone: CHANNEL_HANGUP_COMPLETE"]
    assert now() - began == pytest.approx(LATER_S)
    await gone.aclose()
    await living.aclose()


@virtually
async def test_of_who_is_gone_no_more_waits_than_may() -> None:
    switch, leg, sink = await opened()
    switch.send(switch.event("CHANNEL_HANGUP"))
    await sink.until("CHANNEL_HANGUP")
    state = switch.event("CHANNEL_STATE", {"variable_long": "x" * (MAX_LATER_BYTES // 10)})
    for _ in range(MAX_LATER_BYTES // len(state)):
        leg.data_received(state)
    assert sink.names == ["CHANNEL_HANGUP"]
    leg.data_received(state)
    assert sink.names == ["CHANNEL_HANGUP", *["CHANNEL_STATE"] * (MAX_LATER_BYTES // len(state) + 1)]
    await switch.aclose()


@virtually
async def test_nothing_is_heard_behind_the_end() -> None:
    door = RememberingDoor()
    switch, leg = wired(door)
    await switch.open()
    await door.leg()
    sink = door.sink
    sink.on_event = lambda event: leg.abort()
    switch.send(switch.event("DTMF"), switch.event("DTMF"), b"nonsense\n\n")
    await sink.until("closed")
    assert sink.heard[-1] == "closed: broken off by us"
    assert sink.names == ["DTMF", "closed"]
    assert door.refusals == []
    await switch.aclose()


@pytest.mark.parametrize("breaks", [False, True])
@virtually
async def test_the_last_words_count_even_if_the_connection_ends_behind_them(breaks: bool) -> None:
    switch, leg, sink = await opened()
    switch.send(switch.event("CHANNEL_HANGUP"))
    await sink.until("CHANNEL_HANGUP")
    if breaks:
        leg.data_received(switch.event("CHANNEL_HANGUP_COMPLETE"))
        leg.connection_lost(ConnectionResetError("reset by peer"))
    else:
        switch.send(switch.event("CHANNEL_HANGUP_COMPLETE"))
        switch.goodbye()
    await sink.until("closed")
    reason = "connection lost: reset by peer" if breaks else "goodbye from the switch"
    assert sink.names == ["CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "closed"]
    assert sink.heard[-1] == f"closed: {reason}"
    await switch.aclose()


@virtually
async def test_a_session_that_ends_long_after_the_hangup_waits_for_nothing() -> None:
    switch, leg, sink = await opened()
    switch.send(switch.lingers())
    await sink.until("lingering")
    await asyncio.sleep(LAST_EVENTS_S + 1)
    ended_at = now()
    leg.notify_session_ended("over")
    assert (await switch.command()).line == "exit"
    assert now() == ended_at
    await switch.aclose()


@virtually
async def test_a_hangup_that_only_the_linger_notice_told_delays_exit_too() -> None:
    switch, leg, sink = await opened()
    switch.send(switch.lingers())
    await sink.until("lingering")
    leg.notify_session_ended("the caller hung up")
    command = asyncio.ensure_future(switch.command())
    await asyncio.sleep(1.0)
    assert not command.done()
    switch.send(switch.event("CHANNEL_HANGUP"), switch.event("CHANNEL_HANGUP_COMPLETE"))
    await sink.until("CHANNEL_HANGUP_COMPLETE")
    last_at = now()
    assert (await command).line == "exit"
    assert now() == last_at
    await switch.aclose()


@virtually
async def test_a_switch_that_ignores_exit_is_left() -> None:
    switch, leg, sink = await opened()
    said_at = now()
    leg.notify_session_ended("done")
    assert (await switch.command()).line == "exit"
    await switch.closed()
    assert now() - said_at == pytest.approx(CLOSE_S)
    await sink.until("closed")
    assert sink.heard == ["closed: we let go"]
    await switch.aclose()


@virtually
async def test_what_the_end_was_is_what_came_first() -> None:
    switch, leg, sink = await opened()
    leg.notify_session_ended("done")
    switch.answer(await switch.command())
    await sink.until("closed")
    assert sink.heard == ["closed: we let go"]
    await switch.aclose()


@virtually
async def test_a_closing_leg_does_not_wait_for_a_switch_that_reads_nothing() -> None:
    switch, leg, sink = await opened()
    switch.stop_reading()
    leg.post(Api("uuid_setvar", "x a b"))
    switch.send(b"nonsense\n\n")
    began = now()
    await asyncio.sleep(CLOSE_S / 2)
    with pytest.raises(LegClosed):
        await leg.api("status")
    assert now() - began == pytest.approx(CLOSE_S / 2)
    await sink.until("closed")
    assert now() - began == pytest.approx(CLOSE_S)
    assert sink.names == ["closed"]
    await switch.aclose()


@virtually
async def test_no_reply_is_a_timeout_after_five_seconds() -> None:
    switch, leg, _ = await opened()
    began = now()
    with pytest.raises(ReplyTimeout, match="Api"):
        await leg.api("uuid_setvar", "x secret")
    assert now() - began == pytest.approx(5.0)
    assert not leg.closed
    await switch.aclose()


@virtually
async def test_a_timeout_does_not_repeat_what_was_said() -> None:
    switch, leg, _ = await opened()
    with pytest.raises(ReplyTimeout) as raised:
        await leg.api("uuid_setvar", "x password hunter2")
    assert "hunter2" not in str(raised.value)
    await switch.aclose()


@virtually
async def test_a_refused_break_drops_nothing() -> None:
    switch, leg, _ = await opened()
    waiting = asyncio.ensure_future(leg.execute("playback", "a.wav"))
    command = await switch.command()
    switch.answer(command)
    breaking = asyncio.ensure_future(leg.break_all())
    await switch.command()
    switch.api_response("-ERR No such channel!\n")
    with pytest.raises(CommandRefused):
        await breaking
    await asyncio.sleep(60)
    assert not waiting.done()
    switch.send(switch.completed(command))
    await waiting
    await switch.aclose()


@virtually
async def test_a_break_gives_what_begins_a_moment_to_say_so() -> None:
    switch, leg, _ = await opened()
    waiting = asyncio.ensure_future(leg.execute("playback", "a.wav"))
    command = await switch.command()
    switch.answer(command)
    breaking = asyncio.ensure_future(leg.break_all())
    switch.answer(await switch.command())
    await breaking
    await asyncio.sleep(0.05)  # two of the switch's 20 ms ticks
    assert not waiting.done()
    switch.send(switch.started(command))
    await asyncio.sleep(60)
    assert not waiting.done()
    await switch.aclose()
    with pytest.raises(LegClosed):
        await waiting


@virtually
async def test_an_application_given_up_while_it_waits_for_room_is_never_sent() -> None:
    switch, leg, _ = await opened()
    waiting = [asyncio.ensure_future(leg.execute("playback", f"{number}.wav")) for number in range(MAX_WAITING + 2)]
    commands = [await switch.command() for _ in range(MAX_WAITING)]
    for command in commands:
        switch.answer(command)
    waiting[MAX_WAITING].cancel()
    switch.send(switch.started(commands[0]))
    assert (await switch.command()).headers["execute-app-arg"] == f"{MAX_WAITING + 1}.wav"
    await switch.aclose()
    await asyncio.wait(waiting)


@virtually
async def test_an_application_refused_or_dropped_leaves_room_for_another() -> None:
    switch, leg, _ = await opened()
    for number in range(4 * (MAX_WAITING + 1)):  # were any of them to keep its place, the last would never be sent
        waiting = asyncio.ensure_future(leg.execute("playback", f"{number}.wav", timeout_s=1.0))
        command = await switch.command()
        match number % 4:
            case 0:
                switch.reply("-ERR no")
            case 1:
                switch.answer(command)
                breaking = asyncio.ensure_future(leg.break_all())
                switch.answer(await switch.command())
                await breaking
            case 2:
                switch.answer(command)
                with pytest.raises(ReplyTimeout):
                    await waiting
                switch.send(switch.completed(command))
            case _:
                switch.answer(command)
                switch.send(switch.started(command), switch.completed(command))
        expected = {0: CommandRefused, 1: Dropped, 2: ReplyTimeout}.get(number % 4)
        if expected is None:
            await waiting
        else:
            with pytest.raises(expected):
                await waiting
    await switch.aclose()


@virtually
async def test_a_switch_that_answers_nothing_is_not_asked_for_ever() -> None:
    switch, leg, _ = await opened()
    asked = asyncio.ensure_future(leg.api("status"))
    switch.answer(await switch.command())
    await asked
    for _ in range(MAX_COMMANDS):
        leg.post(Api("status"))
    with pytest.raises(LocalProtocolError):
        await leg.api("status")
    await switch.aclose()


@virtually
async def test_events_that_nobody_takes_are_left_to_the_switch() -> None:
    door = RememberingDoor(attaches=False)
    switch, leg = wired(door)
    await switch.open()
    await door.leg()
    many = 3 * MAX_EARLY_EVENTS
    for number in range(many):
        switch.send(switch.event("DTMF", {"Event-Sequence": str(number + 1)}))
    await asyncio.sleep(60)
    held = len(leg._early)
    assert MAX_EARLY_EVENTS <= held < many
    leg.attach(door.sink)
    await door.sink.until_heard(many)
    assert [event.sequence for event in door.sink.events] == list(range(1, many + 1))
    await switch.aclose()


STREAM = b"".join(recorded_blocks("03a-dtmf-rfc2833-sipp"))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_however_the_bytes_are_cut_the_same_is_heard(seed: int, glue: bool) -> None:
    async def run() -> None:
        door = RememberingDoor()
        switch, leg = wired(door, faults=PipeFaults(seed=seed, split=True, glue=glue))
        switch.send(STREAM)  # the recorder's opening had one command less: the reply to `exit` fits the last one
        await door.sink.until("closed")
        assert leg.unique_id == switch.unique_id
        assert door.sink.names[:5] == ["DTMF"] * 5
        assert sorted(door.sink.names[5:-1]) == sorted(
            [
                "lingering",
                "CHANNEL_HANGUP",
                "CHANNEL_UNPARK",
                "CHANNEL_EXECUTE_COMPLETE",
                "CHANNEL_STATE",
                "CHANNEL_STATE",
                "CHANNEL_HANGUP_COMPLETE",
            ]
        )
        assert door.sink.heard[-1] == "closed: goodbye from the switch"
        assert door.refusals == []
        await switch.aclose()

    run_virtual(run())


def test_nothing_of_a_leg_is_left_when_it_is_over() -> None:
    async def run() -> "weakref.ref[OutboundLeg]":
        switch, leg, sink = await opened()
        waiting = asyncio.ensure_future(leg.execute("playback", "a.wav"))
        command = await switch.command()
        switch.answer(command)
        waiting.cancel()
        breaking = asyncio.ensure_future(leg.break_all())
        switch.answer(await switch.command())
        await breaking
        leg.notify_session_ended("done")
        switch.answer(await switch.command())
        await sink.until("closed")
        await switch.aclose()
        sink.heard.clear()
        return weakref.ref(leg)

    gone = run_virtual(run())
    gc.collect()
    assert gone() is None
