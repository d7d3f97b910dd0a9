"""What a dialplan line means: where a transfer leads, and what `${variable}` stands for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dueto.sim.channel import Channel
    from dueto.sim.core import Action


def transfer(channel: "Channel", words: list[str]) -> None:
    """Transfer to `EXTENSION [DIALPLAN [CONTEXT]]`, or to `'app:arg,app:arg' inline`."""
    text = " ".join(words)
    if words and words[-1].lower() == "inline":
        inline = text[: -len("inline")].strip().strip("'")
        channel.transfer(parse_inline(inline), inline, inline=True)
    else:
        extension = words[0] if words else ""
        channel.transfer(list(channel.core.extensions.get(extension, ())), extension)


def parse_inline(text: str) -> "list[Action]":
    """Read an inline dialplan: `app:arg` with commas between, or `m:X:` and X between."""
    mark = ","
    if text.startswith("m:") and text[3:4] == ":":
        mark, text = text[2], text[4:]
    pairs = (part.partition(":") for part in text.split(mark))
    return [(name.strip(), argument) for name, _, argument in pairs if name.strip()]


def expand(channel: "Channel", text: str) -> str:
    """Fill in `${variable}`, as the dialplan does."""
    if "${" not in text:
        return text
    known = {"caller_id_number": channel.number, "caller_id_name": channel.caller_name, "uuid": channel.unique_id}
    for name, value in {**known, **channel.variables}.items():
        text = text.replace("${" + name + "}", value)
    return text
