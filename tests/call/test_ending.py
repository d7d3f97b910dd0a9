"""What is known of the end of a call: the first proof names the witness, and a cause once known stays."""

import pytest

from dueto.call.ending import Ending


@pytest.mark.parametrize("later", [None, "USER_BUSY"])
def test_the_first_cause_and_the_first_witness_stay(later: str | None) -> None:
    ending = Ending()
    ending.proved("NORMAL_CLEARING", "CHANNEL_HANGUP")
    ending.proved(later, "linger")
    assert (ending.cause, ending.witness) == ("NORMAL_CLEARING", "CHANNEL_HANGUP")


def test_a_later_proof_adds_the_cause_that_the_first_had_not() -> None:
    ending = Ending()
    ending.proved(None, "linger")
    ending.proved("USER_BUSY", "CHANNEL_HANGUP_COMPLETE")
    assert (ending.cause, ending.witness) == ("USER_BUSY", "linger")
