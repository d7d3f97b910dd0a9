"""`dueto serve`: the gateway as a process, from its first log line to its exit code."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Final, TypeVar

import structlog

import dueto
from dueto.app.addresses import Address
from dueto.app.gateway import Gateway
from dueto.app.logs import finish_logs
from dueto.app.settings import Settings

T = TypeVar("T")
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where uvloop is installed, asyncio's own elsewhere."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


LEAVING_S: Final = 3.0
"How long what does not heed the end is waited for."


def run_to_the_end(main: Coroutine[object, object, T]) -> T:
    """Run `main` on a loop of its own and return its result. Nothing it leaves behind keeps the process.

    A task that swallows its cancelling, or a thread that never returns, is somebody's agent or tool: after `LEAVING_S`
    the process ends without it, with 0 or what `main` returned as its exit code.
    """
    with contextlib.ExitStack() as last, asyncio.Runner(loop_factory=new_event_loop) as runner:
        result = runner.run(main)
        leaving = threading.Timer(LEAVING_S, _leave, (result if isinstance(result, int) else 0,))
        leaving.daemon = True
        leaving.start()
        last.callback(leaving.cancel)  # once the runner has closed: this may be a part of a longer process
    return result


def _leave(code: int) -> None:
    structlog.get_logger().error("left_behind", text="an agent or a tool did not heed its cancelling; it is left")
    finish_logs()
    os._exit(code)


COLLECTED_AT: Final = (5000, 2, 50)
"""How much has come and stayed before the garbage collector looks at it: objects, rounds of these, rounds of those.

A hundred calls that begin have 5000 objects: those that come and go are hardly ever looked at, and nothing is found of
them (0.2 ms; of the middle generation twice that). With 1000 calls a round of all stands still for 40 ms.
"""


def settle() -> None:
    """Have the garbage collector leave alone what is here now and stays: its collections stop every call."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AT)


FILES: Final = 100
FILES_PER_CALL: Final = 5
"Control leg, stream, provider, recording, and what an agent of one's own opens."


def enough_files(max_calls: int) -> str:
    """Allow this process as many open files as `max_calls` may need. Returns what to do where that fails, else ""."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES + FILES_PER_CALL * max_calls
    if soft < wanted and soft != resource.RLIM_INFINITY:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            return (
                f"{max_calls} calls (control.max_calls) may need {wanted} open files, and {allowed} are allowed: "
                f"set LimitNOFILE={wanted} (systemd) or `ulimit -n {wanted}`, or lower control.max_calls"
            )
    return ""


class Stop:
    """Counts how often somebody asked for the end: by a signal, or by `ask`."""

    def __init__(self) -> None:
        self._asked = (asyncio.Event(), asyncio.Event())

    def ask(self) -> None:
        """Ask once more. More than twice means no more than twice."""
        first, second = self._asked
        (second if first.is_set() else first).set()

    @property
    def asked(self) -> bool:
        """Whether it was asked for at all."""
        return self._asked[0].is_set()

    async def once(self) -> None:
        """Wait until it was asked for."""
        await self._asked[0].wait()

    async def twice(self) -> None:
        """Wait until it was asked for a second time."""
        await self._asked[1].wait()


@contextlib.contextmanager
def stopped_by_signals(ask: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM and SIGINT call `ask` on the running loop. Not outside of the main thread, where none arrive."""
    loop = asyncio.get_running_loop()
    taken = []
    for number in ENDING_SIGNALS:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, ask)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


async def serve(settings: Settings, stop: Stop | None = None) -> None:
    """Run a gateway until it is told to stop; then drain it. Told a second time, it closes at once.

    Raises: SettingsError: the settings can't serve, or a port is taken.
    """
    log = structlog.get_logger()
    for remark in settings.settings_remarks:
        log.warning("settings_remark", text=remark)
    gateway = Gateway(settings)
    stop = stop or Stop()
    with stopped_by_signals(stop.ask):
        try:
            if await _before(gateway.start(), stop.once()):
                settle()
                log.info("ready", version=dueto.__version__, **_ports(gateway), **_house(gateway))
                await stop.once()
                if not await _before(gateway.drain(), stop.twice()):
                    log.warning("closing_at_once", calls=len(gateway.desk))
        except TimeoutError:
            log.error("drain_incomplete", calls=len(gateway.desk))
        finally:
            await gateway.aclose()
    log.info("stopped")


async def _before(work: Coroutine[object, object, None], alarm: Coroutine[object, object, None]) -> bool:
    """Do `work` to its end, or break it off when `alarm` is over first. Returns whether it came to its end."""
    doing, waiting = asyncio.create_task(work), asyncio.create_task(alarm)
    try:
        await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
            return True
        return False
    finally:
        for task in (doing, waiting):
            task.cancel()
        await asyncio.gather(doing, waiting, return_exceptions=True)


def _ports(gateway: Gateway) -> dict[str, str]:
    """Return where it listens, ports as they really are; without the doors that stay shut."""
    settings = gateway.settings
    doors = {
        "control": (settings.control.listen_address, gateway.control_port),
        "media": (settings.media.listen_address, gateway.media_port),
        "metrics": (settings.metrics.listen_address, gateway.metrics_port),
        "twilio": (settings.twilio.listen_address, gateway.twilio_port),
    }
    return {name: str(Address(address.host, port)) for name, (address, port) in doors.items() if address and port}


def _house(gateway: Gateway) -> dict[str, str]:
    settings = gateway.settings
    return {"agent": gateway.agent.name, "dialect": settings.media.dialect, "engine": settings.control.engine}
