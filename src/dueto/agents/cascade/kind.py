"""`use = "cascade"`: which engine is each of the three parts, and what is shared between calls."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from dueto.agents.cascade.offline import DictationWorker, OfflineSpeaker, OfflineTranscriber, Rules
from dueto.agents.cascade.ports import Speaker, Thinker, Transcriber
from dueto.agents.cascade.provider import Cascade
from dueto.agents.cascade.utterances import UtteranceCutter
from dueto.agents.ports import Connect, Opening
from dueto.agents.profiles import Kind, LoadedAgent, Surroundings, VoiceProfile, Whole
from dueto.agents.speech import DetectorPool, EndpointRules, RecogniserPool, SpeechMouth, installed
from dueto.agents.speech.endpoint import WINDOW_MS
from dueto.errors import NotCapable, ProviderFailed, SettingsError

Engine = Literal["offline", "openai"]
OPENAI: Final = "https://api.openai.com/v1"
DEFAULT: Final = "You are on the telephone. Answer in one or two short sentences, in the caller's language."


def cascade(
    transcriber: Transcriber,
    thinker: Thinker,
    speaker: Speaker,
    detectors: DetectorPool,
    *,
    instructions: str = DEFAULT,
    greeting: str = "",
    pause_ms: int = 448,
) -> Connect:
    """Return what opens a conversation with these three, for `ProviderAgent`. `detectors` has to be started.

    `pause_ms`: the silence after which the caller has finished.
    """
    rules = replace(EndpointRules(), pause=max(pause_ms // WINDOW_MS, EndpointRules().doubt + 1))

    async def connect(opening: Opening) -> Cascade:
        try:
            hearing = UtteranceCutter(detectors, rules)
        except NotCapable as error:
            raise ProviderFailed("quota", str(error)) from None
        return Cascade(opening, hearing, transcriber, thinker, speaker, instructions=instructions, greeting=greeting)

    return connect


class CascadeProfile(VoiceProfile):
    """The keys of `use = "cascade"`."""

    stt: Engine = "offline"
    "Who turns speech into text: pocketsphinx here, or a server that speaks OpenAI's HTTP."
    llm: Engine = "offline"
    "Who thinks: a few rules here, or such a server."
    tts: Engine = "offline"
    "Who speaks: this machine's synthesiser, or such a server."
    api_key: SecretStr = SecretStr("")
    "Better in the environment: OPENAI_API_KEY. Servers of your own often want none."
    stt_url: str = OPENAI
    stt_model: str = "gpt-4o-mini-transcribe"
    stt_language: str = ""
    llm_url: str = OPENAI
    llm_model: str = "gpt-5-mini"
    temperature: Annotated[float, Field(ge=-1, le=2)] = -1.0
    "Below 0: the server's own."
    max_tokens: Annotated[Whole, Field(ge=0, le=100_000)] = 0
    tts_url: str = OPENAI
    tts_model: str = "gpt-4o-mini-tts"
    tts_voice: str = "alloy"
    tts_rate_hz: Literal[8000, 16000, 24000, 32000, 48000] = 24000
    "What that server makes of `pcm`."
    pause_ms: Annotated[Whole, Field(ge=200, le=5000)] = 448
    "The silence after which the caller has finished."
    listeners: Annotated[Whole, Field(ge=1, le=1000)] = 16
    "Calls heard at once, 9 MB each."
    recognisers: Annotated[Whole, Field(ge=1, le=64)] = 2
    "Processes of the offline engine, 120 MB each."


class Shared:
    """What all calls of one such agent share."""

    def __init__(self, profile: CascadeProfile, around: Surroundings) -> None:
        self.detectors = DetectorPool(profile.listeners)
        self._profile = profile
        self._name = around.name
        engines = ((profile.stt, profile.stt_url), (profile.llm, profile.llm_url), (profile.tts, profile.tts_url))
        needed = any(engine != "offline" and url == OPENAI for engine, url in engines)
        self._key = around.key(profile.api_key, "OPENAI_API_KEY", needed=needed)
        self._client: Any = None
        self._pool: RecogniserPool | None = None
        self._mouth: SpeechMouth | None = None

    def transcriber(self, around: Surroundings) -> Transcriber:
        """Make the first part. Raises: SettingsError."""
        profile = self._profile
        if profile.stt == "offline":
            self._pool = RecogniserPool(DictationWorker(around.destinations), size=profile.recognisers, patience_s=15.0)
            return OfflineTranscriber(self._pool)
        from dueto.agents.cascade.http import HttpTranscriber

        return HttpTranscriber(self._endpoint("stt", profile.stt_url, profile.stt_model), profile.stt_language)

    def thinker(self, around: Surroundings) -> Thinker:
        """Make the second. Raises: SettingsError."""
        profile = self._profile
        if profile.llm == "offline":
            return Rules(around.destinations)
        from dueto.agents.cascade.http import HttpThinker

        temperature = profile.temperature if profile.temperature >= 0 else None
        return HttpThinker(self._endpoint("llm", profile.llm_url, profile.llm_model), temperature, profile.max_tokens)

    def speaker(self) -> Speaker:
        """Make the third. Raises: SettingsError."""
        profile = self._profile
        if profile.tts == "offline":
            self._mouth = SpeechMouth(installed())
            return OfflineSpeaker(self._mouth)
        from dueto.agents.cascade.http import HttpSpeaker

        endpoint = self._endpoint("tts", profile.tts_url, profile.tts_model)
        return HttpSpeaker(endpoint, profile.tts_voice, rate_hz=profile.tts_rate_hz)

    async def start(self) -> None:
        """Fill the pools. Raises: SettingsError: nothing can be said on this machine. NotCapable: no recogniser."""
        if self._mouth is not None:
            try:
                await self._mouth.speak(self._profile.greeting or "Hello.", OfflineSpeaker.rate_hz)
            except NotCapable as error:
                raise SettingsError(f"[agents.{self._name}] tts: offline, but {error}") from None
        await self.detectors.start()
        if self._pool is not None:
            await self._pool.start()

    async def aclose(self) -> None:
        """Give everything back."""
        if self._pool is not None:
            await self._pool.aclose()
        if self._client is not None:
            await self._client.aclose()
        self.detectors.clear()

    def _endpoint(self, part: str, url: str, model: str) -> Any:
        try:
            from dueto.agents.cascade.http import Endpoint, new_client
        except ImportError as error:
            raise SettingsError(
                f"[agents.{self._name}] {part}: needs {error.name}: pip install 'dueto[cascade]'"
            ) from None
        host = urlsplit(url)
        if host.scheme not in ("http", "https") or not host.hostname:
            raise SettingsError(f'[agents.{self._name}] {part}_url: expected "https://HOST/v1", not "{url}"')
        if self._client is None:
            self._client = new_client()
        return Endpoint(self._client, url, model, self._key, "OpenAI" if url == OPENAI else host.hostname)


def _build(profile: CascadeProfile, around: Surroundings) -> LoadedAgent:
    from dueto.agents.voices import voice_agent

    shared = Shared(profile, around)
    connect = cascade(
        shared.transcriber(around),
        shared.thinker(around),
        shared.speaker(),
        shared.detectors,
        instructions=profile.instructions or DEFAULT,
        greeting=profile.greeting,
        pause_ms=profile.pause_ms,
    )
    agent = voice_agent(connect, profile, around)

    async def aclose() -> None:
        await asyncio.gather(agent.aclose(), shared.aclose())

    return replace(agent, mouth=shared._mouth or agent.mouth, start=shared.start, aclose=aclose)


KIND = Kind(CascadeProfile, _build)
