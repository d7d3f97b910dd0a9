"""What every control engine owes whoever asks the switch for something: replies, completions, refusals."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.contract.bench import Bench, Line

from dueto.errors import CommandRefused, Dropped, LegClosed, LocalProtocolError, ReplyTimeout
from dueto.legs.executions import MAX_WAITING
from dueto.legs.ports import ControlLeg
from dueto.wire.esl import Api, Event, Raw, SendMsg, Subscribe
from dueto.wire.esl.switch_end import CommandBlock

Execution = asyncio.Task[Event]


async def play(line: Line, file: str) -> tuple[Execution, CommandBlock]:
    """Queue a playback and let the switch accept it."""
    waiting = asyncio.ensure_future(line.leg.execute("playback", file))
    command = await line.switch.command()
    line.switch.answer(command)
    return waiting, command


async def in_step(line: Line) -> None:
    """Wait until each side has seen all that the other one sent before."""
    asked = asyncio.ensure_future(line.leg.api("status"))
    command = await line.switch.command()
    assert command.line == "api status"
    line.switch.answer(command)
    await asked


# -- replies


async def test_replies_are_matched_by_their_order(line: Line) -> None:
    asked = [asyncio.ensure_future(line.leg.api("uuid_getvar", f"x v{number}")) for number in range(20)]
    for number in range(20):
        assert (await line.switch.command()).line == f"api uuid_getvar x v{number}"
        line.switch.api_response(f"value {number}")
    assert await asyncio.gather(*asked) == [f"value {number}" for number in range(20)]


async def test_events_between_replies_disturb_nothing(line: Line) -> None:
    asked = [asyncio.ensure_future(line.leg.api("status")) for _ in range(3)]
    for number in range(3):
        await line.switch.command()
        line.switch.send(line.switch.event("DTMF", {"DTMF-Digit": str(number)}))
        line.switch.api_response(str(number))
    assert await asyncio.gather(*asked) == ["0", "1", "2"]
    assert [event.get("DTMF-Digit") for event in line.sink.events] == ["0", "1", "2"]


async def test_a_cancelled_command_does_not_leave_its_reply_to_the_next(line: Line) -> None:
    given_up = asyncio.ensure_future(line.leg.api("uuid_getvar", "x first"))
    await line.switch.command()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    asked = asyncio.ensure_future(line.leg.api("uuid_getvar", "x second"))
    line.switch.api_response("first")
    await line.switch.command()
    line.switch.api_response("second")
    assert await asked == "second"


async def test_after_a_reply_timeout_the_leg_is_usable(line: Line) -> None:
    with pytest.raises(ReplyTimeout):
        await line.leg.api("uuid_getvar", "x first", timeout_s=0.01)
    await line.switch.command()
    asked = asyncio.ensure_future(line.leg.api("uuid_getvar", "x second"))
    await line.switch.command()
    line.switch.api_response("first, late")
    line.switch.api_response("second")
    assert await asked == "second"


async def test_a_posted_command_takes_its_reply_with_it(line: Line) -> None:
    line.leg.post(Api("uuid_setvar", "x a b"))
    asked = asyncio.ensure_future(line.leg.command(SendMsg("hangup", {"hangup-cause": "USER_BUSY"})))
    assert (await line.switch.command()).line == "api uuid_setvar x a b"
    line.switch.api_response("-ERR No such channel!\n")
    hangup = await line.switch.command()
    assert (hangup.headers["call-command"], hangup.headers["hangup-cause"]) == ("hangup", "USER_BUSY")
    line.switch.reply("+OK")
    assert (await asked).ok


async def test_a_refusal_is_a_reply_to_a_command(line: Line) -> None:
    asked = asyncio.ensure_future(line.leg.command(Raw("nonsense")))
    await line.switch.command()
    line.switch.reply("-ERR command not found")
    reply = await asked
    assert (reply.ok, reply.text) == (False, "-ERR command not found")


async def test_api_returns_the_output_trimmed_and_as_it_is(line: Line) -> None:
    asked = asyncio.ensure_future(line.leg.api("uuid_getvar", "x name"))
    await line.switch.command()
    line.switch.api_response("\nßx%20\n\nContent-Length: 5\n\n")
    assert await asked == "ßx%20\n\nContent-Length: 5"


@pytest.mark.parametrize("output", ["-ERR No such channel!\n", "-USAGE: <uuid> <var>\n", "-ERR no reply\n"])
async def test_api_output_that_is_an_error_is_raised_with_its_text(bench: Bench, output: str) -> None:
    line = await bench.line()
    asked = asyncio.ensure_future(line.leg.api("uuid_hold", "nope"))
    await line.switch.command()
    line.switch.api_response(output)
    with pytest.raises(CommandRefused, match=output.strip()[:5]) as raised:
        await asked
    assert str(raised.value) == output.strip()


async def test_api_without_full_is_refused_by_its_reply(line: Line) -> None:
    asked = asyncio.ensure_future(line.leg.api("status"))
    await line.switch.command()
    line.switch.reply("-ERR command not found")
    with pytest.raises(CommandRefused, match="command not found"):
        await asked


# -- nothing from outside ends a line


@pytest.mark.parametrize("bad", ["\n", "\r", "\r\n", "\0", "\n\nexit", "\ud800"])
@pytest.mark.parametrize(
    "verb",
    [
        lambda leg, bad: leg.api("uuid_setvar", f"x a {bad}b"),
        lambda leg, bad: leg.api(f"uuid_setvar{bad}", "x"),
        lambda leg, bad: leg.execute("playback", f"a{bad}.wav"),
        lambda leg, bad: leg.execute(f"play{bad}back"),
        lambda leg, bad: leg.command(Raw(f"linger{bad}")),
        lambda leg, bad: leg.command(SendMsg("hangup", {"hangup-cause": f"A{bad}B"})),
        lambda leg, bad: leg.command(SendMsg("hangup", {f"hangup{bad}cause": "A"})),
        lambda leg, bad: leg.command(Subscribe((f"DTMF{bad}",))),
    ],
    ids=["api argument", "api", "execute argument", "execute", "raw", "sendmsg value", "sendmsg name", "subscribe"],
)
async def test_what_would_end_a_line_is_refused_before_a_byte_is_sent(
    line: Line, bad: str, verb: Callable[[ControlLeg, str], Coroutine[Any, Any, object]]
) -> None:
    with pytest.raises(LocalProtocolError):
        await verb(line.leg, bad)
    with pytest.raises(LocalProtocolError):
        line.leg.post(Api("uuid_setvar", f"x a {bad}b"))
    await in_step(line)


# -- applications


async def test_execute_says_what_the_switch_needs_and_returns_its_own_completion(line: Line) -> None:
    begun: list[str] = []
    waiting = asyncio.ensure_future(
        line.leg.execute("playback", "/a b;c.wav", on_start=lambda: begun.append("playback"))
    )
    command = await line.switch.command()
    assert command.line == "sendmsg"
    assert command.headers["call-command"] == "execute"
    assert command.headers["execute-app-name"] == "playback"
    assert command.headers["execute-app-arg"] == "/a b;c.wav"
    assert command.headers["event-lock"] == "true"
    line.switch.answer(command)
    await in_step(line)
    assert begun == []
    line.switch.send(line.switch.started(command))
    await line.sink.until("CHANNEL_EXECUTE")
    assert begun == ["playback"]
    assert not waiting.done()
    line.switch.send(line.switch.completed(command, "FILE PLAYED"))
    completion = await waiting
    assert completion.get("Application-Response") == "FILE PLAYED"
    assert completion.get("Application-UUID") == command.headers["event-uuid"]


async def test_without_the_lock_an_application_may_nest(line: Line) -> None:
    waiting = asyncio.ensure_future(line.leg.execute("playback", "a.wav", event_lock=False))
    command = await line.switch.command()
    assert "event-lock" not in command.headers
    line.switch.answer(command)
    line.switch.send(line.switch.completed(command))
    await waiting


async def test_completions_may_come_interleaved_and_repeated_and_of_others(line: Line) -> None:
    first, first_command = await play(line, "a.wav")
    second, second_command = await play(line, "b.wav")
    stranger = {"Application": "playback", "Application-UUID": "11111111-aaaa-4bbb-8ccc-000000000001"}
    switch = line.switch
    switch.send(switch.started(first_command), switch.started(second_command))
    switch.send(switch.event("CHANNEL_EXECUTE_COMPLETE", stranger), switch.event("CHANNEL_EXECUTE_COMPLETE"))
    switch.send(switch.completed(second_command, "second"), switch.completed(second_command, "again"))
    assert (await second).get("Application-Response") == "second"
    assert not first.done()
    switch.send(switch.completed(first_command, "first"))
    assert (await first).get("Application-Response") == "first"


async def test_a_completion_may_come_after_the_hangup(line: Line) -> None:
    waiting, command = await play(line, "a.wav")
    switch = line.switch
    switch.send(switch.lingers(), switch.event("CHANNEL_HANGUP"), switch.completed(command, "PLAYBACK ERROR"))
    assert (await waiting).get("Application-Response") == "PLAYBACK ERROR"


async def test_a_refused_sendmsg_is_raised(line: Line) -> None:
    waiting = asyncio.ensure_future(line.leg.execute("playback", "a.wav"))
    await line.switch.command()
    line.switch.reply("-ERR invalid session id [x]")
    with pytest.raises(CommandRefused, match="invalid session id"):
        await waiting


async def test_an_application_that_takes_too_long_is_a_timeout_and_the_leg_lives(line: Line) -> None:
    waiting = asyncio.ensure_future(line.leg.execute("playback", "a.wav", timeout_s=0.01))
    command = await line.switch.command()
    line.switch.answer(command)
    with pytest.raises(ReplyTimeout, match="playback"):
        await waiting
    line.switch.send(line.switch.completed(command))
    await in_step(line)


async def test_break_all_drops_what_had_not_begun_and_only_that(line: Line) -> None:
    running, running_command = await play(line, "running.wav")
    line.switch.send(line.switch.started(running_command))
    dropped = [(await play(line, f"{number}.wav"))[0] for number in range(3)]
    breaking = asyncio.ensure_future(line.leg.break_all())
    command = await line.switch.command()
    assert command.line == f"api uuid_break {line.leg.unique_id} all"
    line.switch.answer(command)
    line.switch.send(line.switch.completed(running_command, "FILE PLAYED"))
    await breaking
    later, later_command = await play(line, "later.wav")
    for waiting in dropped:
        with pytest.raises(Dropped):
            await waiting
    assert (await running).get("Application-Response") == "FILE PLAYED"
    assert not later.done()
    line.switch.send(line.switch.completed(later_command))
    await later


async def test_what_began_in_the_moment_of_the_break_was_not_dropped(line: Line) -> None:
    waiting, command = await play(line, "a.wav")
    dropped, _ = await play(line, "b.wav")
    breaking = asyncio.ensure_future(line.leg.break_all())
    line.switch.answer(await line.switch.command())
    line.switch.send(line.switch.started(command))
    await breaking
    with pytest.raises(Dropped):
        await dropped
    assert not waiting.done()
    line.switch.send(line.switch.completed(command))
    await waiting


async def test_a_break_that_nobody_waits_for_any_more_still_drops(line: Line) -> None:
    waiting, _ = await play(line, "a.wav")
    breaking = asyncio.ensure_future(line.leg.break_all())
    command = await line.switch.command()
    breaking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await breaking
    line.switch.answer(command)
    with pytest.raises(Dropped):
        await waiting


# -- the switch's queue of 256


async def _fill(line: Line) -> tuple[list[Execution], list[CommandBlock]]:
    """Queue as many as may wait, and one more; nobody completes anything."""
    waiting = [asyncio.ensure_future(line.leg.execute("playback", f"{n}.wav")) for n in range(MAX_WAITING + 1)]
    commands = []
    for number in range(MAX_WAITING):
        commands.append(await line.switch.command())
        assert commands[-1].headers["execute-app-arg"] == f"{number}.wav"
        line.switch.answer(commands[-1])
    await in_step(line)  # the next thing said is not a sendmsg
    return waiting, commands


async def _expect_next(line: Line, waiting: list[Execution]) -> None:
    command = await line.switch.command()
    assert command.headers["execute-app-arg"] == f"{MAX_WAITING}.wav"
    line.switch.answer(command)
    line.switch.send(line.switch.completed(command, "the last one"))
    assert (await waiting[-1]).get("Application-Response") == "the last one"


async def test_at_most_240_wait_in_the_switch_and_a_start_makes_room(line: Line) -> None:
    waiting, commands = await _fill(line)
    line.switch.send(line.switch.started(commands[0]))
    await _expect_next(line, waiting)
    line.switch.end()
    await asyncio.wait(waiting)


async def test_giving_up_does_not_make_room_in_the_switch(line: Line) -> None:
    waiting, commands = await _fill(line)
    for task in waiting[:-1]:
        task.cancel()
    await asyncio.wait(waiting[:-1])
    await in_step(line)
    line.switch.send(line.switch.started(commands[7]))
    await _expect_next(line, waiting)


async def test_a_break_makes_room(line: Line) -> None:
    waiting, _ = await _fill(line)
    breaking = asyncio.ensure_future(line.leg.break_all())
    line.switch.answer(await line.switch.command())
    await breaking
    await _expect_next(line, waiting)
    assert {type(error) for error in await asyncio.gather(*waiting[:-1], return_exceptions=True)} == {Dropped}


async def test_who_waits_for_room_when_the_connection_ends_is_told(line: Line) -> None:
    waiting, _ = await _fill(line)
    line.switch.end()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {LegClosed}
