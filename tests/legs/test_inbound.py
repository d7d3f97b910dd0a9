"""The switch's own event socket: logged in, supervised, and no answer ever reaches who did not ask."""

import asyncio
import contextlib
import gc
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.links import PASSWORD, link_to, linked

from dueto.errors import CommandRefused, DuetoError, LegClosed, LocalProtocolError, RemoteProtocolError, ReplyTimeout
from dueto.legs.esl_inbound import DEAD_S, MAX_WAITING, OPEN_S, InboundLink, parse_channels
from dueto.sim import Access, Caller, Endpoint, Faults, Switch, User, pipe, run_virtual
from dueto.wire.esl.switch_end import encode_api_response, encode_goodbye, encode_reply


class Noted(list[tuple[str, Mapping[str, object]]]):
    """A journal to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        self.append((event, fields))
        self.more.set()

    async def until(self, event: str) -> Mapping[str, object]:
        while event not in [name for name, _ in self]:
            self.more.clear()
            await self.more.wait()
        return next(fields for name, fields in self if name == event)


async def test_it_logs_in_over_tcp_and_finds_the_channels() -> None:
    async with Switch(control="") as switch:
        port = await switch.listen_inbound(access=Access(PASSWORD))
        link = InboundLink("127.0.0.1", port, PASSWORD)
        assert not link.up
        await link.aclose()  # of one that was never started
        ups: list[int] = []
        link.on_up(lambda: ups.append(1))
        link.start()
        link.start()
        async with asyncio.timeout(10):
            await link.wait_up()
            call = await switch.place(Caller("1001"))
            assert await link.exists(call.unique_id)
            assert [(row.unique_id, row.caller_number) for row in await link.channels()] == [(call.unique_id, "1001")]
            assert await link.api("uuid_kill", call.unique_id) == "+OK"
            await call.done()
            assert not await link.exists(call.unique_id)
        assert (link.up, ups) == (True, [1])
        await link.aclose()
        await link.aclose()
        assert not link.up


async def test_a_user_logs_in_with_userauth() -> None:
    async with Switch(control="") as switch:
        access = Access("other", users=(User("dueto@example.org", PASSWORD),))
        port = await switch.listen_inbound(access=access)
        link = InboundLink("127.0.0.1", port, PASSWORD, user="dueto@example.org")
        link.start()
        async with asyncio.timeout(10):
            await link.wait_up()
            assert await link.api("module_exists", "mod_event_socket") == "true"
        await link.aclose()


@pytest.mark.parametrize(("access", "word"), [(Access("another"), "password"), (Access(PASSWORD, reject=True), "acl")])
async def test_who_is_not_let_in_is_told_why_in_a_sentence(access: Access, word: str) -> None:
    noted = Noted()
    async with Switch(control="") as switch:
        port = await switch.listen_inbound(access=access)
        link = InboundLink("127.0.0.1", port, PASSWORD, journal=noted)
        link.start()
        async with asyncio.timeout(10):
            reason = str((await noted.until("switch_refused"))["reason"])
        assert word in reason
        assert PASSWORD not in reason
        with pytest.raises(LegClosed):
            await link.api("status")
        await link.aclose()


async def test_a_user_who_may_not_have_our_events_is_told_which() -> None:
    noted = Noted()
    async with Switch(control="") as switch:
        access = Access("other", users=(User("dueto@example.org", PASSWORD, events=("CHANNEL_CREATE",)),))
        port = await switch.listen_inbound(access=access)
        link = InboundLink("127.0.0.1", port, PASSWORD, user="dueto@example.org", journal=noted)
        link.start()
        async with asyncio.timeout(10):
            assert "BACKGROUND_JOB" in str((await noted.until("switch_refused"))["reason"])
        await link.aclose()


def test_a_lost_connection_comes_back_and_whoever_waited_is_told() -> None:
    async def scene() -> None:
        noted = Noted()
        ups: list[int] = []
        async with Switch(control="") as switch:
            link = link_to(switch, faults=Faults(control_reset_after_s=3.0), journal=noted)
            link.on_up(lambda: ups.append(1))
            link.start()
            await link.wait_up()
            with pytest.raises(LegClosed):
                await link.job("msleep", "60000", timeout_s=30.0)
            await noted.until("switch_down")
            await link.wait_up()
            assert len(ups) == 2
            assert await link.api("status")
            await link.aclose()

    run_virtual(scene())


def test_the_waits_between_attempts_grow_and_one_cause_is_told_once() -> None:
    async def scene() -> None:
        noted = Noted()
        at: list[float] = []
        loop = asyncio.get_running_loop()

        async def refused(protocol: asyncio.Protocol) -> None:
            at.append(loop.time())
            raise ConnectionRefusedError(111, "Connection refused")

        link = InboundLink("switch", 8021, "x", connect=refused, journal=noted)
        link.start()
        await asyncio.sleep(300)
        await link.aclose()
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert gaps[0] < 0.5
        assert 20 < gaps[-1] < 40
        assert [name for name, _ in noted] == ["switch_down"]

    run_virtual(scene())


def test_a_link_that_stood_comes_back_soon_and_each_loss_is_told() -> None:
    async def scene() -> None:
        noted = Noted()
        ups: list[int] = []
        async with Switch(control="") as switch:
            link = link_to(switch, faults=Faults(control_reset_after_s=3.0), journal=noted)
            link.on_up(lambda: ups.append(1))
            link.start()
            await asyncio.sleep(60)
            await link.aclose()
        assert len(ups) >= 15  # the wait did not grow
        assert len([name for name, _ in noted if name == "switch_down"]) >= 14

    run_virtual(scene())


def test_a_switch_that_does_not_let_us_in_is_not_asked_every_moment() -> None:
    async def scene() -> None:
        asked: list[int] = []
        async with Switch(control="") as switch:

            async def connect(protocol: asyncio.Protocol) -> None:
                asked.append(1)
                pipe(protocol, switch.inbound(Access("another"), Faults()))

            link = InboundLink("switch", 8021, "x", connect=connect)
            link.start()
            await asyncio.sleep(100)
            await link.aclose()
        assert 3 <= len(asked) <= 5  # every 30 s, give or take a quarter

    run_virtual(scene())


def test_a_switch_that_owes_nothing_may_be_silent_for_any_time() -> None:
    async def scene() -> None:
        ups: list[int] = []
        async with Switch(control="") as switch:
            link = link_to(switch)
            link.on_up(lambda: ups.append(1))
            link.start()
            await link.wait_up()
            await link.api("status")
            await asyncio.sleep(3 * DEAD_S)
            assert ups == [1]
            await link.aclose()

    run_virtual(scene())


def test_a_switch_that_answers_the_first_of_two_and_no_more_is_dead() -> None:
    async def scene() -> None:
        noted = Noted()

        async def connect(protocol: asyncio.Protocol) -> None:
            pipe(protocol, Scripted([*WELCOME, encode_api_response(b"true")]))

        link = InboundLink("switch", 8021, "x", connect=connect, journal=noted)
        link.start()
        await link.wait_up()
        first, second = (asyncio.ensure_future(link.exists("x")) for _ in range(2))
        assert await first
        with pytest.raises(ReplyTimeout):
            await second
        async with asyncio.timeout(2 * DEAD_S):
            assert "no reply" in str((await noted.until("switch_down"))["reason"])
        await link.aclose()

    run_virtual(scene())


def test_a_switch_that_is_only_slow_is_waited_for() -> None:
    async def scene() -> None:
        noted = Noted()
        slow = Scripted([*WELCOME])

        async def connect(protocol: asyncio.Protocol) -> None:
            pipe(protocol, slow)

        link = InboundLink("switch", 8021, "x", connect=connect, journal=noted)
        link.start()
        await link.wait_up()
        asking = asyncio.ensure_future(link.api("uuid_exists", "x", timeout_s=2 * DEAD_S))
        await asyncio.sleep(DEAD_S - 1)
        slow._transport.write(encode_api_response(b"true"))
        assert await asking == "true"
        await asyncio.sleep(2 * DEAD_S)
        assert [name for name, _ in noted] == ["switch_up"]
        await link.aclose()

    run_virtual(scene())


@pytest.mark.parametrize("ask", [InboundLink.api, InboundLink.job])
async def test_a_reply_that_refuses_the_command_is_told_as_such(ask: Callable[..., Awaitable[str]]) -> None:
    async def connect(protocol: asyncio.Protocol) -> None:
        pipe(protocol, Scripted([*WELCOME, encode_reply("-ERR permission denied")]))

    link = InboundLink("switch", 8021, "x", connect=connect)
    link.start()
    async with asyncio.timeout(10):
        await link.wait_up()
        with pytest.raises(CommandRefused, match="permission denied"):
            await ask(link, "uuid_exists", "x")
        assert link.up
    await link.aclose()


async def test_lines_of_the_log_are_passed_over() -> None:
    noted = Noted()
    log = b"Content-Type: log/data\nContent-Length: 2\n\nhi"

    async def connect(protocol: asyncio.Protocol) -> None:
        pipe(protocol, Scripted([*WELCOME, log + encode_api_response(b"true") + log]))

    link = InboundLink("switch", 8021, "x", connect=connect, journal=noted)
    link.start()
    async with asyncio.timeout(10):
        await link.wait_up()
        assert await link.exists("x")
    await asyncio.sleep(0)
    assert link.up
    await link.aclose()
    assert [name for name, _ in noted] == ["switch_up"]


def test_a_switch_that_owes_a_reply_for_too_long_is_dead() -> None:
    async def scene() -> None:
        noted = Noted()
        async with Switch(control="") as switch:
            link = link_to(switch, faults=Faults(half_open="control", half_open_after_s=5.0), journal=noted)
            link.start()
            await link.wait_up()
            await asyncio.sleep(6)
            asked = asyncio.get_running_loop().time()
            with pytest.raises(ReplyTimeout):
                await link.api("status", timeout_s=1.0)
            assert "no reply" in str((await noted.until("switch_down"))["reason"])
            assert asyncio.get_running_loop().time() - asked < 2 * DEAD_S
            await link.aclose()

    run_virtual(scene())


def test_a_dead_switch_is_found_out_however_much_is_asked_of_it() -> None:
    async def scene() -> None:
        noted = Noted()
        loop = asyncio.get_running_loop()
        async with Switch(control="") as switch:
            link = link_to(switch, faults=Faults(half_open="control", half_open_after_s=5.0), journal=noted)
            link.start()
            await link.wait_up()
            await asyncio.sleep(6)
            asked = loop.time()
            while "switch_down" not in [name for name, _ in noted]:
                with contextlib.suppress(ReplyTimeout, LegClosed):
                    await link.api("status", timeout_s=1.0)
                await asyncio.sleep(1)
                assert loop.time() - asked < 2 * DEAD_S
            await link.aclose()

    run_virtual(scene())


def test_a_slow_command_goes_as_a_job_and_holds_nobody_up() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with Switch(control="") as switch, linked(switch) as link:
            slow = asyncio.ensure_future(link.api("msleep", "3000"))
            await asyncio.sleep(0.1)
            before = loop.time()
            await link.exists("nobody")
            assert loop.time() - before < 0.2
            assert await slow == "+OK"

    run_virtual(scene())


def test_a_cancelled_commands_reply_never_reaches_the_next() -> None:
    async def scene() -> None:
        async with Switch(control="") as switch, linked(switch, faults=Faults(reply_delay_s=0.5)) as link:
            first = asyncio.ensure_future(link.api("uuid_getvar", "nobody x"))
            await asyncio.sleep(0.1)
            first.cancel()
            assert await link.exists("nobody") is False
            with pytest.raises(ReplyTimeout):
                await link.api("module_exists", "mod_event_socket", timeout_s=0.1)
            assert await link.exists("nobody") is False

    run_virtual(scene())


def test_originate_is_a_job_with_the_switchs_own_cause() -> None:
    async def scene() -> None:
        endpoints = {"user/1": Endpoint("busy", answer_after_s=1.0), "user/2": Endpoint("answers")}
        async with Switch(control="", endpoints=endpoints) as switch, linked(switch) as link:
            with pytest.raises(CommandRefused, match="USER_BUSY"):
                await link.job("originate", "{origination_uuid=aaaa}user/1 &park()")
            assert await link.job("originate", "{origination_uuid=bbbb}user/2 &park()") == "+OK bbbb"
            assert await link.exists("bbbb")

    run_virtual(scene())


def test_events_of_a_watched_channel_come_and_stop_coming() -> None:
    async def scene() -> None:
        async with Switch(control="") as switch, linked(switch) as link:
            seen: list[str] = []
            call = await switch.place(Caller())
            other = await switch.place(Caller())
            stop = link.watch(call.unique_id, lambda event: seen.append(event.name))
            await asyncio.sleep(0.1)
            other.hang_up()
            call.hang_up()
            await call.released()
            await asyncio.sleep(0.1)
            stop()
            assert seen == ["CHANNEL_HANGUP_COMPLETE"] or seen[-1] == "CHANNEL_HANGUP_COMPLETE"
            assert seen.count("CHANNEL_HANGUP_COMPLETE") == 1

    run_virtual(scene())


@settings(max_examples=40, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            st.sampled_from(["api", "job", "exists"]),
            st.integers(0, 40),
            st.sampled_from([0.05, 0.5, 5.0]),
            st.integers(0, 3),
        ),
        max_size=30,
    ),
    delay_ms=st.sampled_from([0, 30, 200]),
    reset_s=st.sampled_from([None, 1.0, 2.5]),
)
def test_every_answer_reaches_who_asked(
    data: list[tuple[str, int, float, int]], delay_ms: int, reset_s: float | None
) -> None:
    """Commands under delays, time-outs, cancellations and resets: an answer, a typed error, never another's answer."""

    async def ask(link: InboundLink, number: int, kind: str, timeout_s: float) -> None:
        with contextlib.suppress(LegClosed, ReplyTimeout):
            if kind == "exists":
                assert await link.exists(f"none-{number}") is False
            elif kind == "job":
                assert await link.job("echo", f"tag-{number}", timeout_s=timeout_s) == f"tag-{number}"
            else:  # an echo is not known to be quick, yet this is about the order of replies
                assert await link.api("uuid_getvar", f"{UUID} tag_{number}", timeout_s=timeout_s) == f"value-{number}"

    async def scene() -> None:
        faults = Faults(reply_delay_s=delay_ms / 1000, control_reset_after_s=reset_s)
        async with Switch(control="") as switch:
            variables = tuple((f"tag_{number}", f"value-{number}") for number in range(len(data)))
            await switch.place(Caller(unique_id=UUID, variables=variables))
            async with linked(switch, faults=faults) as link:
                tasks = []
                for number, (kind, wait_ms, timeout_s, cancelled) in enumerate(data):
                    await asyncio.sleep(wait_ms / 1000)
                    task = asyncio.ensure_future(ask(link, number, kind, timeout_s))
                    tasks.append(task)
                    if cancelled == 3:
                        asyncio.get_running_loop().call_later(0.02, task.cancel)
                async with asyncio.timeout(120):
                    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert not [one for one in outcomes if one and not isinstance(one, asyncio.CancelledError)], outcomes

    run_virtual(scene())


