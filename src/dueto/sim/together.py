"""Channels that hear each other: two connected by `uuid_bridge`, or several in a conference."""

from typing import TYPE_CHECKING

from dueto.audio.pcm import mix

if TYPE_CHECKING:
    from dueto.sim.channel import Channel


class Room:
    """A conference: who is in it, and what each of them said in this frame."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: list[Channel] = []

    def heard_by(self, listener: "Channel") -> bytes | None:
        """Return what the others say; None: nothing."""
        said = [member.saying for member in self.members if member is not listener and member.saying is not None]
        return mix(*said) if said else None


def enter(channel: "Channel", name: str) -> Room:
    """Join the conference `name`; it is made by its first member."""
    room = channel.core.rooms.setdefault(name, Room(name))
    if channel not in room.members:
        room.members.append(channel)
    return room


def leave(channel: "Channel", room: Room) -> None:
    """Leave it; the last one ends it."""
    if channel in room.members:
        room.members.remove(channel)
    if not room.members:
        channel.core.rooms.pop(room.name, None)


async def conference(channel: "Channel", argument: str) -> bool:
    """The `conference` application: until hung up, or transferred."""
    channel.answer()
    room = channel.room = enter(channel, argument.partition("@")[0])
    try:
        return await channel.attend(lambda: False, breakable=False)
    finally:
        channel.room = None
        leave(channel, room)


def join(channel: "Channel", other: "Channel") -> None:
    """`uuid_bridge`: both leave what they run, and talk to each other."""
    for one, peer in ((channel, other), (other, channel)):
        one.next_actions = [("uuid_bridge", peer.unique_id)]
        one.state = "CS_HIBERNATE"
        one.stir()


async def exchange(channel: "Channel", other_id: str) -> None:
    """Be connected with another channel, until one of them goes. Not an application: nothing is executed.

    What comes then is `park_after_bridge`, `hangup_after_bridge`, or the end: the channel has nothing left to do.
    """
    other = channel.core.channels.get(other_id)
    if other is None or not other.up:
        channel.hang_up("NORMAL_CLEARING")
        return
    first = channel.bridge_first = not other.bridge_first
    ids = (channel.unique_id, other_id) if first else (other_id, channel.unique_id)
    second = (("Bridge-A-Unique-ID", ids[0]), ("Bridge-B-Unique-ID", ids[1]))
    told = (
        ("Other-Type", "originatee" if first else "originator"),
        ("Other-Leg-Unique-ID", other_id),
        ("Other-Leg-Channel-Name", other.channel_name),
    )
    for name in ("signal_bond", "last_bridge_to", "bridge_uuid"):
        channel.set_variable(name, other_id)
    channel.peer, met = other, False
    channel.emit("CHANNEL_BRIDGE", second=second, other=told)

    def apart() -> bool:
        nonlocal met
        met = met or other.peer is channel
        return not other.up or (met and other.peer is not channel)

    try:
        await channel.attend(apart, breakable=False)
    finally:
        channel.peer, channel.bridge_first = None, False
        other.stir()
    cause = other.hangup_cause or channel.hangup_cause or "NORMAL_CLEARING"
    channel.set_variable("last_bridge_hangup_cause", cause)
    channel.set_variable("bridge_hangup_cause", cause)
    channel.emit("CHANNEL_UNBRIDGE", second=second, other=told)
    if not channel.staying:
        return
    if channel.variables.get("park_after_bridge") == "true":
        channel.set_running_state("CS_PARK")
        await channel.park(lambda: False)
    else:
        channel.hang_up(cause)
