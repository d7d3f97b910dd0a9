"""What a voice provider's adapter costs, and how evenly its voice reaches the caller when a hundred calls talk at once.

    python -m bench.providers [--provider openai|gemini|elevenlabs] [--calls 100] [--seconds 10] [--rate 8000]

First each adapter alone: microseconds per 20 ms frame up and per 100 ms delta down, without sockets. Then a gateway in
a process of its own on one core; a provider behind TLS and the callers on another. Every call is media only, sends 50
frames a second and hears the model without a pause: deltas of 100 ms, a second ahead at first, then as fast as they are
heard. Measured at the caller: the gaps between frames, once everybody talks. The bar: p99 under 25 ms, nothing missing.
"""

import argparse
import asyncio
import gc
import itertools
import json
import os
import ssl
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import trustme
from bench._paced import (
    DELTA_MS,
    Paced,
    PacedElevenLabs,
    PacedGemini,
    PacedOpenAI,
    elevenlabs_delta,
    gemini_delta,
    openai_delta,
)
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)

from dueto.agents.elevenlabs import ElevenLabs, ElevenLabsProfile, addresses_of, elevenlabs
from dueto.agents.gemini_live import GeminiLive, GeminiProfile, gemini_live
from dueto.agents.gemini_session import links_of
from dueto.agents.openai_realtime import OpenAIRealtime, openai_realtime
from dueto.agents.openai_session import OpenAIOptions, OpenAISession
from dueto.agents.ports import Connect, Opening
from dueto.agents.provider import ProviderAgent
from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.serve import new_event_loop
from dueto.app.settings import Settings
from dueto.call import Agent
from dueto.sim import tone

GATEWAY_CORE, OTHERS_CORE = 0, 1
MOST_GAP_MS = 25.0
FRAME_S = 0.02
WARM_S = 2.0
PATIENCE_S = 30.0
"For all to be connected; nothing is measured by it."
TIMES = 20_000


# -- one adapter alone


class Nowhere:
    """A link that sends nothing."""

    dropped_ms = 0

    def send_audio(self, message: bytes, ms: int = 20) -> None:
        pass

    send = send_audio