UUID = "11111111-1111-4111-8111-111111111111"


class Scripted(asyncio.Protocol):
    """A peer that answers each command with the next of `answers`."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(b"Content-Type: auth/request\n\n")

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\n\n")):
            if self._answers:
                self._transport.write(self._answers.pop(0))


WELCOME = (encode_reply("+OK accepted"), encode_reply("+OK event listener enabled plain"))


@pytest.mark.parametrize(
    ("nonsense", "reason"),
    [
        (b"Content-Type: no/such-thing\n\n", "protocol error: block of unknown Content-Type"),
        (b"Content-Type: api/response\nContent-Length: -4\n\n", "protocol error: Content-Length is no number"),
        (b"no colon\n\n", "protocol error: header line without a colon"),
        (encode_goodbye(), "the switch said goodbye"),
        (encode_api_response(b"1") + encode_api_response(b"2"), "protocol error: a reply to no command"),
    ],
)
async def test_nonsense_ends_the_connection_typed_and_what_came_before_it_counts(nonsense: bytes, reason: str) -> None:
    noted = Noted()
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    hangup = b"Event-Name: CHANNEL_HANGUP_COMPLETE\nUnique-ID: " + UUID.encode() + b"\n\n"
    event = b"Content-Length: %d\nContent-Type: text/event-plain\n\n%b" % (len(hangup), hangup)
    answers = [*WELCOME, event + nonsense]
    server = await asyncio.get_running_loop().create_server(lambda: Scripted(answers), "127.0.0.1", 0)
    link = InboundLink("127.0.0.1", server.sockets[0].getsockname()[1], "x", journal=noted)
    seen: list[str] = []
    link.watch(UUID, lambda event: seen.append(event.name))
    link.start()
    async with asyncio.timeout(10):
        await link.wait_up()
        with contextlib.suppress(DuetoError):
            await link.api("uuid_exists", "x")
        assert str((await noted.until("switch_down"))["reason"]).startswith(reason)
    await link.aclose()
    server.close()
    assert seen == ["CHANNEL_HANGUP_COMPLETE"]
    assert complaints == []


class HangsUp(Scripted):
    """A peer that sends its last answer and is gone."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._answers:
            self._transport.close()


