"""Background jobs: a result reaches who asked, once and in time; whoever waits is told of the end."""

import asyncio
import gc

import pytest

from dueto.errors import LegClosed, LocalProtocolError, ReplyTimeout
from dueto.legs.jobs import MAX_JOBS, Jobs
from dueto.sim import run_virtual
from dueto.wire.esl import Event


def result(job_uuid: str, text: str) -> Event:
    head = f"\nEvent-Name: BACKGROUND_JOB\nJob-UUID: {job_uuid}\nContent-Length: {len(text)}\n\n"
    return Event.from_content(f"{head}{text}".encode())


async def test_a_result_reaches_who_asked_and_only_the_first_counts() -> None:
    jobs = Jobs()
    async with jobs.job("a", 5.0) as (first, one), jobs.job("b", 5.0) as (second, two):
        jobs.take(result("of somebody else", "no"))
        jobs.take(result(second, "+OK two"))
        jobs.take(result(second, "again"))
        assert not one.done()
        jobs.take(result(first, "+OK one"))
        assert (await one, await two) == ("+OK one", "+OK two")
        jobs.fail(LegClosed("too late"))
        assert await one == "+OK one"


async def test_a_result_that_comes_after_its_time_is_dropped() -> None:
    jobs = Jobs()
    async with jobs.job("a", 5.0) as (job_uuid, done):
        pass
    jobs.take(result(job_uuid, "+OK"))
    jobs.fail(LegClosed("the end"))
    assert not done.done()


def test_a_job_that_does_not_end_is_given_up_in_time() -> None:
    async def scene() -> None:
        jobs = Jobs()
        began = asyncio.get_running_loop().time()
        with pytest.raises(ReplyTimeout, match=r"the job originate did not end within 2\.0 s"):
            async with asyncio.timeout(60), jobs.job("originate", 2.0) as (_, done):
                await done
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.1)

    run_virtual(scene())


async def test_the_end_of_the_socket_is_told_to_who_waits_and_no_complaint_where_nobody_does() -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    jobs = Jobs()
    async with jobs.job("a", 5.0), jobs.job("b", 5.0) as (_, waited):
        jobs.fail(LegClosed("the end"))
        jobs.fail(LegClosed("once more"))
        with pytest.raises(LegClosed, match="the end"):
            await waited
    del waited
    gc.collect()  # futures complain when they go
    assert complaints == []


async def test_only_so_many_jobs_may_wait_and_one_that_ends_makes_room() -> None:
    jobs = Jobs()
    waiting = [jobs.job("a", 60.0) for _ in range(MAX_JOBS)]
    for one in waiting:
        await one.__aenter__()
    with pytest.raises(LocalProtocolError):
        await jobs.job("one more", 5.0).__aenter__()
    await waiting.pop().__aexit__(None, None, None)
    async with jobs.job("one more", 5.0):
        pass
    for one in waiting:
        await one.__aexit__(None, None, None)
