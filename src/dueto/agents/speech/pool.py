"""Recognisers in processes of their own: the decoder holds the interpreter's lock for hundreds of ms.

Plain child processes with pipes, not `multiprocessing`: nothing of the gateway's state is copied or imported again, a
script that starts a gateway needs no `if __name__ == "__main__"`, and a crash is the end of one pipe.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dueto.agents.speech.children import reap
from dueto.agents.speech.decoder import NOTHING, Understood
from dueto.agents.speech.pipe import LENGTH
from dueto.errors import NotCapable

START_S: Final = 30.0
"For a model to load; a process that takes longer is broken."
_LARGEST_ANSWER: Final = 65_536
_RETRY_S: Final = 1.0
"Between two attempts to start a process that would not."


@dataclass(slots=True)
class PoolFigures:
    """What a pool did so far."""

    answered: int = 0
    refused: int = 0
    "Utterances that found the queue full."
    late: int = 0
    "Utterances whose recogniser took too long and was killed."
    crashed: int = 0
    "Utterances whose recogniser died."


@dataclass(slots=True)
class _Job:
    pcm: bytes
    answer: asyncio.Future[Understood] = field(repr=False)


class Task(Protocol):
    """What all recognisers of a pool do: the module of their process, and what it is told first."""

    @property
    def worker(self) -> str:
        """Run as `python -m`; it speaks as `worker.py` does."""
        ...

    def to_json(self) -> bytes:
        """The first message."""
        ...


class RecogniserPool:
    """A bounded number of recognisers, all with the same task (a `Vocabulary`, say), shared by all calls."""

    def __init__(self, task: Task, *, size: int = 2, waiting: int = 16, patience_s: float = 5.0) -> None:
        """`waiting` utterances may queue; each has `patience_s` from when a recogniser takes it."""
        if size < 1 or waiting < 1:
            raise ValueError("a pool of recognisers needs at least one, and room for one utterance")
        self._task = task
        self._size = size
        self._patience_s = patience_s
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(waiting)
        self._keepers: list[asyncio.Task[None]] = []
        self.figures = PoolFigures()
        self.process_ids: dict[int, int] = {}
        "Which process each place of the pool has now; a place without one is starting it anew."

    async def start(self) -> None:
        """Start all processes; return when every model is loaded.

        Raises: NotCapable: one of them did not come up; the text says why. None is left behind then.
        """
        ready = [asyncio.get_running_loop().create_future() for _ in range(self._size)]
        for place, future in enumerate(ready):
            keeper = asyncio.create_task(self._keep(place, future.set_result), name=f"recogniser {place}")
            keeper.add_done_callback(_told(future))
            self._keepers.append(keeper)
        try:
            await asyncio.gather(*ready)
        except BaseException:
            await self.aclose()
            for future in ready:
                if future.done() and not future.cancelled():
                    future.exception()
            raise

    def submit(self, pcm: bytes) -> asyncio.Future[Understood]:
        """Give an utterance (L16, 8 kHz) to the next free recogniser; the future brings what it understood.

        It never fails: where the queue is full, or the recogniser died or took too long, it is `NOTHING`, counted in
        `figures`. Cancelling it is safe. On the loop's thread; does not block.
        """
        job = _Job(pcm, asyncio.get_running_loop().create_future())
        try:
            if not self._keepers:
                raise asyncio.QueueFull
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            self.figures.refused += 1
            job.answer.set_result(NOTHING)
        return job.answer

    async def aclose(self) -> None:
        """End the processes; what still waits is answered with `NOTHING`."""
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        while not self._jobs.empty():
            _answer(self._jobs.get_nowait(), NOTHING)

    async def _keep(self, place: int, ready: Callable[[None], None]) -> None:
        """Keep one process alive and give it utterances, until cancelled."""
        process = await self._spawn(place)
        ready(None)
        job: _Job | None = None
        try:
            while True:
                job = await self._jobs.get()
                if job.answer.done():  # its caller is gone
                    continue
                try:
                    understood = await self._ask(process, job.pcm)
                    self.figures.answered += 1
                except (TimeoutError, OSError, EOFError, ValueError) as error:
                    if isinstance(error, TimeoutError):
                        self.figures.late += 1
                    else:
                        self.figures.crashed += 1
                    _answer(job, NOTHING)
                    await self._end(place, process)
                    process = await self._spawn_again(place)
                else:
                    _answer(job, understood)
        finally:
            if job is not None:
                _answer(job, NOTHING)
            await self._end(place, process)

    async def _spawn(self, place: int) -> Process:
        if not sys.executable:
            raise NotCapable("the recogniser runs in a process of its own, and this Python does not know its program")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", self._task.worker),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is for the gateway, which lets its calls end first
        )
        try:
            async with asyncio.timeout(START_S):
                problem = await _exchange(process, self._task.to_json())
        except (TimeoutError, OSError, EOFError) as error:
            await self._end(place, process)
            raise NotCapable(f"the recogniser's process did not come up: {error or 'it took too long'}") from error
        except BaseException:
            await self._end(place, process)
            raise
        if problem:
            await self._end(place, process)
            raise NotCapable(f"the recogniser did not start: {problem.decode(errors='replace')}")
        self.process_ids[place] = process.pid
        return process

    async def _spawn_again(self, place: int) -> Process:
        while True:
            try:
                return await self._spawn(place)
            except (NotCapable, OSError):
                await asyncio.sleep(_RETRY_S)

    async def _ask(self, process: Process, pcm: bytes) -> Understood:
        async with asyncio.timeout(self._patience_s):
            text, confidence = json.loads(await _exchange(process, pcm))
        return Understood(str(text), float(confidence))

    async def _end(self, place: int, process: Process) -> None:
        """Kill and reap. It holds nothing that is worth a farewell."""
        self.process_ids.pop(place, None)
        await reap(process)


async def _exchange(process: Process, body: bytes) -> bytes:
    """Send one message and return the next. Raises: EOFError (IncompleteReadError): the process is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(LENGTH.pack(len(body)) + body)
    await process.stdin.drain()
    (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    if size > _LARGEST_ANSWER:
        raise EOFError(f"an answer of {size} bytes")
    return await process.stdout.readexactly(size)


def _answer(job: _Job, understood: Understood) -> None:
    if not job.answer.done():
        job.answer.set_result(understood)


def _told(future: asyncio.Future[None]) -> Callable[[asyncio.Task[None]], None]:
    """Return a callback that lets whoever waits for the start know that its keeper failed."""

    def tell(keeper: asyncio.Task[None]) -> None:
        error = None if keeper.cancelled() else keeper.exception()
        if not future.done():
            if error is None:
                future.cancel()
            else:
                future.set_exception(error)

    return tell
