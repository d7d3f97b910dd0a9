"""One small HTTP request: what a provider wants before its WebSocket. No pool, no redirect, no body of ours."""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from dueto.agents.link import http_fault, plain, trusted
from dueto.errors import ProviderFailed

GET_S: Final = 5.0
MAX_HEAD_BYTES: Final = 16384
MAX_BODY_BYTES: Final = 65536


async def http_get(
    provider: str,
    url: str,
    headers: Mapping[str, str],
    *,
    secrets: Iterable[str] = (),
    ssl_context: ssl.SSLContext | None = None,
    deadline_s: float = GET_S,
) -> bytes:
    """Return the body of a 200. `secrets` never stand in a text, nor does the URL's query. Safe to cancel.

    Raises: ProviderFailed: any other answer, or none within `deadline_s`.
    """
    secrets = tuple(secrets)
    try:
        async with asyncio.timeout(deadline_s):
            status, body = await _exchange(url, headers, ssl_context)
    except TimeoutError:
        raise ProviderFailed("timeout", f"{provider} did not answer within {deadline_s:g} s") from None
    except ssl.SSLError as error:
        raise ProviderFailed("refused", f"{provider}: no TLS with it ({plain(error.reason)})") from None
    except OSError as error:
        said = plain(error.strerror or type(error).__name__, secrets)
        raise ProviderFailed("refused", f"{provider} can't be reached: {said}") from None
    except (ValueError, EOFError):
        raise ProviderFailed("protocol", f"{provider} did not answer as an HTTP server does") from None
    if status != 200:
        raise http_fault(provider, status, body, secrets)
    return body


async def _exchange(url: str, headers: Mapping[str, str], ssl_context: ssl.SSLContext | None) -> tuple[int, bytes]:
    """Raises: OSError, EOFError; ValueError: what came is no HTTP, or too much."""
    where = urlsplit(url)
    host = where.hostname or ""
    secure = where.scheme == "https"
    target = (where.path or "/") + (f"?{where.query}" if where.query else "")
    head = {"Host": where.netloc, "Accept": "application/json", "Connection": "close", **headers}
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    if " " in target or not all(line.isascii() and line.isprintable() for line in lines):
        raise ValueError("a header holds what no header may hold")
    reader, writer = await asyncio.open_connection(
        host,
        where.port or (443 if secure else 80),
        ssl=(ssl_context or trusted()) if secure else None,
        limit=MAX_HEAD_BYTES,
    )
    try:
        writer.write("\r\n".join((*lines, "", "")).encode())
        try:
            first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.LimitOverrunError:
            raise ValueError("a head too long") from None
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
            raise ValueError("no status line")
        said = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        return int(status[:3]), await _body(reader, said)
    finally:
        writer.transport.abort()  # it has all been read; nobody waits for TLS to say goodbye


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            if size < 0 or len(body) + size > MAX_BODY_BYTES:
                raise ValueError("a body too long")
            body += (await reader.readexactly(size + 2))[:-2]
        return body
    if "content-length" in headers:
        length = int(headers["content-length"])
        if not 0 <= length <= MAX_BODY_BYTES:
            raise ValueError("a body too long")
        return await reader.readexactly(length)
    body = await reader.read(MAX_BODY_BYTES + 1)
    while len(body) <= MAX_BODY_BYTES and (more := await reader.read(MAX_BODY_BYTES)):
        body += more
    if len(body) > MAX_BODY_BYTES:
        raise ValueError("a body too long")
    return body
