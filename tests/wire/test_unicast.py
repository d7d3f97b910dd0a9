"""What a datagram's size says of its channel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.errors import RemoteProtocolError
from dueto.wire.media.dialect import RATES
from dueto.wire.media.unicast import MAX_DATAGRAM_BYTES, PACKETS_MS, Packet, announced, measured


@pytest.mark.parametrize(
    ("read_rate", "codec_rate", "ptime", "packet"),
    [
        ("8000", "8000", "20", Packet(8000, 20)),
        ("16000", "8000", "20", Packet(16000, 20)),
        ("", "48000", "", Packet(48000, 20)),
        ("", "", "30", Packet(8000, 30)),
        ("44100", "16000", "17", Packet(16000, 20)),
        ("x", "-8000", "20ms", Packet(8000, 20)),
        ("٨٠٠٠", "16000", "²", Packet(16000, 20)),
    ],
)
def test_a_channel_announces_its_packets(read_rate: str, codec_rate: str, ptime: str, packet: Packet) -> None:
    assert announced(read_rate, codec_rate, ptime) == packet


def test_the_recorded_packets_are_those_of_pcmu() -> None:
    assert measured(320, announced("8000", "8000", "20")) == Packet(8000, 20)


def test_a_size_decides_where_another_rate_was_announced() -> None:
    assert measured(640, Packet(8000, 20)) == Packet(16000, 20)
    assert measured(1280, Packet(16000, 40)) == Packet(16000, 40)


@given(st.text(), st.text(), st.text())
def test_whatever_a_channel_says_leads_to_packets_of_a_possible_size(a: str, b: str, c: str) -> None:
    assert 160 <= announced(a, b, c).size_bytes <= MAX_DATAGRAM_BYTES


@given(st.integers(0, 70_000), st.sampled_from(RATES), st.sampled_from(PACKETS_MS))
def test_a_measured_packet_has_that_very_size(size: int, rate_hz: int, ms: int) -> None:
    try:
        packet = measured(size, Packet(rate_hz, ms))
    except RemoteProtocolError:
        assert all(Packet(rate, ms).size_bytes != size for rate in RATES)
    else:
        assert (packet.size_bytes, packet.ms) == (size, ms)
