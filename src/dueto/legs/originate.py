"""The argument of `originate`: checked parts in, one line out. Nothing that came from outside can add to it."""

import re
from collections.abc import Mapping

from dueto.errors import LocalProtocolError
from dueto.wire.esl import checked

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ADDRESS = re.compile(r"[A-Za-z0-9.|:\[\]-]{1,512}")


def originate_argument(dial: str, unique_id: str, address: str, variables: Mapping[str, str] | None = None) -> str:
    """Return the argument that has whoever answers `dial` connected with us, at `address`.

    `address` is `HOST:PORT`, or several with `|` between them. Raises: as `dialled`, and where `address` is no such.
    """
    if not _ADDRESS.fullmatch(address):
        raise LocalProtocolError(f"{address!r} is no HOST:PORT")
    return f"{dialled(dial, unique_id, variables or {})} &socket('{address} async full')"


def dialled(dial: str, unique_id: str, variables: Mapping[str, str]) -> str:
    """Return `{origination_uuid=ID,NAME=VALUE,...}DIAL`. An empty value leaves its variable out.

    Raises: LocalProtocolError: a part holds what would end it, or pull in what is not its own.
    """
    if not _ID.fullmatch(unique_id):
        raise LocalProtocolError(f"{unique_id!r} can't be a Unique-ID")
    pairs = [f"origination_uuid={unique_id}"]
    pairs += [f"{_name(name)}={_value(name, value)}" for name, value in variables.items() if value]
    return f"{{{','.join(pairs)}}}{checked_dial(dial)}"


def checked_dial(dial: str) -> str:
    """Return `dial` if it is one word of an api line that pulls in no variables, else raise LocalProtocolError."""
    checked(dial, "dial string")
    if not dial or not dial.isprintable() or re.search(r"[$`\"\\\s&]", re.sub(r"'[^'$`\"\\]*'", "", dial)):
        raise LocalProtocolError(f"{dial!r} can't be dialled: no spaces outside single quotes, none of $ ` \" \\ &")
    if dial.count("'") % 2:
        raise LocalProtocolError(f"{dial!r} can't be dialled: a single quote is left open")
    return dial


def without_breakers(text: str) -> str:
    """Return a caller's own text (a name, a number) with what a variable's value can't hold taken out."""
    return re.sub(r"[^\w .:@/+*#()!?=~;-]", "", text)[:128].strip()


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LocalProtocolError(f"{name!r} can't be the name of a channel variable")
    return name


def _value(name: str, value: str) -> str:
    if not value.isprintable() or re.search(r"[,{}\[\]<>|&$`'\"\\^]", value):
        raise LocalProtocolError(f"the value of {name} holds what can't be part of a dial string")
    return f"'{value}'" if " " in value else value
