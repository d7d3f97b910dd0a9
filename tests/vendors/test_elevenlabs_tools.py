"""The tools that are printed for ElevenLabs are what the vendor's own types take: nothing is left over."""

from datetime import datetime
from typing import Any

import pytest

from dueto.agents.call_tools import NAMES
from dueto.agents.own_tools import load_tools
from dueto.agents.tools import Places
from dueto.app.overview import elevenlabs_tool
from dueto.call import Destination

types = pytest.importorskip("elevenlabs.types", reason="the extra `vendors` is not installed")


def left_over(value: Any) -> list[str]:
    """The keys, however deep, that the vendor's types don't know."""
    found: list[str] = []
    if hasattr(value, "model_extra"):
        found += list(value.model_extra or {})
        for name in type(value).model_fields:
            found += left_over(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            found += left_over(inner)
    return found


async def order(numbers: list[int], gift: bool = False) -> str:
    """Order something."""
    return "done"


def test_every_tool_is_a_client_tool_of_the_vendor() -> None:
    async def keep(message: object) -> None: ...

    box = load_tools([*NAMES, order], keep=keep)
    for spec in box.describe(Places({"sales": Destination("sales", "user/1")}, datetime(2026, 1, 5))):
        tool = elevenlabs_tool(spec, box.deadline_s(spec.name))
        assert tool.pop("type") == "client"
        parsed = types.ClientToolConfigInput.model_validate(tool)
        assert left_over(parsed) == [], spec.name
        assert isinstance(parsed.parameters, types.ObjectJsonSchemaPropertyInput)
