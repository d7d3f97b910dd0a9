"""What the switch tells of all its channels at once."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dueto.sim.core import Core


def show_channels(core: "Core") -> bytes:
    """Return the output of `show channels as json`."""
    rows = [
        {
            "uuid": channel.unique_id,
            "direction": "outbound" if channel.originated else "inbound",
            "created_epoch": str(int(channel.started_epoch)),
            "name": channel.channel_name,
            "state": channel.running_state,
            "cid_name": channel.caller_name,
            "cid_num": channel.number,
            "dest": channel.destination,
            "application": channel.variables.get("current_application", ""),
            "application_data": channel.variables.get("current_application_data", ""),
            "dialplan": "XML",
            "context": "default",
            "presence_id": f"{channel.destination if channel.originated else channel.number}@127.0.0.1",
            "callstate": channel.call_state,
        }
        for channel in core.channels.values()
        if channel.up
    ]
    return json.dumps({"row_count": len(rows), **({"rows": rows} if rows else {})}, separators=(",", ":")).encode()
