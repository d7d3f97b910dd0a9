"""What was said is written down, bounded, and told to the journal."""

from typing import Any

from dueto.call.transcript import LONGEST_LINE_CHARS, MOST_LINES, Line, Transcript


def test_lines_are_kept_in_order_and_noted_with_their_facts() -> None:
    notes: list[tuple[str, dict[str, Any]]] = []
    transcript = Transcript(lambda event, **fields: notes.append((event, fields)))
    transcript.add("agent", " Good morning. ", heard_ms=700)
    transcript.add("caller", "   ")
    transcript.add("caller", "Hello")
    assert list(transcript) == [Line("agent", "Good morning."), Line("caller", "Hello")]
    assert notes == [
        ("transcript", {"who": "agent", "text": "Good morning.", "heard_ms": 700}),
        ("transcript", {"who": "caller", "text": "Hello"}),
    ]


def test_long_numbers_are_masked_in_what_is_noted_and_only_there() -> None:
    notes: list[Any] = []
    transcript = Transcript(lambda event, **fields: notes.append(fields["text"]))
    transcript.add("caller", "It is 4111 1111 1111 1111, PIN 1234, room 12, at 9.30")
    assert notes == ["It is *******************, PIN ****, room 12, at 9.30"]
    assert next(iter(transcript)).text.endswith("1111, PIN 1234, room 12, at 9.30")


def test_a_conversation_without_end_forgets_its_beginning() -> None:
    transcript = Transcript(lambda event, **fields: None)
    for number in range(MOST_LINES + 5):
        transcript.add("caller", f"{number} " + "x" * LONGEST_LINE_CHARS)
    lines = list(transcript)
    assert len(transcript) == len(lines) == MOST_LINES
    assert lines[0].text.startswith("5 ")
    assert max(len(line.text) for line in lines) == LONGEST_LINE_CHARS
