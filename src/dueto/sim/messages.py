"""What `sendmsg` puts in a channel's queue."""

from collections.abc import Mapping
from dataclasses import dataclass

from dueto.wire.esl.switch_end import CommandBlock

MAX_WAITING = 256
"The queue's length; one more costs the sender its socket."


@dataclass(frozen=True, slots=True)
class Message:
    """One sendmsg that waits for its turn."""

    command: str
    "`execute`, `hangup` or `unicast`."
    application: str = ""
    argument: str = ""
    uuid: str = ""
    loops: int = 1
    lock: bool = False
    "`event-lock`: nothing else is taken from the queue while it runs."
    cause: str = "NORMAL_CLEARING"
    ends: tuple[tuple[str, int], tuple[str, int]] = (("127.0.0.1", 8025), ("127.0.0.1", 8026))
    "Of a `unicast`: the switch's address and port, and the gateway's. What is missing reads so."

    @classmethod
    def from_command(cls, block: CommandBlock) -> "Message | None":
        """Read a sendmsg; None: a call-command that does nothing here (the switch says +OK to it all the same)."""
        headers = block.headers
        command = headers.get("call-command", "")
        lock = headers.get("event-lock", "").lower() in ("true", "yes", "1", "on")
        if command == "hangup":
            return cls(command, cause=headers.get("hangup-cause", "NORMAL_CLEARING").upper(), lock=lock)
        if command == "unicast":
            return cls(command, lock=lock, ends=(_end(headers, "local", 8025), _end(headers, "remote", 8026)))
        if command != "execute" or not headers.get("execute-app-name"):
            return None
        argument = headers.get("execute-app-arg", "")
        if not argument and headers.get("content-type", "").lower() == "text/plain":
            argument = block.body.decode("utf-8", "replace").rstrip("\r\n\0")
        loops = headers.get("loops", "1")
        return cls(
            command,
            headers["execute-app-name"],
            argument,
            headers.get("event-uuid", ""),
            int(loops) if loops.lstrip("-").isdigit() else 1,
            lock,
        )


def _end(headers: Mapping[str, str], which: str, default_port: int) -> tuple[str, int]:
    port = headers.get(f"{which}-port", "")
    return headers.get(f"{which}-ip") or "127.0.0.1", int(port) if port.isdigit() else default_port
