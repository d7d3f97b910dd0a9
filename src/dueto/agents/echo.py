"""The smallest agent there is: the caller hears himself. For trying a line, and for measuring one."""

from dueto.call import Call
from dueto.call.events import HungUp


async def echo(call: Call) -> None:
    """Send every frame back in the same turn of the loop, until the caller hangs up."""
    call.audio_to(call.write_now)
    async for event in call.events():
        if isinstance(event, HungUp):
            return
