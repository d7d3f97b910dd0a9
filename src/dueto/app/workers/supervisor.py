"""The parent: accepts control connections, passes each one on, keeps the workers alive, replaces them one by one."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

import dueto
from dueto.app.addresses import why_deaf
from dueto.app.serve import Stop, stopped_by_signals
from dueto.app.settings import Settings
from dueto.app.status import StatusServer
from dueto.app.workers.checks import check_for_workers
from dueto.app.workers.front import Front
from dueto.app.workers.hand import Hand
from dueto.app.workers.merging import Merged
from dueto.app.workers.pipe import Pipe, pass_on
from dueto.app.workers.worker import Post
from dueto.call.house import WORKER
from dueto.errors import Refused, SettingsError
from dueto.legs.handover import mark_of
from dueto.legs.listening import BACKLOG, ListeningSocket
from dueto.legs.networks import allowed

READY_S: Final = 60.0
"How long a worker may take to be ready: a receptionist loads models first."
BACK_OFF_S: Final = (0.1, 10.0)
"A worker that died is replaced after the first of these; again and again, doubled up to the second."
END_S: Final = 15.0
"What draining may take beyond `call.drain_s` before a worker is killed."
MAX_HANDOVERS: Final = 1000
"Connections whose `connect` is being answered; more wait in the kernel."


class Supervisor:
    """Runs `count` workers behind one control socket, until it is told to stop."""

    def __init__(self, settings: Settings, count: int, command: Sequence[str]) -> None:
        """`command` starts a worker, once `--worker POST` stands behind it. Raises: SettingsError."""
        check_for_workers(settings, count)
        self._settings = settings
        self._count = count
        self._command = tuple(command)
        self._hands: dict[str, Hand] = {}
        self._slots = list(range(2 * count))
        "Media ports that nobody has: twice as many as workers, so that each can be replaced while it has calls."
        self._names = 0
        self._stopping = False
        self._ended = asyncio.Event()
        self._handovers = asyncio.Semaphore(MAX_HANDOVERS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turnover = asyncio.Lock()
        self._merged = Merged()
        self._registry = CollectorRegistry()
        self._registry.register(self._merged)
        self._workers = Gauge("dueto_workers", "Worker processes, by state.", ["state"], registry=self._registry)
        self._listener: ListeningSocket | None = None
        self.control_port = self.metrics_port = self.twilio_port = 0
        self._log = structlog.get_logger()

    async def run(self, stop: Stop | None = None) -> None:
        """Serve; SIGHUP replaces the workers one by one, SIGTERM drains, a second one closes at once.

        Raises: SettingsError: a port is taken, or a worker can't serve; the text is its own.
        """
        stop = stop or Stop()
        loop = asyncio.get_running_loop()
        status: StatusServer | None = None
        front: Front | None = None
        with stopped_by_signals(stop.ask):
            loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.replace_all(), "replace all"))
            try:
                self._listener = self._listening()
                self.control_port = self._listener.getsockname()[1]
                await asyncio.gather(*(self._start(takes_back=number == 0) for number in range(self._count)))
                if (address := self._settings.metrics.listen_address) is not None:
                    status = StatusServer(address, self._registry, self._ready, self._refresh)
                    await status.start()
                    self.metrics_port = status.address.port
                if (address := self._settings.twilio.listen_address) is not None:
                    front = Front(address, self._hands.values, self._least)
                    await front.start()
                    self.twilio_port = front.port
                accepting = self._spawn(self._accept(self._listener), "accept")
                self._log.info(
                    "ready", version=dueto.__version__, workers=self._count, control=self.control_port,
                    metrics=self.metrics_port, twilio=self.twilio_port,
                )  # fmt: skip
                await stop.once()
                accepting.cancel()
                self._listener.close()
                await self._stop(stop)
            finally:
                loop.remove_signal_handler(signal.SIGHUP)
                self._stopping = True
                if self._listener is not None:
                    self._listener.close()
                for task in tuple(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self._kill(tuple(self._hands.values()))
                for server in (status, front):
                    if server is not None:
                        await server.aclose()
        self._log.info("stopped")

    async def replace_all(self) -> None:
        """Replace the workers one by one: the new one serves before the old one is retired; no call is lost.

        A new one that can't serve (a configuration that was spoilt meanwhile) leaves the old one where it is.
        """
        async with self._turnover:
            old = [hand for hand in self._hands.values() if hand.serving]
            self._log.info("replacing_workers", workers=len(old))
            for hand in old:
                try:
                    await self._start()
                except (SettingsError, TimeoutError, OSError) as error:
                    self._log.error(
                        "worker_not_replaced", worker=hand.post.name, error=str(error) or "it took too long"
                    )
                    return
                hand.end("retire")
            self._log.info("workers_replaced", workers=len(old))

    # -- connections

    def _listening(self) -> ListeningSocket:
        address = self._settings.control.listen_address
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            bound = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise SettingsError(f"[control] listen: {why_deaf(address, error)}") from None
        return ListeningSocket(bound, lambda peer: self._refused("no_files", peer))

    def _refused(self, reason: str, peer: str) -> None:
        self._log.warning("refused", leg="control", reason=reason, peer=peer)

    async def _accept(self, listener: ListeningSocket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._handovers.acquire()
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:  # it was gone before we looked, or worse
                self._handovers.release()
                self._log.warning("accept_failed", error=str(error))
                await asyncio.sleep(BACK_OFF_S[0])
                continue
            self._spawn(self._hand_over(connection, str(peer[0])), "hand over")

    async def _hand_over(self, connection: socket.socket, peer: str) -> None:
        try:
            with connection:
                if not allowed(peer, self._settings.control.networks):
                    raise Refused("not_allowed")
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                mark = await mark_of(connection, WORKER)
                for _ in self._hands:
                    hand = self._hands.get(mark) or self._least()
                    try:
                        pass_on(hand.connections, connection)
                    except OSError:  # it is just dying, or hangs
                        hand.serving = False
                        continue
                    hand.passed += 1
                    return
                raise Refused("no_worker")
        except Refused as refused:  # closed: the switch goes on with its dialplan
            self._refused(refused.reason, peer)
        finally:
            self._handovers.release()

    def _least(self) -> Hand:
        """The worker with the fewest calls. Raises: Refused: none serves."""
        serving = [hand for hand in self._hands.values() if hand.serving]
        if not serving:
            raise Refused("no_worker")
        return min(serving, key=lambda hand: hand.load)

    # -- workers

    async def _start(self, *, takes_back: bool = False) -> None:
        """Start a worker and wait until it serves. Raises: SettingsError, TimeoutError, OSError."""
        if not self._slots:
            raise SettingsError("all media ports are taken by workers that still have calls; try again later")
        self._slots.sort()
        slot = self._slots.pop(0)
        self._names += 1
        lines, their_lines = socket.socketpair()
        connections, their_connections = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connections.setblocking(False)
        fds = (their_lines.fileno(), their_connections.fileno())
        post = Post(f"w{self._names}", slot, self._count, *fds, takes_back)
        try:
            with their_lines, their_connections:
                process = await asyncio.create_subprocess_exec(*self._command, "--worker", str(post), pass_fds=fds)
        except BaseException:
            lines.close()
            connections.close()
            self._slots.append(slot)
            raise
        hand = self._hands[post.name] = Hand(post, process, await Pipe.over(lines), connections)
        self._spawn(self._watch(hand), f"worker {post.name}")
        try:
            async with asyncio.timeout(READY_S):
                await asyncio.shield(hand.ready)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        hand.serving = True
        self._log.info("worker_ready", worker=post.name, pid=process.pid)

    async def _watch(self, hand: Hand) -> None:
        """Listen to a worker until it is gone; replace one that died."""
        while (line := await hand.pipe.read()) is not None:
            hand.told(line)
        code = await hand.process.wait()
        wanted = not hand.serving
        hand.serving = False
        self._hands.pop(hand.post.name, None)
        self._slots.append(hand.post.slot)
        self._merged.ended(hand.post.name)
        hand.pipe.close()
        hand.connections.close()
        if not hand.ready.done():
            hand.ready.set_exception(SettingsError(f"a worker ended before it was ready, with exit code {code}"))
            hand.ready.exception()
        elif wanted:
            self._log.info("worker_ended", worker=hand.post.name, code=code)
        elif not self._stopping:
            self._log.error("worker_died", worker=hand.post.name, code=code, calls=hand.load)
            await self._replace()
        if not self._hands:
            self._ended.set()

    async def _replace(self) -> None:
        delay_s, most_s = BACK_OFF_S
        while not self._stopping:
            await asyncio.sleep(delay_s)
            try:
                await self._start()
                return
            except (SettingsError, TimeoutError, OSError) as error:
                self._log.error("worker_not_started", error=str(error) or "it took too long")
            delay_s = min(2 * delay_s, most_s)

    async def _stop(self, stop: Stop) -> None:
        """Drain: every worker lets its calls finish, and returns the rest to the dialplan."""
        self._stopping = True
        hands = tuple(self._hands.values())
        self._log.info("draining", workers=len(hands), drain_s=self._settings.call.drain_s)
        for hand in hands:
            hand.end("drain")
        again = asyncio.create_task(stop.twice())
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait(
            (again, ended), timeout=self._settings.call.drain_s + END_S, return_when=asyncio.FIRST_COMPLETED
        )
        if again.done():
            self._log.warning("closing_at_once")
            for hand in self._hands.values():
                hand.end("close")
            await asyncio.wait((ended,), timeout=END_S)
        for task in (again, ended):
            task.cancel()

    async def _kill(self, hands: Sequence[Hand]) -> None:
        for hand in hands:
            hand.pipe.close()
            hand.connections.close()
            with contextlib.suppress(ProcessLookupError):
                hand.process.kill()
            await hand.process.wait()

    # -- what is told of them

    def _ready(self) -> tuple[bool, str]:
        if self._stopping:
            return False, "draining"
        serving = [hand for hand in self._hands.values() if hand.serving]
        if not serving:
            return False, "no worker"
        full = sum(hand.load for hand in serving) >= self._settings.control.max_calls
        return (False, "full") if full else (True, "ready")

    async def _refresh(self) -> None:
        hands = tuple(self._hands.values())
        self._workers.labels("serving").set(sum(hand.serving for hand in hands))
        self._workers.labels("retiring").set(sum(not hand.serving for hand in hands))

        async def one(hand: Hand) -> None:
            with contextlib.suppress(TimeoutError):
                self._merged.report(hand.post.name, await hand.metrics())

        await asyncio.gather(*(one(hand) for hand in hands))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task_failed", task=task.get_name(), error=f"{type(error).__name__}: {error}")
