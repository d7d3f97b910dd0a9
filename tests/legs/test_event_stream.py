"""The control leg by itself, as docs/legs.md shows it."""

import asyncio

from dueto.legs import Calls, ControlServer, EventStream, OutboundLeg, OutboundOptions
from dueto.sim import Caller, Line, MemoryDoors, Switch, run_virtual


async def until_hangup(line: Line) -> None:
    await line.until_hangup()


async def test_a_handler_answers_plays_and_reads_a_digit_on_a_real_socket() -> None:
    seen: list[str] = []

    async def ivr(leg: OutboundLeg, events: EventStream) -> None:
        done = await leg.execute("playback", "silence_stream://100")
        seen.append(done.get("Application-Response"))
        digit = await events.wait_for("DTMF")
        seen.append(digit.get("DTMF-Digit"))
        await leg.api("uuid_kill", leg.unique_id)
        await events.wait_for("CHANNEL_HANGUP_COMPLETE")

    async def script(line: Line) -> None:
        await line.wait(0.3)
        await line.press("9")
        await line.until_hangup()

    calls = Calls(ivr)
    server = ControlServer(calls, OutboundOptions())
    port = await server.start("127.0.0.1", 0)
    async with Switch(f"127.0.0.1:{port}", "") as switch:
        call = await switch.place(Caller(script=script))
        await call.done()
        await call.released()
    await calls.aclose()
    await server.aclose()
    assert seen == ["FILE PLAYED", "9"]


def test_a_reader_that_falls_behind_holds_the_switch_back_and_loses_nothing() -> None:
    digits: list[str] = []
    waiting: list[int] = []

    async def slow(leg: OutboundLeg, _: EventStream) -> None:
        events = EventStream(leg, most=50)
        await asyncio.sleep(5.0)
        waiting.append(len(events))
        async for event in events:
            if event.name == "DTMF":
                digits.append(event.get("DTMF-Digit"))

    async def run() -> None:
        calls = Calls(slow)
        doors = MemoryDoors(lambda: OutboundLeg(calls, OutboundOptions()))
        async with Switch("127.0.0.1:8022", "", doors=doors, record=False) as switch:
            call = await switch.place(Caller(script=until_hangup))
            await asyncio.sleep(0.1)
            for number in range(200):  # they come 50 a second: all of them before the reader begins
                call.channel.press(str(number % 10), 160, "RTP")
            await asyncio.sleep(9.0)
            call.hang_up()
            await call.done()
            await call.released()
        await calls.aclose()

    run_virtual(run(), start_s=1000.0)
    assert digits == [str(number % 10) for number in range(200)]
    assert 50 <= waiting[0] < 60  # as many as one read may bring beyond the bound


async def test_a_handler_that_fails_is_told_of_and_its_leg_let_go() -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))

    async def broken(leg: OutboundLeg, events: EventStream) -> None:
        raise RuntimeError("a bug")

    calls = Calls(broken)
    server = ControlServer(calls, OutboundOptions())
    port = await server.start("127.0.0.1", 0)
    async with Switch(f"127.0.0.1:{port}", "", dialplan=[("playback", "silence_stream://50")]) as switch:
        call = await switch.place(Caller(script=until_hangup))
        await call.done()
    await calls.aclose()
    await server.aclose()
    assert call.ended_in == "playback"
    assert "failed" in told[0]
