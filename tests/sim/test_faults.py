"""Every fault does what it says, and nothing else."""

import asyncio

import pytest

from dueto.sim import Caller, Faults, Line
from dueto.wire.esl import Execute

from .scenes import Scene, play
from .twins import Server

SUBSCRIBED = (
    b"connect\n\nlinger 5\n\nmyevents\n\nevent plain CUSTOM mod_audio_stream::connect mod_audio_stream::error\n\n"
)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("first", ["media", "control"])
def test_one_leg_can_be_made_to_wait_for_the_other(first: str) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await scene.server.side()
        media, control = call.media_opened_at, call.control_opened_at
        assert (media < control) is (first == "media")

    play(act, start="dialplan", faults=Faults(first=first))  # type: ignore[arg-type]


def test_a_leg_can_be_late() -> None:
    async def act(scene: Scene) -> None:
        late_control = await scene.switch.place(faults=Faults(control_late_s=7.0))
        late_media = await scene.switch.place(faults=Faults(media_late_s=3.0))
        await asyncio.sleep(10)
        assert late_control.control_opened_at - late_control.placed_at == pytest.approx(7.0, abs=0.03)
        assert late_control.media_opened_at - late_control.placed_at < 0.03
        assert late_media.media_opened_at - late_media.placed_at == pytest.approx(3.0, abs=0.03)
        assert late_media.control_opened_at - late_media.placed_at < 0.03

    play(act, start="dialplan")


def test_a_leg_can_never_come() -> None:
    async def act(scene: Scene) -> None:
        alone = await scene.switch.place(faults=Faults(control_never=True))
        deaf = await scene.switch.place(faults=Faults(media_never=True))
        await asyncio.sleep(60)
        assert len(scene.gateways) == len(scene.server.sides) == 1
        assert (alone.control_opened_at, deaf.media_opened_at) == (0.0, 0.0)
        assert not alone.paired
        assert not deaf.paired
        kinds = scene.gateway.kinds
        assert "CUSTOM" not in kinds

    play(act, start="dialplan", opening=SUBSCRIBED, dialplan=[("park", "")])


def test_the_socket_application_can_run_again_while_the_first_connection_lives() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(control_twice_after_s=2.0))
        await asyncio.sleep(3)
        assert [gateway.blocks[0].kind for gateway in scene.gateways] == ["connect answer"] * 2
        assert not scene.gateways[0].eof
        call.hang_up()
        for gateway in scene.gateways:
            await gateway.event("CHANNEL_HANGUP_COMPLETE")

    play(act, start="dialplan")


def test_a_second_stream_can_come_for_the_same_call() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(media_twice_after_s=1.0))
        await asyncio.sleep(2)
        first, second = scene.server.sides
        assert first.url == second.url
        assert second.opened_at - first.opened_at == pytest.approx(1.0, abs=0.02)
        assert len(scene.server.frames(1)) == pytest.approx((now() - second.opened_at) * 50, abs=1.1)
        call.hang_up()
        await call.done()
        await asyncio.sleep(0.1)
        assert first.closed
        assert second.aborted

    play(act, start="dialplan", opening=SUBSCRIBED)


@pytest.mark.parametrize("faults", [Faults(split_seed=5), Faults(glue_s=0.05), Faults(split_seed=5, glue_s=0.01)])
def test_split_and_glued_bytes_say_the_same(faults: Faults) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(unique_id="u"))
        scene.gateway.send(Execute("playback", "silence_stream://100", event_uuid="p").encode())
        await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        call.hang_up()
        await call.released()
        await scene.gateway.until(lambda: scene.gateway.eof)

    plain, troubled = play(act), play(act, faults=faults)
    assert troubled.gateway.kinds == plain.gateway.kinds
    assert troubled.gateway.pieces != plain.gateway.pieces


def test_replies_can_be_late_and_events_wait_behind_them() -> None:
    async def act(scene: Scene) -> None:
        began = now()
        call = await scene.switch.place(faults=Faults(reply_delay_s=0.3))
        await call.channel.control_ready.wait()
        await scene.gateway.answered(3)
        assert now() - began == pytest.approx(0.9, abs=0.05)  # connect, linger, myevents
        began = now()
        scene.gateway.send("getvar uuid")
        call.channel.press("1", 1280, "RTP")
        await scene.gateway.event("DTMF")
        assert now() - began == pytest.approx(0.3, abs=0.01)

    play(act)


