"""The end of a child process."""

import asyncio
from asyncio.subprocess import Process
from contextlib import suppress


async def reap(process: Process) -> None:
    """Kill `process` if it still runs, and return when it and its pipes are gone: no zombie, no open descriptor."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    if process.stdin is not None:
        process.stdin.close()
    if process.stdout is not None:
        with suppress(OSError):
            await process.stdout.read()  # to its end, which comes with the process's own
    await process.wait()
    await asyncio.sleep(0)  # the loop lets go of the pipes one turn after it has seen them end
