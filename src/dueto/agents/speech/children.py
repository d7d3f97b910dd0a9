"""The end of a child process."""

import asyncio
from asyncio.subprocess import Process
from contextlib import suppress


async def reap(process: Process) -> None:
    """Kill `process` if it still runs, and return when it and its pipes are gone: no zombie, no open descriptor.

    Cancelling does not leave it behind: it has been killed, so the little that is left is waited for all the same.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    if process.stdin is not None:
        process.stdin.close()
    going = asyncio.create_task(_gone(process), name=f"end of process {process.pid}")
    cancelled = False
    while not going.done():
        try:
            await asyncio.shield(going)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def _gone(process: Process) -> None:
    if process.stdout is not None:
        with suppress(OSError):
            await process.stdout.read()  # to its end, which comes with the process's own
    await process.wait()
    await asyncio.sleep(0)  # the loop lets go of the pipes one turn after it has seen them end
