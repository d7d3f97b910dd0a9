"""What both bare bridges know of OpenAI Realtime: addresses, and the session's set-up (standard library only)."""

import ssl
import sys

RATE_HZ = 24000
SETUP = (
    '{"type":"session.update","session":{"type":"realtime","output_modalities":["audio"],"audio":'
    '{"input":{"format":{"type":"audio/pcm","rate":24000}},"output":{"format":{"type":"audio/pcm","rate":24000}}}}}'
)
FRAME_BYTES = 640
LEAD_FRAMES = 5
"How much waits before the first frame goes down: what a bursty source needs."


def provider() -> tuple[int, str]:
    """Return the port of the provider, and the file of the authority that vouches for it, from the command line."""
    given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    return int(given["provider"]), given["ca"]


def trusting(ca: str) -> ssl.SSLContext:
    """Return a context that trusts the authority."""
    return ssl.create_default_context(cafile=ca)