def test_the_control_leg_can_be_reset_and_the_dialplan_goes_on() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(control_reset_after_s=1.0))
        await scene.gateway.until(lambda: scene.gateway.lost)
        assert isinstance(scene.gateway.lost[0], ConnectionResetError)
        assert now() - scene.gateway.opened_at == pytest.approx(1.0, abs=0.01)
        await call.done()
        assert call.hangup_cause == "CALL_REJECTED"

    play(act, dialplan=[("hangup", "CALL_REJECTED")])


def test_the_media_leg_can_break_off_and_the_module_tells_so() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(media_reset_after_s=1.0))
        error = await scene.gateway.event("CUSTOM")  # ::connect came before the gateway had subscribed
        assert '"code":1' in error.body
        assert scene.server.sides[0].aborted
        assert call.channel.stream is None

    play(act, start="dialplan", opening=SUBSCRIBED)


@pytest.mark.parametrize("leg", ["control", "media", "both"])
def test_a_leg_can_go_dead_without_a_word(leg: str) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(half_open=leg, half_open_after_s=1.0))  # type: ignore[arg-type]
        await asyncio.sleep(2)
        frames, blocks = len(scene.server.frames()), len(scene.gateway.blocks)
        scene.gateway.send("getvar uuid")
        await asyncio.sleep(1)
        assert (len(scene.server.frames()) == frames) is (leg != "control")
        assert (len(scene.gateway.blocks) == blocks) is (leg != "media")
        call.hang_up()
        await call.done()
        await asyncio.sleep(30)
        assert (scene.gateway.eof or bool(scene.gateway.lost)) is (leg == "media")

    play(act, start="dialplan", faults=Faults())


def test_an_event_can_be_lost() -> None:
    async def act(scene: Scene) -> None:
        lost = frozenset({"CHANNEL_HANGUP", "mod_audio_stream::connect"})
        call = await scene.call(faults=Faults(lost_events=lost))
        call.hang_up()
        await scene.gateway.event("CHANNEL_HANGUP_COMPLETE")
        assert "CHANNEL_HANGUP" not in scene.gateway.kinds
        assert "CUSTOM" not in scene.gateway.kinds

    play(act, start="dialplan", opening=SUBSCRIBED)


def test_the_linger_notice_can_come_before_the_hangup() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(early_linger_notice=True))
        call.hang_up()
        await scene.gateway.event("CHANNEL_HANGUP_COMPLETE")
        assert scene.gateway.kinds.index("linger notice") < scene.gateway.kinds.index("CHANNEL_HANGUP")
        assert scene.gateway.kinds.count("linger notice") == 1

    play(act)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_without_linger_the_end_can_lack_events(kept: int) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(nolinger_events=kept))
        call.hang_up()
        await call.released()
        await scene.gateway.until(lambda: scene.gateway.eof)
        after = scene.gateway.kinds[scene.gateway.kinds.index("CHANNEL_PARK") + 1 :]
        assert after == [*["CHANNEL_HANGUP", "CHANNEL_UNPARK"][:kept], "goodbye"]

    play(act, opening=b"connect\n\nmyevents\n\n")


def test_a_slow_reader_reads_on_after_a_while() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(faults=Faults(slow_reader_after_s=1.0, slow_reader_s=5.0))
        side = await scene.server.side()
        await asyncio.sleep(2)
        assert not side.reading
        at = now()
        scene.gateway.send("getvar uuid")
        await scene.gateway.answered(5)
        assert now() - at == pytest.approx(6.0 - 2.02, abs=0.05)
        await asyncio.sleep(0.1)
        assert side.reading
        assert call.channel.up

    play(act, start="dialplan", opening=SUBSCRIBED)


def test_faults_of_one_call_do_not_touch_another() -> None:
    async def act(scene: Scene) -> None:
        troubled = await scene.switch.place(faults=Faults(control_reset_after_s=0.5, media_reset_after_s=0.5))
        calm = await scene.switch.place(Caller(script=_wait))
        await calm.done()
        assert len(scene.server.frames(1)) > 90
        assert troubled.channel.up is False

    async def _wait(line: Line) -> None:
        await line.wait(2)

    play(act, start="dialplan", server=Server())
