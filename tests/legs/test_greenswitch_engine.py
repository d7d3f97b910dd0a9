"""The greenswitch engine on the real library, real gevent and real sockets."""

import asyncio
import gc
import logging
import socket
import threading
import weakref
from typing import Any

import pytest
from greenswitch.esl import OutboundSession
from tests.legs.greenswitch_peer import PATIENCE_S, Sink, answer, engine, event

from dueto.errors import CommandRefused, LegClosed, LocalProtocolError, ReplyTimeout
from dueto.legs import greenswitch_engine
from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.greenswitch import library, relay
from dueto.legs.greenswitch.library import CallApplication
from dueto.legs.greenswitch.session import MendedSession
from dueto.legs.ports import ControlCapabilities
from dueto.wire.esl import Api, Raw
from dueto.wire.esl.names import AUDIO_SUBCLASSES, CALL_EVENTS
from dueto.wire.esl.switch_end import encode_api_response, encode_linger_notice

NEVER_S = 3600.0
"A keep-alive interval that can't be why something came in time."


# -- the opening


async def test_the_opening_is_said_in_order_and_complete() -> None:
    async with engine(OutboundOptions(linger_s=7)) as running:
        peer, leg, _ = await running.call()
        assert [command.line for command in peer.commands] == [
            "connect",
            "linger 7",
            "myevents",
            f"event plain {' '.join(CALL_EVENTS)} CUSTOM {' '.join(AUDIO_SUBCLASSES)}",
        ]
        assert leg.unique_id == "a-leg"
        assert leg.channel.get("Caller-Caller-ID-Number") == "1001"
        assert leg.capabilities == ControlCapabilities("greenswitch")
        assert leg.peer == "127.0.0.1"