@pytest.mark.parametrize("answers", [[b""], [WELCOME[0], b""]], ids=["at the log-in", "at the events"])
async def test_a_switch_that_hangs_up_in_the_log_in_is_told_and_asked_again_soon(answers: list[bytes]) -> None:
    noted = Noted()
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    came: list[None] = []
    again = asyncio.Event()

    def comes() -> asyncio.Protocol:
        came.append(None)
        if len(came) == 2:
            again.set()
        return HangsUp(list(answers))

    server = await asyncio.get_running_loop().create_server(comes, "127.0.0.1", 0)
    link = InboundLink("127.0.0.1", server.sockets[0].getsockname()[1], "x", journal=noted)
    link.start()
    async with asyncio.timeout(OPEN_S - 1):  # no deadline has to pass
        assert (await noted.until("switch_down"))["reason"] in (
            "end of stream",
            "the switch's event socket is down: end of stream",
        )
        await again.wait()
    await link.aclose()
    server.close()
    assert complaints == []


async def test_who_waits_for_a_reply_is_told_at_once_that_the_connection_ended() -> None:
    server = await asyncio.get_running_loop().create_server(lambda: HangsUp([*WELCOME, b""]), "127.0.0.1", 0)
    link = InboundLink("127.0.0.1", server.sockets[0].getsockname()[1], "x")
    link.start()
    async with asyncio.timeout(10):
        await link.wait_up()
        with pytest.raises(LegClosed, match="end of stream"):
            await link.api("uuid_exists", "x", timeout_s=60.0)
        with pytest.raises(LegClosed):  # in the same turn, before the link itself knows
            await link.api("uuid_exists", "x", timeout_s=60.0)
    await link.aclose()
    server.close()


