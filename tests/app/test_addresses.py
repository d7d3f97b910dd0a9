"""Addresses as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.app.addresses import Address, parse_address, parse_network


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8022", Address("127.0.0.1", 8022)),
        ("[::1]:8022", Address("::1", 8022)),
        ("switch-1.example:0", Address("switch-1.example", 0)),
        ("switch", Address("switch", 8021)),
        ("[fe80::1]", Address("fe80::1", 8021)),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: Address) -> None:
    assert parse_address(text, default_port=8021) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "::1:80",
        "[::1]80",
        "[::1",
        "[1.2.3.4]:1",
        "1.2.3:4",
        "a b:1",
        "a\n:1",
        "host:1\n",
        "host:\u0661",
        "256.1.1.1:80",
        "a/b:1",
        "user@host:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_address(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_survives_a_round_trip(ip: object, port: int) -> None:
    address = parse_address(str(Address(str(ip), port)))
    assert address == Address(str(ip), port)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text, default_port=1)
    except ValueError:
        return
    assert not set(address.host) & set(" \r\n\t/@[]")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


def test_a_network_with_bits_behind_its_prefix_names_the_one_that_was_meant() -> None:
    assert str(parse_network("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(parse_network("192.0.2.7")) == "192.0.2.7/32"
    with pytest.raises(ValueError, match="did you mean"):
        parse_network("10.1.0.0/8")
    with pytest.raises(ValueError, match="is no network"):
        parse_network("ten")
