"""What is wrong with greenswitch 0.0.19, measured on it, and mended from outside.

Every test runs on the mended session and must pass, and on the library's own and must fail for the reason given: when
a later greenswitch mends one itself, its strict xfail says so.
"""

import asyncio
import functools
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import gevent.event
import gevent.socket
import pytest
from greenswitch.esl import ESLEvent, OutboundSession, OutboundSessionHasGoneAway
from tests.legs.greenswitch_peer import answer, event

from dueto.errors import RemoteProtocolError
from dueto.legs.greenswitch import session as mended
from dueto.legs.greenswitch.hub import HubThread
from dueto.legs.greenswitch.library import wire_event
from dueto.legs.greenswitch.session import MendedSession, WireEvent
from dueto.wire.esl import Decoder, Event, Message
from dueto.wire.esl.switch_end import CommandBlock, CommandDecoder, encode_linger_notice, encode_reply

PATIENCE_S = {"mended": 20.0, "plain": 0.2}
"How long a greenlet may take; the plain library's waits never end, so any limit shows it."


class Hung(Exception):
    """A greenlet waited for what never comes."""


@dataclass
class Follower:
    """Listens to a session; what it is told is kept."""

    answered: list[Message] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    ended: list[tuple[str, RemoteProtocolError | None]] = field(default_factory=list)

    def session_answered(self, message: Message) -> None:
        self.answered.append(message)

    def session_failed(self, error: BaseException) -> None:
        self.failed.append(error)

    def session_ended(self, reason: str, fault: RemoteProtocolError | None) -> None:
        self.ended.append((reason, fault))


