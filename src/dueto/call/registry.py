"""What a call knows of the desk."""

from typing import TYPE_CHECKING, Protocol

from dueto.call.house import House

if TYPE_CHECKING:
    from dueto.call.session import Session


class Registry(Protocol):
    """Where a call is known, and finds the channels placed for it: the desk."""

    def over(self, session: "Session") -> None:
        """Forget a call that has let go of everything."""
        ...

    def find(self, unique_id: str) -> "Session | None":
        """The session of a channel, if there is one."""
        ...

    def expect(self, unique_id: str, house: House) -> None:
        """A channel with this Unique-ID is being placed for us."""
        ...

    def cancel(self, unique_id: str) -> None:
        """Nobody wants that channel any more."""
        ...
