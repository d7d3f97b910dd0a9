"""`dueto simulate`: load from the simulated switch against any running gateway, and a verdict on every call."""

import asyncio
import contextlib
import secrets
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from dueto.app.addresses import Address, parse_address
from dueto.app.serve import Stop, new_event_loop, stopped_by_signals
from dueto.app.settings import Settings
from dueto.errors import SettingsError
from dueto.sim import AudioDialect, Caller, Line, SimCall, Switch
from dueto.sim.caller import FRAME_MS
from dueto.wire.media import AUDIO_STREAM_BINARY

IN_FLIGHT_S = 0.25
"A frame sent this short before the hangup need not have come back: the gateway's lead, and some way."
SETTLES_S = 2.5
"The same with the dialect `auto`, at the beginning of a call."
PATIENCE_S = 30.0
"How long after its planned end a call may take to be over, before it counts as lost."

Fate = Literal["paired", "refused", "one_leg", "lost"]
FATES: tuple[Fate, ...] = ("paired", "refused", "one_leg", "lost")


@dataclass(frozen=True, slots=True)
class Target:
    """A running gateway, as a switch reaches it."""

    control: str
    "`HOST:PORT`; empty: no control leg."
    media_url: str
    "With `{secretary}`, `{uuid}`, `{caller}` and `{token}`; empty: the streams are the gateway's to start (`unicast`)."
    secret: str = field(repr=False)
    dialect: AudioDialect | Literal["unicast"]
    start: Literal["dialplan", "gateway"]
    rate_hz: int
    settles_s: float = 0.0
    "How long a first call may wait until the gateway knows how to speak with the audio module."


