"""Background jobs on a control leg, on every engine: a result reaches who asked, and nobody else."""

import asyncio

import pytest
from tests.contract.bench import Line

from dueto.errors import CommandRefused, LegClosed, ReplyTimeout
from dueto.wire.esl.switch_end import CommandBlock


async def accepted(line: Line) -> str:
    """Accept the next bgapi; return its Job-UUID."""
    command: CommandBlock = await line.switch.command()
    assert command.word == "bgapi"
    job = command.headers["job-uuid"]
    line.switch.reply(f"+OK Job-UUID: {job}")
    return job


def ended(line: Line, job: str, output: str) -> None:
    line.switch.send(line.switch.event("BACKGROUND_JOB", {"Job-UUID": job}, body=output.encode()))


async def test_results_that_come_in_any_order_reach_who_asked(line: Line) -> None:
    asked = [asyncio.ensure_future(line.leg.job("originate", f"user/{number} &park()")) for number in range(5)]
    jobs = [await accepted(line) for _ in asked]
    for number in (3, 0, 4, 1, 2):
        ended(line, jobs[number], f"+OK {number}\n")
    assert await asyncio.gather(*asked) == [f"+OK {number}" for number in range(5)]
    assert not line.sink.events, "a job is no event of the call"


async def test_a_job_that_was_refused_tells_why(line: Line) -> None:
    asked = asyncio.ensure_future(line.leg.job("originate", "user/1 &park()"))
    ended(line, await accepted(line), "-ERR USER_BUSY\n")
    with pytest.raises(CommandRefused, match="USER_BUSY"):
        await asked


async def test_a_job_that_takes_too_long_is_a_timeout_and_its_late_result_is_dropped(line: Line) -> None:
    slow = asyncio.ensure_future(line.leg.job("originate", "user/1 &park()", timeout_s=0.05))
    late = await accepted(line)
    with pytest.raises(ReplyTimeout):
        await slow
    asked = asyncio.ensure_future(line.leg.job("originate", "user/2 &park()"))
    job = await accepted(line)
    ended(line, late, "+OK late\n")
    ended(line, job, "+OK in time\n")
    assert await asked == "+OK in time"


async def test_a_job_whose_socket_ends_is_told_so(line: Line) -> None:
    asked = asyncio.ensure_future(line.leg.job("originate", "user/1 &park()"))
    await accepted(line)
    await line.switch.aclose()
    with pytest.raises(LegClosed):
        await asked
