"""The usual bridge to OpenAI Realtime: `websockets` on both sides, json, soxr, a task that paces each call."""

import asyncio
import base64
import json
import logging
import time
from collections import deque

import numpy
import soxr
import uvloop
from _line import Notes, answer_until_the_end, say_ports
from _realtime import FRAME_BYTES, LEAD_FRAMES, RATE_HZ, SETUP, provider, trusting
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

logging.disable(logging.CRITICAL)
PORT, CA = provider()
CONTEXT = trusting(CA)


async def bridge(caller: ServerConnection) -> None:
    """One call."""
    url = f"wss://127.0.0.1:{PORT}/v1/realtime?model=m"
    waiting: deque[bytes] = deque()
    try:
        async with connect(url, ssl=CONTEXT, compression=None) as model, asyncio.TaskGroup() as tasks:
            await model.send(SETUP)
            helpers = [tasks.create_task(hear(model, waiting)), tasks.create_task(pace(caller, waiting))]
            up = soxr.ResampleStream(16000, RATE_HZ, 1, dtype="int16")
            async for message in caller:
                audio = up.resample_chunk(numpy.frombuffer(message, numpy.int16)).tobytes()
                event = {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}
                await model.send(json.dumps(event))
            for helper in helpers:
                helper.cancel()
    except* ConnectionClosed:
        pass


async def hear(model: "object", waiting: deque[bytes]) -> None:
    """Cut the model's voice into frames."""
    down = soxr.ResampleStream(RATE_HZ, 16000, 1, dtype="int16")
    rest = b""
    async for message in model:
        event = json.loads(message)
        if event["type"] == "response.output_audio.delta":
            audio = numpy.frombuffer(base64.b64decode(event["delta"]), numpy.int16)
            rest += down.resample_chunk(audio).tobytes()
            while len(rest) >= FRAME_BYTES:
                waiting.append(rest[:FRAME_BYTES])
                rest = rest[FRAME_BYTES:]


async def pace(caller: ServerConnection, waiting: deque[bytes]) -> None:
    """Send a frame every 20 ms."""
    while len(waiting) < LEAD_FRAMES:  # noqa: ASYNC110 - as it is usually done
        await asyncio.sleep(0.02)
    due = time.monotonic()
    while True:
        if waiting:
            await caller.send(waiting.popleft())
        due += 0.02
        await asyncio.sleep(max(due - time.monotonic(), 0))


async def main() -> None:
    """Serve until whoever measures is gone."""
    async with serve(bridge, "127.0.0.1", 0, compression=None, backlog=1024) as server:
        say_ports(media=server.sockets[0].getsockname()[1])
        await answer_until_the_end(Notes())


uvloop.run(main())
