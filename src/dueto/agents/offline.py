"""The kinds of agents that need no provider: `receptionist` and `echo`."""

from typing import Annotated

from pydantic import Field

from dueto.agents.echo import echo
from dueto.agents.profiles import Kind, LoadedAgent, Profile, Seconds, Surroundings, Whole
from dueto.errors import SettingsError


class ReceptionistProfile(Profile):
    """The keys of `use = "receptionist"`; what each is for: `Receptionist`."""

    greeting: str = "Hello, this is Dueto."
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.6
    objection_s: Seconds = 1.2
    patience_s: Annotated[Seconds, Field(ge=1)] = 8.0
    recognisers: Annotated[Whole, Field(ge=1, le=64)] = 2
    listeners: Annotated[Whole, Field(ge=1, le=1000)] = 16


def _receptionist(profile: ReceptionistProfile, around: Surroundings) -> LoadedAgent:
    try:
        from dueto.agents.receptionist import Receptionist
    except ImportError as error:
        missing = error.name
        raise SettingsError(f"the receptionist needs {missing}: pip install 'dueto[receptionist]'") from None
    given = profile.model_dump(exclude_unset=True, exclude=set(Profile.model_fields))
    receptionist = Receptionist(around.destinations, **given)
    return LoadedAgent(around.name, receptionist, receptionist.mouth, receptionist.start, receptionist.aclose)


RECEPTIONIST = Kind(ReceptionistProfile, _receptionist)
ECHO = Kind(Profile, lambda profile, around: LoadedAgent(around.name, echo))