class Bench:
    """A session of either kind in a hub, its switch's end in our hands."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.lost: list[BaseException] = []
        self.hub = HubThread(self.lost.append)
        self.follower = Follower()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.switch = socket.create_connection(listener.getsockname())
            self._theirs, _ = listener.accept()
        self._theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # large commands don't fit in at once
        self.session: Any = None
        self.prepare: Callable[[Any], object] = lambda session: None
        "What is done with the session before it reads anything."

    async def start(self) -> None:
        await self.hub.start()
        await self.run(self._make)

    def _make(self) -> None:
        sock = gevent.socket.socket(self._theirs.family, self._theirs.type, fileno=self._theirs.detach())
        if self.kind == "plain":
            self.session = OutboundSession(("127.0.0.1", 1), sock)
        else:
            self.session = MendedSession(("127.0.0.1", 1), sock, self.follower)  # type: ignore[arg-type]
            self.session.handlers_registered.set()
        self.prepare(self.session)

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run `work` in a greenlet and return what it returns."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                with gevent.Timeout(PATIENCE_S[self.kind], Hung(f"{work} did not return")):
                    value = work(*arguments)
            except Exception as error:
                loop.call_soon_threadsafe(done.set_exception, error)
            else:
                loop.call_soon_threadsafe(done.set_result, value)

        assert self.hub.call_soon(gevent.spawn, run)
        return await done

    async def connect(self, answer: bytes) -> None:
        """Connect the session, and answer so."""
        connecting = asyncio.ensure_future(self.run(self.session.connect))
        await asyncio.to_thread(self.switch.recv, 100)
        self.switch.sendall(answer)
        await connecting

    async def aclose(self) -> None:
        self.switch.close()
        await self.run(self._end)
        assert await self.hub.stop(5.0)

    def _end(self) -> None:
        greenlets = [self.session._receive_events_greenlet, self.session._process_events_greenlet]
        gevent.killall(greenlets, block=True, timeout=5.0)
        self.session.sock_file.close()
        self.session.sock.close()


def mended_or(reason: str) -> pytest.MarkDecorator:
    """Run on both kinds; the plain one must fail, for `reason`."""
    how = (AssertionError, Hung, TimeoutError, OutboundSessionHasGoneAway, pytest.fail.Exception)
    plain = pytest.param("plain", marks=pytest.mark.xfail(strict=True, raises=how, reason=reason))
    return pytest.mark.parametrize("kind", ["mended", plain])


@pytest.fixture
async def bench(kind: str) -> AsyncIterator[Bench]:
    bench = Bench(kind)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.aclose()


def seen_by(session: Any, *names: str) -> tuple[list[str], Callable[[int], None]]:
    """Register a handler under each name; return the names that came, and a way for a greenlet to wait for so many."""
    seen: list[str] = []
    changed = gevent.event.Event()

    def handler(name: str, event: Any) -> None:
        seen.append(name)
        changed.set()

    def wait(count: int) -> None:
        while len(seen) < count:
            changed.clear()
            changed.wait()

    for name in names:
        session.register_handle(name, functools.partial(handler, name))
    return seen, wait


FORGED = "x%0AUnique-ID: VICTIM%0Avariable_uuid: VICTIM%0AEvent-Name: CHANNEL_HANGUP"


@mended_or("decodes a whole block before it splits it, and of a name that occurs twice takes the last")
async def test_a_callers_name_can_not_rename_the_channel(bench: Bench) -> None:
    lines = answer("a-leg", name=FORGED).split(b"\n")
    lines.sort(key=lambda line: line.startswith(b"Caller-Caller-ID-Name"))  # behind what it forges, as variables are
    await bench.connect(b"\n".join(filter(None, lines)) + b"\n\n")
    assert bench.session.uuid == "a-leg"


@mended_or("decodes a whole block before it splits it, so that a value can write `Event-Name`")
async def test_a_callers_name_can_not_rename_an_event(bench: Bench) -> None:
    seen, wait = seen_by(bench.session, "DTMF", "CHANNEL_HANGUP")
    bench.switch.sendall(event("DTMF", "a-leg", Caller_Caller_ID_Name=FORGED))
    await bench.run(wait, 1)
    assert seen == ["DTMF"]


@mended_or("parses an event's body as more headers")
async def test_an_events_body_is_no_header(bench: Bench) -> None:
    events: list[Any] = []
    came = gevent.event.Event()

    def handler(event: Any) -> None:
        events.append(event)
        came.set()

    bench.session.register_handle("mod_x::json", handler)
    body = b'Event-Name: CHANNEL_HANGUP\n{"digits": "1"}'
    bench.switch.sendall(event("CUSTOM", "a-leg", body, Event_Subclass="mod_x::json"))
    await bench.run(came.wait)
    assert events[0].headers["Event-Name"] == "CUSTOM"
    assert '{"digits"' not in events[0].headers
    assert events[0].data == body.decode()


@mended_or("an event's bytes are decoded as strict UTF-8; one that is none ends the reading, silently")
async def test_bytes_that_are_no_text_do_not_end_the_reading(bench: Bench) -> None:
    seen, wait = seen_by(bench.session, "mod_x::json", "DTMF")
    bench.switch.sendall(event("CUSTOM", "a-leg", b"\xff\xfe", Event_Subclass="mod_x::json") + event("DTMF", "a-leg"))
    await bench.run(wait, 2)
    assert seen == ["mod_x::json", "DTMF"]


@mended_or("at the end of the socket nobody tells those who wait in `send`")
async def test_the_end_of_the_socket_ends_the_waiting_for_a_reply(bench: Bench) -> None:
    waiting = asyncio.ensure_future(bench.run(bench.session.send, "status"))
    await asyncio.to_thread(bench.switch.recv, 100)
    bench.switch.shutdown(socket.SHUT_WR)
    with pytest.raises(OutboundSessionHasGoneAway):
        await waiting


@mended_or("`raise_if_disconnected` looks at the hangup handler's flag alone, which a dead socket leaves set")
async def test_a_dead_socket_is_a_disconnected_session(bench: Bench) -> None:
    await bench.connect(answer("a-leg"))
    bench.switch.shutdown(socket.SHUT_WR)
    await bench.run(bench.session._receive_events_greenlet.join)
    with pytest.raises(OutboundSessionHasGoneAway):
        bench.session.raise_if_disconnected()


@mended_or("`sock.send` may take a part; and another greenlet's command gets into the gap")
async def test_large_commands_of_two_greenlets_stay_whole(bench: Bench) -> None:
    commands = [letter * (1 << 18) for letter in "ab"]
    sending = [asyncio.ensure_future(bench.run(bench.session.send, command)) for command in commands]

    def read_both() -> list[CommandBlock]:
        decoder = CommandDecoder()
        found: list[CommandBlock] = []
        bench.switch.settimeout(PATIENCE_S[bench.kind])
        while len(found) < 2:
            found += decoder.feed(bench.switch.recv(1 << 16))
        return found

    try:
        found = await asyncio.to_thread(read_both)
        bench.switch.sendall(encode_reply("+OK") * 2)
    finally:
        await asyncio.gather(*sending, return_exceptions=True)
    assert sorted(command.line for command in found) == commands


@mended_or("a named handler hides `*`, under which the library itself waits for completions")
async def test_a_named_handler_does_not_hang_a_blocking_verb(bench: Bench) -> None:
    seen_by(bench.session, "CHANNEL_EXECUTE_COMPLETE")
    playing = asyncio.ensure_future(bench.run(bench.session.playback, "a.wav"))
    await asyncio.to_thread(bench.switch.recv, 1000)
    bench.switch.sendall(encode_reply("+OK"))
    bench.switch.sendall(event("CHANNEL_EXECUTE_COMPLETE", "a-leg", variable__current__application="playback"))
    completion = await playing
    assert completion.headers["Event-Name"] == "CHANNEL_EXECUTE_COMPLETE"


@mended_or("the handlers stop with the reading; what came right before the end is thrown away")
async def test_what_came_before_the_end_of_the_socket_is_handled(kind: str) -> None:
    names = ("DTMF", "CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE")
    seen: list[str] = []
    bench = Bench(kind)

    def prepare(session: Any) -> None:
        for name in names:
            session.register_handle(name, lambda event: seen.append(event.headers["Event-Name"]))

    bench.prepare = prepare
    bench.switch.sendall(b"".join(event(name, "a-leg") for name in names))
    bench.switch.shutdown(socket.SHUT_WR)
    await bench.start()
    try:
        await bench.run(bench.session._process_events_greenlet.join)
        assert seen == list(names)
    finally:
        await bench.aclose()


@mended_or("a linger notice fails the commands that wait, whose replies come all the same")
async def test_a_lingering_switch_still_answers(bench: Bench) -> None:
    waiting = asyncio.ensure_future(bench.run(bench.session.send, "status"))
    await asyncio.to_thread(bench.switch.recv, 100)
    seen, wait = seen_by(bench.session, "DISCONNECT")
    bench.switch.sendall(encode_linger_notice("a-leg", "sofia/x", 10))
    await bench.run(wait, 1)
    bench.switch.sendall(encode_reply("+OK"))
    assert (await waiting).data == "+OK"
    assert seen == ["DISCONNECT"]


@mended_or("a handler without a `__name__` that raises ends the handling for good")
async def test_a_handler_that_raises_costs_nobody_else_anything(bench: Bench) -> None:
    def broken(event: Any) -> None:
        raise RuntimeError("broken on purpose")

    bench.session.register_handle("DTMF", functools.partial(broken))
    seen, wait = seen_by(bench.session, "DTMF", "CHANNEL_HANGUP")
    bench.switch.sendall(event("DTMF", "a-leg") + event("CHANNEL_HANGUP", "a-leg"))
    await bench.run(wait, 2)
    assert seen == ["DTMF", "CHANNEL_HANGUP"]
    assert [str(error) for error in bench.follower.failed] == ["broken on purpose"]


@mended_or("`stop` waits for the answer to `exit` without limit")
async def test_stopping_does_not_wait_for_a_silent_switch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mended, "STOP_S", 0.05)
    await bench.run(bench.session.stop)
    assert not bench.session.connected


@pytest.mark.parametrize("kind", ["mended"])
async def test_a_reply_to_no_command_ends_the_session(bench: Bench) -> None:
    bench.switch.sendall(encode_reply("+OK"))
    await bench.run(bench.session._process_events_greenlet.join)
    ((reason, fault),) = bench.follower.ended
    assert "a reply to no command" in reason
    assert isinstance(fault, RemoteProtocolError)
    assert bench.lost == []


@pytest.mark.parametrize("kind", ["mended"])
@pytest.mark.xfail(strict=True, reason="the verbs know a completion by the application's name, not by an Event-UUID")
async def test_a_completion_wakes_only_the_verb_it_belongs_to(bench: Bench) -> None:
    playing = [asyncio.ensure_future(bench.run(bench.session.playback, name)) for name in ("a.wav", "b.wav")]
    decoder = CommandDecoder()
    commands: list[CommandBlock] = []
    while len(commands) < 2:
        commands += decoder.feed(await asyncio.to_thread(bench.switch.recv, 4096))
    bench.switch.sendall(encode_reply("+OK") * 2)
    bench.switch.sendall(event("CHANNEL_EXECUTE_COMPLETE", "a-leg", variable__current__application="playback"))
    await asyncio.wait(playing, return_when=asyncio.FIRST_COMPLETED)
    try:
        await bench.run(gevent.sleep, 0)  # one turn of the hub: who was woken has returned
        assert sum(task.done() for task in playing) == 1
    finally:
        await asyncio.gather(*playing, return_exceptions=True)


@pytest.mark.xfail(strict=True, reason="it logs through the root logger, whose first use gives it a handler")
def test_the_library_leaves_the_root_logger_alone() -> None:
    code = (
        "import logging, sys\n"
        "from dueto.legs.greenswitch.library import MendedServer\n"
        "MendedServer(print, print, 1.0)\n"
        "sys.exit(bool(logging.getLogger().handlers))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def test_an_event_crosses_as_its_bytes_and_from_a_plain_object_as_its_headers() -> None:
    (message,) = Decoder().feed(event("DTMF", "a-leg", DTMF_Digit="#"))
    assert isinstance(message, Event)
    ours = WireEvent(message)
    assert wire_event(ours) is message
    assert ours.get_header("DTMF-Digit") == ours.headers["DTMF-Digit"] == "#"
    assert ours.get_header("Nothing", "default") == "default"
    plain = ESLEvent("Event-Name: DTMF\nDTMF-Digit: %23\n")
    assert wire_event(plain).get("DTMF-Digit") == "#"
    assert wire_event(plain).name == "DTMF"


def test_a_replys_headers_are_not_decoded() -> None:
    (message,) = Decoder().feed(encode_reply("+OK 100%25"))
    assert WireEvent(message).headers["Reply-Text"] == "+OK 100%25"
    assert WireEvent(message).data == "+OK 100%25"
