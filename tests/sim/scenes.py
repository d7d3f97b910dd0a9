"""Short scenes on virtual time: a simulated switch, a recorder as its gateway, and what happens between them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from dueto.sim import Caller, MemoryDoors, MemoryNetwork, PipeFaults, SimCall, Switch, run_virtual
from dueto.wire.esl import Message

from .twins import Recorder, Server

OPENING = b"connect\n\nlinger 5\n\nmyevents\n\n"
URL = "ws://127.0.0.1:8085/stream/{secretary}/{uuid}/{caller}?rate=16000&mix=mono"


@dataclass
class Scene:
    """Both sides of the simulated calls."""

    switch: Switch
    server: Server
    gateways: list[Recorder] = field(default_factory=list)

    @property
    def gateway(self) -> Recorder:
        """The first control connection."""
        return self.gateways[0]

    async def call(self, caller: Caller | None = None, **more: Any) -> SimCall:
        """Place a call and wait until its control leg is there and parked."""
        call = await self.switch.place(caller, **more)
        await call.channel.control_ready.wait()
        await self.gateways[-1].event("CHANNEL_PARK")
        return call


def play(
    act: Callable[[Scene], Awaitable[None]],
    *,
    opening: bytes = OPENING,
    server: Server | None = None,
    on_message: Callable[[Recorder, Message], None] | None = None,
    pipe_faults: PipeFaults | None = None,
    network: MemoryNetwork | None = None,
    refuse: Callable[[str], bool] = lambda host: False,
    **switch: Any,
) -> Scene:
    """Run `act`; whatever the switch is told further goes to its constructor."""

    audio = server or Server()

    async def main() -> Scene:
        def accept() -> Recorder:
            scene.gateways.append(Recorder(opening, on_message))
            return scene.gateways[-1]

        class Doors(MemoryDoors):
            async def control(self, host: str, port: int, protocol: Any) -> Any:
                if refuse(host):
                    raise ConnectionRefusedError(111, "Connection refused")
                return await super().control(host, port, protocol)

        scene = Scene(
            Switch(
                **{
                    "media_url": URL,
                    "doors": Doors(accept, audio, faults=pipe_faults, network=network),
                    "start": "gateway",
                    **switch,
                }
            ),
            audio,
        )
        async with scene.switch:
            await act(scene)
        return scene

    return run_virtual(main())
