"""dueto: a dual-mode voice-AI gateway for FreeSWITCH."""

__version__ = "0.1.0"
