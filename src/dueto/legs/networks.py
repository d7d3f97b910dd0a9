"""Who may connect, by address."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


@lru_cache(maxsize=1024)
def allowed(host: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address, as a socket tells it, is in one of `networks`; IPv4 within IPv6 counts as IPv4."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
