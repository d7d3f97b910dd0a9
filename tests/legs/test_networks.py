"""Who may connect, by address."""

from ipaddress import ip_network

import pytest

from dueto.legs.networks import allowed

NETWORKS = tuple(ip_network(text) for text in ("127.0.0.0/8", "10.1.2.0/24", "fe80::/10"))


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.255", "::ffff:10.1.2.3", "fe80::1", "fe80::1%eth0"])
def test_who_is_in_one_of_the_networks_may_come(host: str) -> None:
    assert allowed(host, NETWORKS)


@pytest.mark.parametrize(
    "host",
    ["10.1.3.0", "::ffff:10.1.3.0", "::10.1.2.3", "::1", "2001:db8::1%fe80::1", "", "localhost", "10.1.2", "memory"],
)
def test_who_is_not_or_has_no_address_may_not(host: str) -> None:
    assert allowed(host, NETWORKS) is False
    assert not allowed("127.0.0.1", ())