@dataclass(frozen=True, slots=True)
class Load:
    """How much of it."""

    calls: int
    rate_per_s: float
    duration_s: float
    "How long a caller stays, counted from when its legs are with the gateway."
    legs_within_s: float = 10.0
    "How long it waits for them: after that it stays as long with what there is."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one call."""

    fate: Fate
    reason: str
    "Why it was refused or lost, a few words; empty when all went well."
    let_go_ms: float | None
    "From the hangup until both legs were let go; None: they never were, or there were none."


@dataclass(slots=True)
class Result:
    """Everything that was counted. Grows while calls run."""

    placed: int = 0
    fates: "Counter[Fate]" = field(default_factory=Counter)
    reasons: "Counter[str]" = field(default_factory=Counter)
    frames_up: int = 0
    frames_down: int = 0
    frames_echoed: int = 0
    frames_in_flight: int = 0
    "Sent within the last moments before a hangup, or before the stream was up."
    frames_lost: int = 0
    gaps: int = 0
    echo_ms: "array[float]" = field(default_factory=lambda: array("d"))
    let_go_ms: "array[float]" = field(default_factory=lambda: array("d"))
    skipped_s: float = 0.0
    "Time that this process, not the gateway, lost to stalls."
    interrupted: bool = False

    @property
    def finished(self) -> int:
        """How many calls are over."""
        return self.fates.total()

    @property
    def echoed(self) -> bool:
        """Whether the gateway sends back what it hears, so that every frame can be asked for."""
        return self.frames_echoed > 0

    @property
    def ok(self) -> bool:
        """Whether every call was paired, ended as planned and let go, and no frame is missing."""
        return self.placed > 0 and self.fates["paired"] == self.placed and not (self.echoed and self.frames_lost)

    def add(self, call: SimCall, verdict: Verdict, settles_s: float = 0.0) -> None:
        """Count a call that is over. What was sent in its first `settles_s` need not have come back."""
        counters = call.counters
        self.fates[verdict.fate] += 1
        if verdict.reason:
            self.reasons[verdict.reason] += 1
        if verdict.let_go_ms is not None:
            self.let_go_ms.append(verdict.let_go_ms)
        self.frames_up += counters.frames_up
        self.frames_down += counters.frames_down
        self.frames_echoed += len(counters.echo_ms)
        self.echo_ms.extend(counters.echo_ms)
        self.gaps += counters.gaps
        excused_until, excused_from = counters.media_opened_at + settles_s, call.hung_up_at - IN_FLIGHT_S
        for sent_at in counters.sent_marks.values():
            if counters.media_opened_at and excused_until < sent_at < excused_from:
                self.frames_lost += 1
            else:
                self.frames_in_flight += 1


def target_of(
    settings: Settings, *, control: str | None = None, media: str | None = None, media_only: bool = False
) -> Target:
    """Return where the gateway that runs with `settings` is reached; `control` and `media` say it for another one.

    Raises: SettingsError: an address is none, or the secret is missing.
    """
    try:
        address = parse_address(control) if control else settings.control.listen_address
    except ValueError as error:
        raise SettingsError(f"--control: {error}") from None
    if settings.media.dialect == "unicast":
        if media_only or media:
            raise SettingsError('--media, --media-only: with "unicast" nothing dials the gateway for a stream')
        return Target(_dialled(address), "", "", "unicast", "gateway", 8000)
    secret = settings.media.secret.get_secret_value()
    url = _media_url(settings, media)
    if "{token}" in url and not secret:
        raise SettingsError(
            "the stream's token is made from media.secret: set DUETO_MEDIA__SECRET (or --secret, or --config) "
            "to that of the gateway"
        )
    none = media_only or settings.correlation.control == "none"
    return Target(
        control="" if none else _dialled(address),
        media_url=url,
        secret=secret,
        dialect="audio_stream-binary" if settings.media.dialect == "auto" else settings.media.dialect,
        start="dialplan" if none else settings.media.start,
        rate_hz=settings.media.rate_hz,
        settles_s=SETTLES_S if settings.media.dialect == "auto" else 0.0,
    )


def _media_url(settings: Settings, given: str | None) -> str:
    if given and "{uuid}" in given:
        return given
    base = (given or settings.media.public_url or f"ws://{_dialled(settings.media.listen_address)}").rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("ws", "wss") or not parts.netloc or parts.query or parts.path:
        raise SettingsError(f'--media: expected "ws://HOST:PORT", or a whole URL with {{uuid}}, not "{base}"')
    token = "" if settings.media.token == "off" else "&token={token}"
    return f"{base}{settings.media.path}?rate={settings.media.rate_hz}&mix=mono{token}"


def _dialled(address: Address) -> str:
    """Return an address to connect to; one that listens everywhere is reached on loopback."""
    if not address.is_wildcard:
        return str(address)
    return str(Address("::1" if ":" in address.host else "127.0.0.1", address.port))


async def run_load(
    target: Target, load: Load, *, stop: Stop | None = None, report: Callable[[Result], None] = lambda result: None
) -> Result:
    """Place the calls, wait until the last one is over, and return what was counted.

    `stop.ask()` ends it early: no further call, all callers hang up, what ran is counted. `report` is called whenever
    a call begins or ends. Bounded in time: calls that never end count as lost.
    Raises: SettingsError: nobody listens at the target.
    """
    stop = stop or Stop()
    await _knock(target)
    result = Result()
    switch = Switch(
        target.control,
        target.media_url,
        secret=target.secret,
        dialect="audio_stream" if target.dialect == "unicast" else target.dialect,
        start=target.start,
        dialplan=() if target.control else (("park", ""),),
        seed=secrets.randbits(64),  # other Unique-IDs every time: a gateway refuses streams of calls that are over
        record=False,
    )
    binary = target.dialect == AUDIO_STREAM_BINARY.name  # as its dialplan would say
    loop = asyncio.get_running_loop()
    async with switch, asyncio.TaskGroup() as watchers:
        began = loop.time()
        for number in range(load.calls):
            delay_s = began + number / load.rate_per_s - loop.time()
            if delay_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await stop.once()
            else:
                await asyncio.sleep(0)
            if stop.asked:
                break
            plan = Plan(load, stop, control=bool(target.control))
            caller = Caller(
                str(1000 + number),
                script=plan.script,
                rate_hz=target.rate_hz,
                measure_echo=True,
                variables=(("STREAM_SAMPLE_RATE", str(target.rate_hz)),) if binary else (),
            )
            call = await switch.place(caller)
            result.placed += 1
            report(result)
            watchers.create_task(_watch(call, plan, target, result, report))
    result.skipped_s, result.interrupted = switch.skipped_s, stop.asked
    return result


class Plan:
    """What a caller does: wait for its legs, stay for a while, then hang up."""

    def __init__(self, load: Load, stop: Stop, *, control: bool) -> None:
        self.kept = False
        "The caller hung up when it wanted to; nobody did it before."
        self.longest_s = load.legs_within_s + load.duration_s
        self._load, self._stop, self._control = load, stop, control

    async def script(self, line: Line) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._load.legs_within_s):
                while not (line.has_legs(control=self._control) or self._stop.asked):
                    await line.wait(FRAME_MS / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._load.duration_s):
                await self._stop.once()
        self.kept = True


async def _watch(call: SimCall, plan: Plan, target: Target, result: Result, report: Callable[[Result], None]) -> None:
    let_go_at: float | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(plan.longest_s + PATIENCE_S):
            await call.over()
            await call.released()
            let_go_at = time.monotonic()
    if let_go_at is None:
        await call.abort()
    result.add(call, _judge(call, plan, target, let_go_at), target.settles_s)
    report(result)


def _judge(call: SimCall, plan: Plan, target: Target, let_go_at: float | None) -> Verdict:
    control, media = bool(call.control_opened_at), bool(call.media_opened_at)
    let_go_ms = (let_go_at - call.hung_up_at) * 1000 if let_go_at is not None and (control or media) else None
    told = call.channel.variables.get("dueto_result", "")
    if told in ("full", "draining"):
        return Verdict("refused", f"the gateway is {told}", let_go_ms)
    if not control and not media:
        return Verdict("refused", "neither leg was let in", None)
    if target.control and not (control and media):
        return Verdict("one_leg", "no control leg" if media else "no media leg", let_go_ms)
    if not media:
        return Verdict("refused", "the stream was not let in", None)
    if let_go_ms is None:
        return Verdict("lost", f"not let go within {PATIENCE_S:.0f} s", None)
    if not plan.kept:
        return Verdict("lost", f"ended before its time ({told or call.hangup_cause or 'unknown'})", let_go_ms)
    return Verdict("paired", "", let_go_ms)


async def _knock(target: Target) -> None:
    """Raises: SettingsError: nobody listens."""
    media = urlsplit(target.media_url)
    doors = [("media", media.hostname or "", media.port or (443 if media.scheme == "wss" else 80))]
    if not target.media_url:
        doors.clear()
    if target.control:
        control = parse_address(target.control)
        doors.insert(0, ("control", control.host, control.port))
    for leg, host, port in doors:
        try:
            async with asyncio.timeout(5.0):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or str(error) or "no answer"
            raise SettingsError(
                f"no gateway's {leg} listener at {Address(host, port)} ({why}); start one: dueto serve --agent echo"
            ) from None
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def percentile(values: "array[float] | list[float]", share: float) -> float:
    """Return the value that `share` (0 to 1) of `values` do not exceed: nearest rank. 0 for no values at all."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def summary(result: Result) -> dict[str, Any]:
    """Return the result as plain data, for `--json`."""

    def spread(values: "array[float]") -> dict[str, float] | None:
        if not values:
            return None
        return {
            "p50": round(percentile(values, 0.5), 3),
            "p99": round(percentile(values, 0.99), 3),
            "max": round(max(values), 3),
        }

    return {
        "ok": result.ok,
        "interrupted": result.interrupted,
        "calls": {
            "placed": result.placed,
            **{fate: result.fates[fate] for fate in FATES},
        },
        "reasons": dict(result.reasons),
        "frames": {
            "up": result.frames_up,
            "down": result.frames_down,
            "echoed": result.frames_echoed,
            "in_flight": result.frames_in_flight,
            "lost": result.frames_lost if result.echoed else None,
            "gaps": result.gaps,
        },
        "echo_ms": spread(result.echo_ms),
        "let_go_ms": spread(result.let_go_ms),
        "stalled_s": round(result.skipped_s, 3),
    }


def run_simulate(target: Target, load: Load, *, as_json: bool) -> int:
    """Run the load with progress on stderr and the result on stdout; return the exit code: 0, 1, or 130 when stopped.

    Raises: SettingsError: nobody listens at the target.
    """
    from dueto.app.simulate_report import LoadProgress, print_report

    async def run() -> Result:
        stop = Stop()
        with stopped_by_signals(stop.ask), LoadProgress(load) as progress:
            return await run_load(target, load, stop=stop, report=progress.update)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        result = runner.run(run())
    print_report(result, as_json=as_json)
    if result.interrupted:
        return 130
    return 0 if result.ok else 1
