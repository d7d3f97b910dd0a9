"""A certification authority of the tests: `wss://localhost` with a certificate that only they trust."""

import functools
import ssl

import trustme


@functools.lru_cache(maxsize=1)
def _authority() -> trustme.CA:
    return trustme.CA()


@functools.lru_cache(maxsize=1)
def server_context() -> ssl.SSLContext:
    """For a server on loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@functools.lru_cache(maxsize=1)
def client_context() -> ssl.SSLContext:
    """For a client that trusts it."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context
