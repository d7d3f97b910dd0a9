"""What a receptionist is told before its first call."""

import pytest

from dueto.agents.receptionist import Receptionist
from dueto.agents.speech import SpeechMouth
from dueto.call.ports import Destination
from dueto.errors import SettingsError


def test_one_key_for_two_destinations_is_refused() -> None:
    two = [Destination("sales", "user/1", digit="1"), Destination("support", "user/2", digit="1")]
    with pytest.raises(SettingsError, match=r'"1" is also the key of \[destinations.sales\]'):
        Receptionist(two)


@pytest.mark.parametrize("digit", ["12", "a", "A"])
def test_what_is_no_key_is_refused(digit: str) -> None:
    with pytest.raises(SettingsError, match="expected one key"):
        Receptionist([Destination("sales", "user/1", digit=digit)])


async def test_what_cannot_be_said_on_this_machine_is_told_at_start() -> None:
    one = Receptionist([Destination("laundry", "user/1")], recognisers=1, mouth=SpeechMouth(None))
    with pytest.raises(SettingsError, match=r'no recording of "Laundry, one moment\.".*install flite'):
        await one.start()
    await one.aclose()
