"""The control engines, each as a way to make its server: the one place that knows them all."""

import importlib
from collections.abc import Callable
from typing import Protocol

import pytest

from dueto.legs.esl_outbound import ControlServer, OutboundOptions
from dueto.legs.ports import ControlDoor


class Server(Protocol):
    """What every engine's server can do."""

    async def start(self, host: str, port: int) -> int: ...
    async def stop_listening(self) -> None: ...
    async def aclose(self) -> None: ...


def greenswitch(door: ControlDoor, options: OutboundOptions) -> Server:
    """The optional engine; where its libraries are not installed the test is skipped and says so."""
    try:
        module = importlib.import_module("dueto.legs.greenswitch_engine")
    except ImportError as error:
        pytest.skip(f"the greenswitch engine can't be imported: {error}")
    server: Server = module.GreenswitchServer(door, options)
    return server


ENGINES: dict[str, Callable[[ControlDoor, OutboundOptions], Server]] = {
    "native": ControlServer,
    "greenswitch": greenswitch,
}
