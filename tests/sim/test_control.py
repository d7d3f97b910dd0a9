"""The switch's end of an event socket: who speaks first, replies, queues, lingering, and what follows the gateway."""

import asyncio

import pytest

from dueto.sim import Caller, Line, PipeFaults
from dueto.wire.esl import Execute

from .recordings import Block
from .scenes import OPENING, Scene, play
from .twins import Recorder


def now() -> float:
    return asyncio.get_running_loop().time()


def ms(seconds: float) -> float:
    return round(seconds * 1000)


def test_the_switch_says_nothing_before_connect_and_leaves_after_25_s() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.switch.place()
        await call.done()
        assert scene.gateway.kinds == ["goodbye"]
        assert scene.gateway.eof
        assert 24.9 < scene.gateway.blocks[0].at - scene.gateway.opened_at < 25.1
        assert call.ended_in == "hangup"

    play(act, opening=b"", dialplan=[("hangup", "USER_BUSY")])


def test_a_first_command_other_than_connect_is_carried_out_but_not_answered() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        call.hang_up()
        await scene.gateway.until(lambda: "linger notice" in scene.gateway.kinds)

    scene = play(act, opening=b"linger 3\n\nconnect\n\nmyevents\n\n")
    assert scene.gateway.kinds[:2] == ["connect answer", "reply"]
    assert scene.gateway.replies == ["connect answer", "+OK Events Enabled"]


def test_commands_are_matched_by_prefix_whatever_the_case_and_crlf_is_taken() -> None:
    async def act(scene: Scene) -> None:
        await scene.call()
        scene.gateway.send(
            b"\r\nAPI Create_UUID\r\n\r\nMyEventsPlease\n\nnonsense\n\nLINGER abc\n\nlinger\n\nnolinger\n\n"
        )
        replies = await scene.gateway.answered(9)
        assert replies[3:] == [
            "UUID",
            "-ERR aready enabled.",
            "-ERR command not found",
            "+OK will linger 0 seconds",
            "+OK will linger",
            "+OK will not linger",
        ]

    play(act)


def test_a_sendmsg_to_its_own_channel_is_always_ok_and_to_an_unknown_one_never() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        scene.gateway.send(f"sendmsg {call.unique_id}\ncall-command: dance\n\nsendmsg nobody\n\n".encode())
        assert (await scene.gateway.answered(5))[3:] == ["+OK", "-ERR invalid session id [nobody]"]
        call.hang_up()
        await call.done()
        scene.gateway.send(b"sendmsg\n\napi uuid_exists " + call.unique_id.encode() + b"\n\n")
        assert (await scene.gateway.answered(7))[5:] == ["+OK", "false"]

    play(act)


def test_the_257th_waiting_sendmsg_costs_the_socket_but_not_the_call() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        blocker = Execute("playback", "silence_stream://1000")
        scene.gateway.send(blocker.encode())
        await scene.gateway.event("CHANNEL_EXECUTE")
        scene.gateway.send(Execute("set", "a=b").encode() * 257)
        await scene.gateway.until(lambda: scene.gateway.eof)
        assert len(scene.gateway.replies) == 3 + 1 + 256
        assert scene.gateway.kinds[-1] == "goodbye"
        assert call.channel.up
        await call.done()
        assert call.ended_in == "set"

    play(act, dialplan=[("set", "x=y")])


def test_a_slow_api_holds_replies_and_events_of_its_own_socket_back() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        began = now()
        scene.gateway.send(b"api msleep 1500\n\ngetvar uuid\n\n")
        call.channel.press("8", 1600, "RTP")
        await scene.gateway.event("DTMF")
        assert 1500 <= ms(now() - began) <= 1502
        assert scene.gateway.kinds[-3:] == ["api", "reply", "DTMF"]

    play(act)


def test_events_come_every_20_ms_counted_from_the_last_command() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await asyncio.sleep(0.1234)
        scene.gateway.send(b"getvar uuid\n\n")
        await scene.gateway.answered(4)
        at = now()
        call.channel.press("1", 1600, "RTP")
        await scene.gateway.event("DTMF")
        assert ms(now() - at) in (20, 40)

    play(act)


def test_linger_keeps_the_socket_n_to_n_plus_one_seconds() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        call.hang_up()
        await call.released()
        notice, goodbye = (_named(scene.gateway, kind) for kind in ("linger notice", "goodbye"))
        assert dict(notice.telling)["Linger-Time"] == "5"
        assert 5.0 <= goodbye.at - notice.at <= 6.0
        assert scene.gateway.eof

    play(act)


def test_linger_without_a_number_stays_until_exit() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        call.hang_up()
        await call.done()
        await asyncio.sleep(86400)
        assert not scene.gateway.eof
        assert dict(_named(scene.gateway, "linger notice").telling)["Linger-Time"] == "-1"
        scene.gateway.send("exit")
        await call.released()
        assert scene.gateway.kinds[-2:] == ["reply", "goodbye"]
        assert scene.switch.calls == {}

    play(act, opening=b"connect\n\nlinger\n\nmyevents\n\n")


def test_without_linger_the_socket_closes_when_the_channel_is_seen_to_be_down() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        call.hang_up()
        await call.released()
        assert scene.gateway.kinds[-1] == "goodbye"
        assert "linger notice" not in scene.gateway.kinds

    play(act, opening=b"connect\n\nmyevents\n\n")


