"""Bots that were written for Twilio's Media Streams answer calls of your own switch, unchanged."""

from dueto.agents.media_streams.account import Account, Exchange, NumberPolicy, call_sid
from dueto.agents.media_streams.kind import KIND, MediaStreamsAgent, MediaStreamsProfile

__all__ = ["KIND", "Account", "Exchange", "MediaStreamsAgent", "MediaStreamsProfile", "NumberPolicy", "call_sid"]
