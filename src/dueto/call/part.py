"""A part of a session: it acts for it, and does not keep it alive."""

from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from dueto.call.session import Session


class Part:
    """Knows its session weakly. With a strong reference both ways a call that is over would stay, with all its memory,
    until the garbage collector comes by; and that stops every other call for milliseconds.
    """

    __slots__ = ("_of",)

    def __init__(self, session: "Session") -> None:
        self._of = ref(session)

    @property
    def _session(self) -> "Session":
        session = self._of()
        assert session is not None, "only a session that lives has its parts act"
        return session
