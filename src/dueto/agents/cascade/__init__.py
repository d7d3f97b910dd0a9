"""A voice of three parts: speech to text, a model that thinks in text, text to speech. Each can be replaced."""

from dueto.agents.cascade.kind import KIND, cascade
from dueto.agents.cascade.ports import Message, Speaker, Thinker, Transcriber, Want

__all__ = ["KIND", "Message", "Speaker", "Thinker", "Transcriber", "Want", "cascade"]
