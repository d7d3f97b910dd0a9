"""What `sendmsg` puts in a channel's queue."""

from dataclasses import dataclass

from dueto.wire.esl.switch_end import CommandBlock

MAX_WAITING = 256
"The queue's length; one more costs the sender its socket."


@dataclass(frozen=True, slots=True)
class Message:
    """One sendmsg that waits for its turn."""

    command: str
    "`execute` or `hangup`."
    application: str = ""
    argument: str = ""
    uuid: str = ""
    loops: int = 1
    lock: bool = False
    "`event-lock`: nothing else is taken from the queue while it runs."
    cause: str = "NORMAL_CLEARING"

    @classmethod
    def from_command(cls, block: CommandBlock) -> "Message | None":
        """Read a sendmsg; None: a call-command that does nothing here (the switch says +OK to it all the same)."""
        headers = block.headers
        command = headers.get("call-command", "")
        lock = headers.get("event-lock", "").lower() in ("true", "yes", "1", "on")
        if command == "hangup":
            return cls(command, cause=headers.get("hangup-cause", "NORMAL_CLEARING").upper(), lock=lock)
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