async def test_a_reset_connection_is_told_as_what_it_was() -> None:
    class Resets(Scripted):
        def data_received(self, data: bytes) -> None:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    noted = Noted()
    server = await asyncio.get_running_loop().create_server(lambda: Resets([]), "127.0.0.1", 0)
    link = InboundLink("127.0.0.1", server.sockets[0].getsockname()[1], "x", journal=noted)
    link.start()
    async with asyncio.timeout(10):
        assert "connection lost: [Errno 104]" in str((await noted.until("switch_down"))["reason"])
    await link.aclose()
    server.close()


@pytest.mark.parametrize("stage", ["connecting", "logging in", "subscribing", "up"])
async def test_closing_at_any_stage_is_quiet(stage: str) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    there = asyncio.Event()
    answers = {"subscribing": [WELCOME[0]], "up": [*WELCOME]}.get(stage, [])

    class Told(Scripted):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._answers and (stage != "subscribing" or b"event" in data):
                there.set()

    async def connect(protocol: asyncio.Protocol) -> None:
        pipe(protocol, Told(answers))
        if stage == "connecting":
            await asyncio.Event().wait()

    link = InboundLink("switch", 8021, "x", connect=connect)
    link.start()
    async with asyncio.timeout(10):
        await there.wait()
        if stage == "up":
            await link.wait_up()
            asking = [asyncio.ensure_future(link.exists("x")) for _ in range(3)]
            await asyncio.sleep(0)
            asking[0].cancel()
        await link.aclose()
        if stage == "up":
            ends = await asyncio.gather(*asking, return_exceptions=True)
            assert [type(end) for end in ends] == [asyncio.CancelledError, LegClosed, LegClosed]
            del asking, ends
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del link
    gc.collect()  # futures complain when they go
    assert complaints == []


