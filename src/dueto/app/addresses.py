"""Network addresses as people write them: `127.0.0.1:8022`, `[::1]:8022`, `switch.example:8021`."""

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port."""

    host: str
    "A name or an IP address, IPv6 without brackets."
    port: int
    "0 to 65535; 0 lets the system choose, where we listen."

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` is taken to be elsewhere."""
        address = _ip(self.host)
        return address.is_loopback if address else self.host.rstrip(".").lower() == "localhost"

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every interface: something to listen on, nothing to connect to."""
        address = _ip(self.host)
        return address is not None and address.is_unspecified


def parse_address(text: str, *, default_port: int | None = None) -> Address:
    """Read `HOST:PORT` or `[IPV6]:PORT`; the port may be left out where there is a default.

    Raises: ValueError: the text is something else; the message says what was expected.
    """
    wanted = '"HOST:PORT", such as "127.0.0.1:8022" or "[::1]:8022"'
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        address = _ip(host)
        if not bracket or not isinstance(address, ipaddress.IPv6Address) or (rest and not rest.startswith(":")):
            raise ValueError(f"expected {wanted}")
        port_text = rest[1:] if rest else None
    else:
        if text.count(":") > 1:
            raise ValueError(f"expected {wanted}; an IPv6 address needs its brackets")
        host, colon, port_text_ = text.partition(":")
        port_text = port_text_ if colon else None
        if _ip(host) is None and (not _HOST_NAME.fullmatch(host) or re.fullmatch(r"[\d.]+", host)):
            raise ValueError(f"expected {wanted}")
    if port_text is None:
        if default_port is None:
            raise ValueError(f"expected {wanted}; the port is missing")
        return Address(host, default_port)
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65535:
        raise ValueError(f"expected {wanted}; the port is a number up to 65535")
    return Address(host, int(port_text))


def why_deaf(address: Address, error: OSError) -> str:
    """Return why nobody can listen on `address`, and what to do about it."""
    told = isinstance(error, socket.gaierror) or not error.errno
    why = error.strerror or str(error) if told else os.strerror(error.errno or 0)
    if error.errno == errno.EADDRINUSE:
        remedy = "end what uses it, or choose another port"
    elif error.errno in (errno.EACCES, errno.EPERM):
        remedy = "choose a port above 1023"
    else:
        remedy = "write an address of this machine"
    return f"can't listen on {address} ({why}); {remedy}"


def parse_network(text: str) -> Network:
    """Read `10.0.0.0/8`, `::1/128` or a single address.

    Raises: ValueError: it is neither, or has bits set behind the prefix; the message says what was meant.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is no network; expected such as "10.0.0.0/8" or "192.0.2.7"') from None
    raise ValueError(f'"{text}" is an address within a network; did you mean "{meant}"?')


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