@pytest.mark.parametrize("way", ["exit", "fin", "rst"])
def test_when_the_gateway_goes_the_dialplan_goes_on(way: str) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=_listen_for_tone))
        if way == "exit":
            scene.gateway.send("exit")
        elif way == "fin":
            scene.gateway.transport.close()
        else:
            scene.gateway.transport.abort()
        await call.done()
        assert call.hangup_cause == "USER_BUSY"
        assert call.ended_in == "hangup"
        assert call.channel.variables["dueto_state"] == "fallback"

    async def _listen_for_tone(line: Line) -> None:
        await line.hears_speech()
        await line.until_hangup()

    play(
        act,
        dialplan=[
            ("set", "dueto_state=fallback"),
            ("playback", "tone_stream://%(500,0,440)"),
            ("hangup", "USER_BUSY"),
        ],
    )


def test_where_nothing_follows_the_socket_the_call_ends() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        scene.gateway.send("exit")
        await call.done()
        assert (call.hangup_cause, call.ended_in) == ("NORMAL_CLEARING", "socket")

    play(act)


def test_hosts_are_tried_in_turn_and_none_means_the_dialplan_goes_on() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        assert call.channel.variables["socket_host"] == "second"

    play(act, control="first:8022|second:8022", refuse=lambda host: host == "first")

    async def nobody(scene: Scene) -> None:
        call = await scene.switch.place()
        await call.done()
        assert call.hangup_cause == "CALL_REJECTED"
        assert not call.paired

    play(nobody, refuse=lambda host: True, dialplan=[("hangup", "CALL_REJECTED")])


def test_an_inline_transfer_opens_a_second_connection_while_the_first_lives() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        scene.gateway.send(f"api uuid_transfer {call.unique_id} 'socket:127.0.0.1:8022 async full' inline")
        await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        await scene.gateway.event("CHANNEL_PARK", 2)
        assert len(scene.gateways) == 2
        scene.gateways[0].send(Execute("playback", "silence_stream://100", event_uuid="from the first").encode())
        for gateway in scene.gateways:
            assert (await gateway.event("CHANNEL_EXECUTE_COMPLETE", 2 - scene.gateways.index(gateway))).get(
                "Application-UUID"
            ) == "from the first"
        call.hang_up()
        await call.released()
        assert all(gateway.kinds[-1] == "goodbye" for gateway in scene.gateways)

    play(act)


def test_variables_are_set_singly_and_in_numbers_and_read_back() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        uid = call.unique_id
        scene.gateway.send(
            f"api uuid_setvar_multi {uid} a=1;b=two words;c=\napi uuid_getvar {uid} b\napi uuid_getvar {uid} c\n"
            f"api uuid_setvar {uid} a\napi uuid_getvar {uid} a\napi uuid_getvar nobody a\napi uuid_kill nobody"
        )
        assert (await scene.gateway.answered(10))[3:] == [
            "+OK\n",
            "two words",
            "_undef_",
            "+OK\n",
            "_undef_",
            "-ERR No such channel!\n",
            "-ERR No such channel!\n",
        ]

    play(act)


def test_the_sequence_rises_with_gaps() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await scene.switch.place()
        call.hang_up()
        await scene.gateways[0].event("CHANNEL_HANGUP_COMPLETE")

    scene = play(act)
    numbers = [block.message.sequence for block in scene.gateway.blocks if hasattr(block.message, "sequence")]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] > len(numbers)


def test_a_callers_name_with_a_forged_header_stays_one_value() -> None:
    async def act(scene: Scene) -> None:
        await scene.call(Caller("1001", "x\nUnique-ID: VICTIM\nEvent-Name: CHANNEL_HANGUP"))
        event = await scene.gateway.event("CHANNEL_PARK")
        assert event.get("Caller-Caller-ID-Name") == "x\nUnique-ID: VICTIM\nEvent-Name: CHANNEL_HANGUP"
        assert event.unique_id != "VICTIM"

    play(act)


@pytest.mark.parametrize("form", ["plain", "json", "xml"])
def test_all_formats_say_the_same(form: str) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller("1001", "Zoë <&> 100%41"))
        call.hang_up()
        await call.done()
        await scene.gateway.event("CHANNEL_HANGUP_COMPLETE")

    opening = f"connect\n\nlinger 5\n\nmyevents {form}\n\n".encode()
    scene = play(act, opening=opening)
    complete = scene.gateway.named("CHANNEL_HANGUP_COMPLETE")[0]
    assert complete.get("Caller-Caller-ID-Name") in ("Zoë <&> 100%41", "Zoë <&> 100A")
    assert complete.variable("hangup_cause") == "NORMAL_CLEARING"


def test_bytes_in_pieces_are_understood_on_both_sides() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        scene.gateway.send(Execute("playback", "silence_stream://100", event_uuid="p").encode())
        await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        call.hang_up()
        await call.released()
        assert scene.gateway.pieces > 50

    play(act, pipe_faults=PipeFaults(seed=3, split=True))


def _named(gateway: Recorder, kind: str) -> Block:
    return next(block for block in gateway.blocks if block.kind == kind)


def test_the_opening_is_answered_in_one_go() -> None:
    async def act(scene: Scene) -> None:
        await scene.call()
        first = scene.gateway.blocks[0]
        assert 5500 < len(first.message.raw) < 8000
        assert ms(first.at - scene.gateway.opened_at) == 0

    assert play(act, opening=OPENING).gateway.replies[1:] == ["+OK will linger 5 seconds", "+OK Events Enabled"]