async def test_only_so_many_commands_may_wait_for_their_replies() -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Scripted([*WELCOME]), "127.0.0.1", 0)
    link = InboundLink("127.0.0.1", server.sockets[0].getsockname()[1], "x")
    link.start()
    async with asyncio.timeout(10):
        await link.wait_up()
        asking = [asyncio.ensure_future(link.exists("x")) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="are waiting"):
            await link.exists("x")
        await link.aclose()
        ends = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(end) for end in ends} == {LegClosed}
    with pytest.raises(LegClosed):
        await link.exists("x")
    server.close()


def test_a_switch_that_keeps_silent_before_the_log_in_is_given_up_and_asked_again() -> None:
    async def scene() -> None:
        noted = Noted()
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked: list[float] = []

        async def silent(protocol: asyncio.Protocol) -> None:
            asked.append(loop.time() - began)
            if len(asked) == 1:
                await asyncio.Event().wait()
            pipe(protocol, asyncio.Protocol())

        link = InboundLink("switch", 8021, "x", connect=silent, journal=noted)
        link.start()
        await asyncio.sleep(3 * OPEN_S)
        await link.aclose()
        assert len(asked) >= 3
        assert asked[1] == pytest.approx(OPEN_S, abs=1.0)
        assert asked[2] == pytest.approx(2 * OPEN_S, abs=2.0)
        assert noted[0][0] == "switch_down"

    run_virtual(scene())