def per_call_us(work: Callable[[], object], times: int = TIMES) -> float:
    """Return what one run of `work` takes."""
    for _ in range(times // 10):
        work()
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times * 1e6


def openai_alone(rate_hz: int) -> Iterator[tuple[str, float]]:
    """The OpenAI adapter, for a call at `rate_hz`."""
    provider = OpenAIRealtime(OpenAIOptions(api_key="k"), Opening(rate_hz))
    session = OpenAISession(provider._happened, provider._closed)
    session.link = Nowhere()  # type: ignore[assignment]
    provider._session, session.early = session, None
    frame = tone(provider.hears_hz, FRAME_S, 300.0)
    yield f"openai, {rate_hz} Hz: frame up", per_call_us(lambda: provider.hear(frame))
    message = json.dumps(openai_delta("item", provider.speaks_hz)).encode()
    events = provider._told._events

    def down() -> None:
        session.message(message)
        events.clear()

    yield f"openai, {rate_hz} Hz: 100 ms delta down", per_call_us(down, TIMES // 4)


def gemini_alone() -> Iterator[tuple[str, float]]:
    """The Gemini adapter: the same at every rate of the call."""
    provider = GeminiLive(GeminiProfile(use="gemini"), links_of("", "k"), Opening(8000))
    session = provider._session
    session._link = Nowhere()  # type: ignore[assignment]
    frame = tone(provider.hears_hz, FRAME_S, 300.0)
    yield "gemini: frame up", per_call_us(lambda: provider.hear(frame))
    message = json.dumps(gemini_delta()).encode()
    events = provider._told._events

    def down() -> None:
        session._received(message)
        events.clear()

    yield "gemini: 100 ms delta down", per_call_us(down, TIMES // 4)


def elevenlabs_alone(audio_format: str) -> Iterator[tuple[str, float]]:
    """The ElevenLabs adapter, for an agent of that format."""
    profile = ElevenLabsProfile(use="elevenlabs", agent_id="a")
    provider = ElevenLabs(profile, addresses_of(profile, ""), Opening(8000))
    provider._link = Nowhere()  # type: ignore[assignment]
    kind = "conversation_initiation_metadata"
    metadata = {"agent_output_audio_format": audio_format, "user_input_audio_format": audio_format}
    provider._received(json.dumps({"type": kind, f"{kind}_event": {"conversation_id": "c", **metadata}}).encode())
    frame = tone(provider.hears_hz, FRAME_S, 300.0)
    yield f"elevenlabs, {audio_format}: frame up", per_call_us(lambda: provider.hear(frame))
    message = json.dumps(elevenlabs_delta(audio_format)).encode()
    events = provider._told._events

    def down() -> None:
        provider._received(message)
        events.clear()

    yield f"elevenlabs, {audio_format}: 100 ms delta down", per_call_us(down, TIMES // 4)


async def alone() -> None:
    """Print what each adapter costs."""
    adapters = [openai_alone(8000), openai_alone(16000), gemini_alone()]
    adapters += [elevenlabs_alone("ulaw_8000"), elevenlabs_alone("pcm_16000")]
    for adapter in adapters:
        for what, us in adapter:
            print(f"{what:<44}{us:>8.2f} us")


# -- the provider, in the parent's process or one of its own


PACED: dict[str, type[Paced]] = {"openai": PacedOpenAI, "gemini": PacedGemini, "elevenlabs": PacedElevenLabs}


async def _provide(line: Connection, certificate: str, paced: type[Paced]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await ws_create_server(lambda request: _listener(request, paced), "127.0.0.1", 0, ssl=context, backlog=512)
    line.send(server.sockets[0].getsockname()[1])
    began, deltas = time.monotonic(), 0
    while not line.poll():
        for number, one in enumerate(tuple(Paced.talking)):  # not all in one turn, as they would not come
            one.say_more()
            if number % 10 == 9:
                await asyncio.sleep(0)
        deltas += 1
        await asyncio.sleep(max(began + deltas * DELTA_MS / 1000 - time.monotonic(), 0))
    server.close()


def _listener(request: WSUpgradeRequest, paced: type[Paced]) -> WSListener:
    return paced()


# -- the gateway


async def serve(line: Connection, agent: Agent) -> None:
    """Serve calls with that agent until the pipe says it is over."""
    settings = Settings.model_validate(
        {
            "correlation": {"control": "none"},
            "media": {"listen": "127.0.0.1:0", "token": "off", "dialect": "audio_stream-binary"},
            "metrics": {"listen": ""},
        }
    )
    async with Gateway(settings, agent=agent) as gateway:
        gc.collect()
        gc.freeze()  # as `dueto serve` does: a later collection of all that is here would stop every call
        line.send(gateway.media_port)
        while not line.poll():  # noqa: ASYNC110 - a pipe from another process
            await asyncio.sleep(0.05)


def _connect(provider: str, port: int, trust: ssl.SSLContext) -> Connect:
    base_url = f"https://localhost:{port}"
    if provider == "gemini":
        return gemini_live(api_key="k", base_url=base_url, ssl=trust)
    if provider == "elevenlabs":
        return elevenlabs(agent_id="a", base_url=base_url, ssl=trust)
    return openai_realtime(url=f"{base_url}/v1", api_key="k", ssl=trust)


def _gateway_process(line: Connection, provider: str, port: int, authority: str) -> None:
    pin(GATEWAY_CORE)
    trust = ssl.create_default_context(cafile=authority)
    connect = _connect(provider, port, trust)
    with open(os.devnull, "w") as nobody, asyncio.Runner(loop_factory=new_event_loop) as runner:
        configure_logs("json", nobody)  # made as in service, and not written down
        runner.run(serve(line, ProviderAgent(connect)))


def _provider_process(line: Connection, certificate: str, provider: str, rate_hz: int) -> None:
    pin(OTHERS_CORE)
    PacedElevenLabs.format = "ulaw_8000" if rate_hz == 8000 else "pcm_16000"
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_provide(line, certificate, PACED[provider]))


def pin(core: int) -> None:
    """Stay on one core, if there is one of that number."""
    if core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


# -- the callers


class Telephone(WSListener):
    """A caller's stream: when each frame came."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[float] = []
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self.came.append(time.monotonic())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()


async def call_all(media_port: int, calls: int, seconds: float, rate_hz: int, gateway_pid: int) -> dict[str, float]:
    """Place the calls, talk, listen; return what reached them, and what the gateway spent."""
    frame = tone(rate_hz, FRAME_S, 300.0)
    telephones: list[Telephone] = []
    for _ in range(calls):
        url = f"ws://127.0.0.1:{media_port}/stream/bench/{uuid.uuid4()}/1001?rate={rate_hz}&mix=mono"
        _, listener = await ws_connect(lambda request, response: Telephone(), url)
        telephones.append(listener)  # type: ignore[arg-type]
    slots = [telephones[at::20] for at in range(20)]
    began, at, late_s = time.monotonic(), 0, 0.0
    measured_from = until = began + PATIENCE_S
    all_talk, cpu_s = False, 0.0
    while (now := time.monotonic()) < until:
        if not all_talk and all(telephone.came for telephone in telephones):
            all_talk, measured_from = True, now + WARM_S
            until = measured_from + seconds
        if not cpu_s and now >= measured_from:
            cpu_s, late_s = _cpu_s(gateway_pid), 0.0
        due = began + at * FRAME_S / 20
        late_s = max(late_s, now - due)
        while due <= now:
            for telephone in slots[at % 20]:
                if telephone.transport is not None:
                    telephone.transport.send(WSMsgType.BINARY, frame)
            at += 1
            due = began + at * FRAME_S / 20
        await asyncio.sleep(max(due - time.monotonic(), 0))
    if not all_talk:
        silent = sum(not telephone.came for telephone in telephones)
        raise RuntimeError(f"{silent} of {calls} calls heard nothing within {PATIENCE_S:.0f} s")
    cpu_s = _cpu_s(gateway_pid) - cpu_s
    gaps: list[float] = []
    frames = 0
    for telephone in telephones:
        came = [moment for moment in telephone.came if measured_from <= moment <= until]
        frames += len(came)
        gaps += [(later - earlier) * 1000 for earlier, later in itertools.pairwise(came)]
        if telephone.transport is not None:
            telephone.transport.disconnect(graceful=False)
    gaps.sort()
    expected = calls * seconds / FRAME_S
    return {
        "p50": gaps[len(gaps) // 2],
        "p99": gaps[int(len(gaps) * 0.99)],
        "max": gaps[-1],
        "missing_percent": max(0.0, (1 - frames / expected) * 100),
        "cpu_ms_per_call_s": cpu_s * 1000 / (calls * seconds),
        "late_ms": late_s * 1000,
    }


def _cpu_s(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def bridged(provider: str, calls: int, seconds: float, rate_hz: int) -> dict[str, float]:
    """Run the whole of it once."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        certificate, authority = Path(folder, "server.pem"), Path(folder, "ca.pem")
        ca = trustme.CA()
        ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        ca.cert_pem.write_to_path(str(authority))
        line, theirs = context.Pipe()
        told = (theirs, str(certificate), provider, rate_hz)
        there = context.Process(target=_provider_process, args=told, daemon=True)
        there.start()
        port = line.recv()
        gateway_line, gateway_theirs = context.Pipe()
        gateway = context.Process(
            target=_gateway_process, args=(gateway_theirs, provider, port, str(authority)), daemon=True
        )
        gateway.start()
        media_port = gateway_line.recv()
        pin(OTHERS_CORE)
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                return runner.run(call_all(media_port, calls, seconds, rate_hz, gateway.pid or 0))
        finally:
            for other, process in ((gateway_line, gateway), (line, there)):
                other.send(None)
                process.join(10)
                if process.is_alive():
                    process.kill()
                    process.join()


def main() -> int:
    """Run both parts; exit code 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="openai", choices=tuple(PACED))
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=8000, choices=(8000, 16000))
    options = parser.parse_args()
    asyncio.run(alone())
    found = bridged(options.provider, options.calls, options.seconds, options.rate)
    print(f"{options.provider}, {options.calls} calls at {options.rate} Hz over TLS, at the caller:")
    print(f"  gaps p50 {found['p50']:.1f}, p99 {found['p99']:.1f}, max {found['max']:.1f} ms")
    print(
        f"  missing {found['missing_percent']:.2f} %, gateway {found['cpu_ms_per_call_s']:.2f} ms CPU per call-second"
    )
    print(f"  the load itself was late by at most {found['late_ms']:.1f} ms")
    met = found["p99"] < MOST_GAP_MS and found["missing_percent"] < 1.0
    print(f"bar, p99 under {MOST_GAP_MS:.0f} ms and nothing missing: {'met' if met else 'MISSED'}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