async def test_the_librarys_own_api_is_used_and_handlers_stand_before_myevents(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def spy(name: str) -> None:
        original = getattr(OutboundSession, name)

        def spied(self: Any, *arguments: Any) -> Any:
            used.append(f"{name} {arguments[0]}" if name == "register_handle" else name)
            return original(self, *arguments)

        monkeypatch.setattr(OutboundSession, name, spied)

    for name in ("connect", "register_handle", "linger", "myevents", "raise_if_disconnected"):
        spy(name)
    async with engine() as running:
        await running.call()
    before = used[: used.index("myevents")]
    assert used[0:3] == ["register_handle *", "register_handle CHANNEL_HANGUP", "register_handle DISCONNECT"]
    assert before.index("connect") < before.index("register_handle DTMF")  # the library connects first
    for name in ("CHANNEL_HANGUP", "DTMF", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_HOLD", "CHANNEL_UNHOLD"):
        assert f"register_handle {name}" in before
    for subclass in AUDIO_SUBCLASSES:
        assert f"register_handle {subclass}" in before
    assert "linger" in before
    assert "raise_if_disconnected" in used


async def test_a_socket_without_full_is_known_for_what_it_is() -> None:
    async with engine() as running:
        peer = await running.dial(connect=lambda command: answer("a-leg", control="single-channel"))
        leg = await running.door.leg()
        assert leg.capabilities == ControlCapabilities("greenswitch", api=False)
        await peer.opened()


async def test_what_comes_in_one_segment_with_the_connect_answer_waits_for_its_handler() -> None:
    async with engine() as running:
        told = answer("a-leg") + event("CHANNEL_HANGUP", "a-leg", Hangup_Cause="ORIGINATOR_CANCEL")
        peer = await running.dial(connect=lambda command: told)
        await running.door.leg()
        peer.close()
        sink = running.door.sinks["a-leg"]
        await sink.saw("closed")
        assert sink.seen == ["CHANNEL_HANGUP", "closed"]
        assert sink.events[0].get("Hangup-Cause") == "ORIGINATOR_CANCEL"


async def test_commands_given_before_the_opening_is_said_follow_it() -> None:
    async with engine(attaches=False) as running:
        peer = await running.dial()
        leg = await running.door.leg()
        leg.post(Api("uuid_setvar", "a-leg x y"))
        await peer.got("api")
        assert [command.word for command in peer.commands] == ["connect", "linger", "myevents", "event", "api"]


# -- events


async def test_every_event_of_a_call_reaches_its_sink_in_order_and_once() -> None:
    async with engine(interval_s=NEVER_S) as running:
        peer, _, sink = await running.call()
        names = ["DTMF", "CHANNEL_HOLD", "CHANNEL_UNHOLD", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_STATE"]
        for name in names:
            peer.event(name, DTMF_Digit="#")
        peer.event("CUSTOM", b'{"a":1}', Event_Subclass="mod_audio_stream::json")
        peer.event("CUSTOM", Event_Subclass="somebody::elses")
        peer.send(encode_linger_notice("a-leg", "sofia/x", 10))
        peer.hang_up()
        await sink.saw("CHANNEL_HANGUP_COMPLETE")
        assert sink.seen == [
            *names,
            "mod_audio_stream::json",
            "somebody::elses",
            "lingering",
            "CHANNEL_HANGUP",
            "CHANNEL_HANGUP_COMPLETE",
        ]
        assert sink.events[0].get("DTMF-Digit") == "#"
        assert sink.events[6].body == '{"a":1}'


async def test_a_callers_name_forges_nothing() -> None:
    name = "x%0AUnique-ID: VICTIM%0Avariable_uuid: VICTIM%0AEvent-Name: CHANNEL_HANGUP"
    async with engine() as running:
        peer = await running.dial(connect=lambda command: answer("a-leg", name=name))
        leg = await running.door.leg()
        await peer.opened()
        sink = running.door.sinks["a-leg"]
        peer.event("DTMF", Caller_Caller_ID_Name=name, DTMF_Digit="1")
        await sink.saw("DTMF")
        assert leg.unique_id == sink.events[0].unique_id == "a-leg"
        assert leg.channel.get("Caller-Caller-ID-Name").startswith("x\nUnique-ID: VICTIM\n")


async def test_replies_and_events_come_in_the_order_of_their_bytes() -> None:
    async with engine() as running:
        peer, leg, sink = await running.call(api=lambda command: b"")
        asked = [asyncio.ensure_future(leg.api("status")) for _ in range(3)]
        await peer.got("api", times=3)
        order: list[str] = []
        for number, task in enumerate(asked):
            task.add_done_callback(lambda task, number=number: order.append(f"{number}:{task.result()}"))
        record = sink.control_event
        sink.control_event = lambda leg, event: (order.append(event.name), record(leg, event))  # type: ignore[method-assign,func-returns-value,assignment]
        peer.send(
            event("DTMF", "a-leg")
            + encode_api_response(b"first\n")
            + event("CHANNEL_STATE", "a-leg")
            + encode_api_response(b"second")
            + encode_api_response(b"third")
        )
        await asyncio.gather(*asked)
        assert [entry for entry in order if ":" in entry] == ["0:first", "1:second", "2:third"]
        assert order.index("DTMF") < order.index("0:first")
        assert order.index("CHANNEL_STATE") < order.index("1:second")


async def test_a_sink_that_fails_costs_neither_the_next_event_nor_the_report() -> None:
    async with engine() as running:
        peer, _, sink = await running.call()
        sink.raises = frozenset({"DTMF"})
        peer.event("DTMF")
        peer.hang_up()
        await sink.saw("CHANNEL_HANGUP_COMPLETE")
        assert [str(context["exception"]) for context in running.faults] == ["the sink can't take DTMF"]
        running.faults.clear()


async def test_events_before_the_sink_are_kept_in_order() -> None:
    async with engine(attaches=False) as running:
        peer, leg, sink = await running.call()
        for digit in "123":
            peer.event("DTMF", DTMF_Digit=digit)
        assert await leg.api("status") == "+OK"  # behind them
        leg.attach(sink)
        assert [event.get("DTMF-Digit") for event in sink.events] == ["1", "2", "3"]


async def test_a_flood_waits_with_the_switch_and_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    monkeypatch.setattr(relay, "HIGH", 50)
    monkeypatch.setattr(relay, "LOW", 5)
    monkeypatch.setattr("dueto.legs.greenswitch.session.RECEIVE_BYTES", 4096)
    async with engine() as running:
        peer, _, sink = await running.call()
        pipe = next(iter(running.server._relays))
        original = sink.control_event

        def slow(leg: Any, event: Any) -> None:
            nonlocal most
            most = max(most, len(pipe._outbox))
            original(leg, event)

        sink.control_event = slow  # type: ignore[method-assign]
        one = event("DTMF", "a-leg")
        for _ in range(3000):
            peer.send(one)
        peer.hang_up()
        await sink.saw("CHANNEL_HANGUP_COMPLETE")
        assert sink.seen.count("DTMF") == 3000
        assert most <= 50 + 2 * 4096 // len(one) + 1


# -- commands


async def test_commands_need_no_poll_to_go_out() -> None:
    async with engine(interval_s=NEVER_S) as running:
        peer, leg, _ = await running.call()
        assert await leg.api("uuid_exists", "a-leg") == "+OK"
        assert (await leg.command(Raw("noevents"))).ok
        assert (await peer.got("api")).line == "api uuid_exists a-leg"


async def test_a_cancelled_command_does_not_leave_its_reply_to_the_next() -> None:
    async with engine() as running:
        peer, leg, _ = await running.call(api=lambda command: b"")
        first = asyncio.ensure_future(leg.api("first"))
        await peer.got("api")
        first.cancel()
        second = asyncio.ensure_future(leg.api("second"))
        await peer.got("api", times=2)  # pipelined: it does not wait for the first one's reply
        peer.send(encode_api_response(b"one") + encode_api_response(b"two"))
        assert await second == "two"


async def test_an_output_that_says_err_is_refused_and_a_line_break_never_sent() -> None:
    async with engine() as running:
        peer, leg, _ = await running.call(api=lambda command: encode_api_response(b"-ERR No such channel!\n"))
        with pytest.raises(CommandRefused, match="No such channel"):
            await leg.api("uuid_kill", "a-leg")
        with pytest.raises(LocalProtocolError):
            await leg.api("uuid_kill", "a-leg\n\nexit")
        assert [command.word for command in peer.commands].count("api") == 1


async def test_an_application_resolves_on_its_own_completion() -> None:
    async with engine() as running:
        peer, leg, _ = await running.call()
        started = asyncio.Event()
        mine = asyncio.ensure_future(leg.execute("playback", "a.wav", on_start=started.set))
        command = await peer.got("sendmsg")
        assert command.headers["event-lock"] == "true"
        own = command.headers["event-uuid"]
        peer.event("CHANNEL_EXECUTE_COMPLETE", Application="playback", Application_UUID="somebody else's")
        peer.event("CHANNEL_EXECUTE", Application="playback", Application_UUID=own)
        async with asyncio.timeout(PATIENCE_S):
            await started.wait()
        assert not mine.done()
        peer.event("CHANNEL_EXECUTE_COMPLETE", Application_UUID=own, Application_Response="FILE PLAYED")
        assert (await mine).get("Application-Response") == "FILE PLAYED"


# -- the end


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_end_of_the_socket_fails_whoever_waits_and_is_told_once(how: str) -> None:
    async with engine(interval_s=NEVER_S) as running:
        peer, leg, sink = await running.call(api=lambda command: b"", sendmsg=lambda command: b"")
        waiting = [asyncio.ensure_future(leg.api("status")) for _ in range(3)]
        execution = asyncio.ensure_future(leg.execute("playback", "a.wav"))
        await peer.got("sendmsg")
        getattr(peer, how)()
        for outcome in await asyncio.gather(*waiting, execution, return_exceptions=True):
            assert isinstance(outcome, LegClosed)
        await sink.saw("closed")
        assert sink.seen.count("closed") == 1
        assert leg.closed
        with pytest.raises(LegClosed):
            await leg.api("status")
        leg.post(Api("status"))
        leg.abort()
        leg.notify_session_ended("again")
        late = Sink()
        leg.attach(late)
        assert late.seen == ["closed"]


async def test_bytes_that_make_no_sense_end_the_leg_after_what_came_before_them() -> None:
    async with engine() as running:
        peer, _, sink = await running.call()
        peer.send(event("CHANNEL_HANGUP", "a-leg") + b"Content-Length: x\n\n")
        await sink.saw("closed")
        assert sink.seen == ["CHANNEL_HANGUP", "closed"]
        assert await running.door.refusal() == ("control", "protocol_error", "127.0.0.1")
        assert "protocol error" in sink.closed[0]


async def test_a_session_that_ended_lets_go_after_the_last_event_and_once() -> None:
    async with engine() as running:
        peer, leg, sink = await running.call()
        peer.event("CHANNEL_HANGUP")
        await sink.saw("CHANNEL_HANGUP")
        leg.notify_session_ended("hung up")
        leg.notify_session_ended("hung up")
        assert await leg.api("status") == "+OK"
        assert "exit" not in [command.word for command in peer.commands]
        peer.event("CHANNEL_HANGUP_COMPLETE")
        await peer.got("exit")
        await sink.saw("closed")
        assert sink.closed == ["we let go"]
        await peer.ended.wait()
        assert [command.word for command in peer.commands].count("exit") == 1


async def test_a_hung_up_call_that_asyncio_forgot_is_let_go_by_its_greenlet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SLACK_S", 0.05)
    async with engine(OutboundOptions(linger_s=0), interval_s=0.01) as running:
        peer, _, sink = await running.call()
        peer.send(encode_linger_notice("a-leg", "sofia/x", 0))
        await peer.got("exit")
        await sink.saw("closed")
        assert sink.seen == ["lingering", "closed"]


async def test_abort_ends_the_connection_without_a_word() -> None:
    async with engine(interval_s=NEVER_S) as running:
        peer, leg, sink = await running.call()
        leg.abort()
        await sink.saw("closed")
        await peer.ended.wait()
        assert "exit" not in [command.word for command in peer.commands]


async def test_the_callers_number_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with engine() as running:
        peer, leg, sink = await running.call()
        assert leg.channel.get("Caller-Caller-ID-Number") == "1001"
        peer.hang_up()
        await sink.saw("CHANNEL_HANGUP_COMPLETE")
        leg.notify_session_ended("over")
        await sink.saw("closed")
    assert caplog.records  # the library does log
    assert "1001" not in caplog.text


# -- the two runtimes


async def test_a_blocked_asyncio_loop_does_not_stop_the_hub() -> None:
    async with engine() as running:
        connected = threading.Event()

        def dial() -> None:
            with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as switch:
                if switch.recv(100) == b"connect\n\n":
                    connected.set()

        dialling = threading.Thread(target=dial)
        dialling.start()
        assert connected.wait(PATIENCE_S)  # the loop stands still here, on purpose
        await asyncio.to_thread(dialling.join)


async def test_a_stuck_hub_does_not_stop_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greenswitch_engine, "CLOSE_S", 0.1)
    monkeypatch.setattr(greenswitch_engine, "ABORT_S", 0.1)
    async with engine() as running:
        _, leg, sink = await running.call()
        stuck, go_on = threading.Event(), threading.Event()

        def block() -> None:
            stuck.set()
            go_on.wait(PATIENCE_S)

        running.server._hub.call_soon(block)
        await asyncio.to_thread(stuck.wait, PATIENCE_S)
        try:
            with pytest.raises(ReplyTimeout):
                await leg.command(Raw("noevents"), timeout_s=0.05)
            await running.server.aclose()
            assert sink.closed == ["we let go"]
            assert leg.closed
        finally:
            go_on.set()
        await asyncio.to_thread(running.server._hub._thread.join, PATIENCE_S)  # type: ignore[union-attr]
        assert not running.server._hub.alive


async def test_an_error_in_a_greenlet_reaches_asyncio_and_ends_its_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    run = CallApplication.run

    def broken(self: CallApplication) -> None:
        if self._session.uuid == "broken":
            raise RuntimeError("broken on purpose")
        run(self)

    monkeypatch.setattr(CallApplication, "run", broken)
    async with engine() as running:
        _, good, _ = await running.call("good")
        peer = await running.dial("broken")
        await running.door.leg()
        await running.door.sinks["broken"].saw("closed")
        assert [str(context["exception"]) for context in running.faults] == ["broken on purpose"]
        running.faults.clear()
        await peer.ended.wait()
        assert await good.api("status") == "+OK"


async def test_the_keep_alive_loop_asks_at_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Semaphore(0)
    original = OutboundSession.raise_if_disconnected

    def spied(self: Any) -> None:
        asked.release()
        original(self)

    monkeypatch.setattr(OutboundSession, "raise_if_disconnected", spied)
    async with engine(interval_s=0.001) as running:
        await running.call()
        for _ in range(3):
            assert await asyncio.to_thread(asked.acquire, timeout=PATIENCE_S)


async def test_closing_lets_go_of_every_channel_and_ends_the_thread() -> None:
    async with engine() as running:
        calls = [await running.call(f"call {number}") for number in range(5)]
        waiting = await running.dial("connecting", connect=lambda command: b"")
        await waiting.got("connect")
        await running.server.aclose()
        for peer, leg, sink in calls:
            assert sink.seen == ["closed"]
            assert leg.closed
            await peer.got("exit")
        await waiting.ended.wait()
        assert not running.server._hub.alive
        await running.server.aclose()


async def test_closing_does_not_wait_for_a_switch_that_never_says_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greenswitch_engine, "CLOSE_S", 0.05)
    async with engine() as running:
        peer, _, sink = await running.call(exit=lambda command: b"")
        await running.server.aclose()
        assert sink.seen == ["closed"]
        await peer.ended.wait()


async def test_nothing_outlives_its_call() -> None:
    sessions: list[weakref.ref[MendedSession]] = []
    legs: list[weakref.ref[Any]] = []
    async with engine() as running:
        for number in range(50):
            peer, leg, sink = await running.call(f"call {number}")
            legs.append(weakref.ref(leg))
            sessions.extend(weakref.ref(pipe._session) for pipe in running.server._relays if pipe._session is not None)
            peer.hang_up()
            await sink.saw("CHANNEL_HANGUP_COMPLETE")
            leg.notify_session_ended("over")
            await sink.saw("closed")
        async with asyncio.timeout(PATIENCE_S):
            while len(running.server):
                running.server._left.clear()
                await running.server._left.wait()
        await running.server._hub.call(bool, timeout_s=PATIENCE_S)  # the hub is done with what it was doing then
        running.door.sinks.clear()
        del leg, sink, peer
        gc.collect()
        assert [ref for ref in legs if ref() is not None] == []
        assert [ref for ref in sessions if ref() is not None] == []