@pytest.mark.parametrize(
    "wrong", [{"password": "x\n\napi shutdown"}, {"user": "a@b\r\n"}, {"events": ("DTMF\n\napi shutdown",)}]
)
def test_what_could_forge_a_command_is_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        InboundLink("switch", 8021, **({"password": "x"} | wrong))


def test_a_call_that_can_not_take_an_event_costs_no_other_its_hangup_and_nobody_the_link() -> None:
    async def scene() -> None:
        complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context["exception"])))

        def fails(*told: object) -> None:
            raise ValueError("a bug")

        async with Switch(control="") as switch:
            link = link_to(switch)
            ups: list[int] = []
            link.on_up(fails)
            link.on_up(lambda: ups.append(1))
            link.start()
            await link.wait_up()
            assert ups == [1]
            seen: list[str] = []
            call = await switch.place(Caller())
            link.watch(call.unique_id, fails)
            link.watch(call.unique_id, lambda event: seen.append(event.name))
            call.hang_up()
            await call.released()
            await asyncio.sleep(0.1)
            assert seen[-1] == "CHANNEL_HANGUP_COMPLETE"
            assert link.up
            assert ups == [1]
            await link.aclose()
        assert complaints == ["a bug"] * (1 + len(seen))

    run_virtual(scene())


@pytest.mark.parametrize("text", ["", "[]", "+OK", '{"rows": 3}', '{"rows":[{"no":"uuid"}]}'])
def test_what_is_no_list_of_channels_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_channels(text)


def test_an_empty_switch_has_no_channels() -> None:
    assert parse_channels('{"row_count":0}') == []
