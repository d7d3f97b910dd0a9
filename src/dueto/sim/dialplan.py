"""What a dialplan line means: where a transfer leads, and what `${variable}` stands for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dueto.sim.channel import Channel
    from dueto.sim.core import Action


def actions_for(channel: "Channel", words: list[str]) -> "list[Action]":
    """Return what `EXTENSION [DIALPLAN [CONTEXT]]`, or `'app:arg' inline`, would run."""
    text = " ".join(words)
    if words and words[-1].lower() == "inline":
        inline = text[: -len("inline")].strip().strip("'")
        if inline.startswith("m:"):  # m:X: says which character stands between two actions
            inline, mark = inline[4:], inline[2]
        else:
            mark = ","
        pairs = (part.partition(":") for part in inline.split(mark))
        return [(name.strip(), argument) for name, _, argument in pairs if name.strip()]
    extension = words[0] if words else ""
    channel.destination = extension or channel.destination
    channel.profile_changed()
    return list(channel.core.extensions.get(extension, ()))


def expand(channel: "Channel", text: str) -> str:
    """Fill in `${variable}`, as the dialplan does."""
    if "${" not in text:
        return text
    known = {"caller_id_number": channel.number, "caller_id_name": channel.caller_name, "uuid": channel.unique_id}
    for name, value in (known | channel.variables).items():
        text = text.replace("${" + name + "}", value)
    return text
