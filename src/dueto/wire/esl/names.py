"""Names the switch uses, once: events, and what a call subscribes to."""

MY_EVENTS = (
    "CHANNEL_ANSWER",
    "CHANNEL_APPLICATION",
    "CHANNEL_BRIDGE",
    "CHANNEL_CREATE",
    "CHANNEL_DATA",
    "CHANNEL_DESTROY",
    "CHANNEL_EXECUTE",
    "CHANNEL_EXECUTE_COMPLETE",
    "CHANNEL_HANGUP",
    "CHANNEL_HANGUP_COMPLETE",
    "CHANNEL_ORIGINATE",
    "CHANNEL_UUID",
    "CHANNEL_OUTGOING",
    "CHANNEL_PARK",
    "CHANNEL_PROGRESS",
    "CHANNEL_PROGRESS_MEDIA",
    "CHANNEL_STATE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_UNPARK",
    "DETECTED_SPEECH",
    "DTMF",
    "TALK",
    "NOTALK",
)
"What `myevents` brings (measured); the list is the switch's and fixed."

CALL_EVENTS = ("CHANNEL_HOLD", "CHANNEL_UNHOLD", "PLAYBACK_STOP", "RECORD_STOP", "BACKGROUND_JOB")
"What a call asks for besides `myevents`."

AUDIO_SUBCLASSES = (
    "mod_audio_stream::connect",
    "mod_audio_stream::disconnect",
    "mod_audio_stream::error",
    "mod_audio_stream::json",
    "mod_audio_stream::play",
    "mod_audio_fork::connect",
    "mod_audio_fork::connect_failed",
    "mod_audio_fork::disconnect",
    "mod_audio_fork::json",
    "mod_audio_fork::play_audio",
    "mod_audio_fork::kill_audio",
    "mod_audio_fork::error",
    "mod_audio_fork::buffer_overrun",
    "mod_audio_fork::transcription",
    "mod_audio_fork::transfer",
)
"The audio modules' CUSTOM events; each must be named, `CUSTOM` alone brings none."
