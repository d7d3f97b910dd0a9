"""From the keys that every voice provider's agent has to the agent itself."""

from dueto.agents.own_tools import load_tools
from dueto.agents.ports import Connect
from dueto.agents.profiles import LoadedAgent, Surroundings, VoiceProfile
from dueto.agents.provider import Manners, ProviderAgent


def voice_agent(connect: Connect, profile: VoiceProfile, around: Surroundings) -> LoadedAgent:
    """Return the agent that `connect` speaks for, with the tools and the manners of `profile`.

    Raises: SettingsError: a tool that there is not.
    """
    tools = load_tools(profile.tools, agent=around.name, keep=around.keep_message, deadline_s=profile.tool_s)
    manners = Manners(
        barge_in=profile.barge_in,
        min_speech_ms=profile.min_speech_ms,
        protected_ms=profile.protected_ms,
        protects_greeting=profile.protects_greeting,
        digits_s=profile.digits_s,
    )
    return LoadedAgent(around.name, ProviderAgent(connect, tools=tools, manners=manners))
