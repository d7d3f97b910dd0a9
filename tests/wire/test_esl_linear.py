"""However small the pieces, every byte is looked at a bounded number of times. Work is counted, not timed."""

import pytest

from dueto.wire.esl import Decoder, Limits
from dueto.wire.esl.inbox import Inbox
from dueto.wire.esl.switch_end import CommandDecoder, encode_api_response, encode_event


class Watched(bytearray):
    """A buffer that counts how many bytes it is asked to search, copy or move."""

    work = 0

    def find(self, sub: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        stop = len(self) if end is None else min(end, len(self))
        at = super().find(sub, start, stop)
        Watched.work += (at if at >= 0 else stop) - start
        return at

    def rfind(self, sub: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        stop = len(self) if end is None else min(end, len(self))
        Watched.work += stop - start
        return super().rfind(sub, start, stop)

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        value = super().__getitem__(key)
        Watched.work += len(value) if isinstance(key, slice) else 1
        return value

    def __iter__(self):  # type: ignore[no-untyped-def]
        raise AssertionError("the buffer is walked byte by byte")

    def __bytes__(self) -> bytes:
        Watched.work += len(self)
        return bytes(memoryview(self))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    """Every buffer of an Inbox is a watched one from here on."""
    monkeypatch.setattr("dueto.wire.esl.inbox.bytearray", Watched, raising=False)
    monkeypatch.setattr(Watched, "work", 0)
    return Watched


LARGE = 60_000
STREAMS = {
    "one long header line": b"Content-Type: command/reply\nReply-Text: " + b"x" * LARGE + b"\n\n",
    "many header lines": b"Content-Type: command/reply\n" + b"X: yyyyy\n" * (LARGE // 9) + b"\n",
    "a large body": encode_api_response(b"\n" * LARGE),
    "a large event": encode_event([("Event-Name", "CUSTOM"), ("variable_x", "\n" * (LARGE // 3))], b"\n\n" * 100),
    "almost ends of headers": b"Content-Type: command/reply\r\n" + b"X: y\r\n" * (LARGE // 6) + b"\r\n",
    "mixed line endings": b"Content-Type: command/reply\n" + b"X: y\r\nX: y\n" * (LARGE // 11) + b"\r\n",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_large_messages_cost_linear_work(watched: type[Watched], stream: bytes, size: int) -> None:
    decoder = Decoder()
    messages = [m for at in range(0, len(stream), size) for m in decoder.feed(stream[at : at + size])]
    assert len(messages) == 1
    # Each feed may look back two bytes for each of three searches; each byte is searched thrice and copied out once.
    assert len(stream) // 2 < watched.work < 6 * len(stream) + 12 * (len(stream) // size)


@pytest.mark.parametrize("size", [1, 1000])
def test_a_header_that_passes_the_line_limit_late_is_not_searched_again_and_again(
    watched: type[Watched], size: int
) -> None:
    stream = b"X: " + b"y" * 15_000 + b"\n" + b"X: y\n" * 9_000
    decoder = Decoder(Limits(line_bytes=16_000))
    for at in range(0, len(stream), size):
        assert decoder.feed(stream[at : at + size]) == []
    assert decoder.pending_bytes == len(stream)
    assert watched.work < 4 * len(stream) + 12 * (len(stream) // size)


def test_many_commands_in_one_piece_cost_linear_work(watched: type[Watched]) -> None:
    decoder = CommandDecoder()
    assert decoder.feed(b"e") == []
    stream = b"xit\n\n" + b"api status\n\n" * 5_000
    assert len(decoder.feed(stream)) == 5_001
    assert watched.work < 6 * len(stream)


def test_a_large_command_body_in_small_pieces_costs_linear_work(watched: type[Watched]) -> None:
    stream = b"sendmsg\ncontent-length: 60000\n\n" + b"\n" * 60_000
    decoder = CommandDecoder()
    commands = [c for at in range(0, len(stream), 7) for c in decoder.feed(stream[at : at + 7])]
    assert [len(command.body) for command in commands] == [60_000]
    assert watched.work < 4 * len(stream)


def test_a_piece_that_ends_with_a_message_is_kept_nowhere() -> None:
    inbox = Inbox(Limits())
    inbox.feed(b"a: b\n\nbody")
    assert inbox.head() == b"a: b\n"
    assert inbox.take(4) == b"\nbody"
    assert len(inbox) == 0
