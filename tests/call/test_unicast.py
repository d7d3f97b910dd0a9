"""Calls over `unicast`: what is heard, how a lost stream comes back, and who is not listened to. Virtual time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from tests.call.test_switch_link import Bent, up
from tests.support.unicast import OverUnicast, samples, sweep, unicast_desk

from dueto.call import Call, Destination
from dueto.call.events import Bridged, ControlJoined, HungUp, MediaLost, MediaResumed, Unbridged
from dueto.call.placing import mint, place
from dueto.call.ports import Accept
from dueto.errors import DuetoError, Interrupted
from dueto.legs.unicast import UnicastOptions
from dueto.sim import Caller, Endpoint, Faults, Line, MemoryNetwork, SimCall, Switch, VirtualTimeLoop, run_virtual, tone

HELLO = tone(8000, 0.5, 600)
ENDPOINTS = {
    "user/1001": Endpoint(answer_after_s=1.0, hangs_up_after_s=2.0, says=tone(8000, 5.0, 900)),
    "user/busy": Endpoint("busy", answer_after_s=1.0),
}
DESTINATIONS = {
    "operator": Destination("operator", "user/1001"),
    "busy": Destination("busy", "user/busy"),
    "loopback": Destination("loopback", "loopback/m:^:answer^park/default/inline"),
}


class Doing:
    """An agent that does one thing, then listens to the end."""

    def __init__(self, what: Callable[[Call], Awaitable[Any]]) -> None:
        self.what = what
        self.runs = 0
        self.result: Any = None
        self.events: list[Any] = []
        self.heard = bytearray()
        self.done = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        self.runs += 1
        call.audio_to(self.heard.extend)
        reading = asyncio.ensure_future(self._read(call))
        self.result = await self.what(call)
        self.done.set()
        await reading

    async def _read(self, call: Call) -> None:
        async for event in call.events():
            self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


Then = Callable[[Doing, SimCall, OverUnicast, Switch], Awaitable[None]]


def scene(
    what: Callable[[Call], Awaitable[Any]],
    then: Then | None = None,
    *,
    caller: Caller | None = None,
    patience_s: float = 60.0,
    faults: Faults | None = None,
    switch: dict[str, Any] | None = None,
    link: Any = None,
    **desk: Any,
) -> tuple[Doing, SimCall, OverUnicast]:
    """Run one call whose agent does `what`, and `then` something from outside; its end is the caller's hangup."""

    async def main() -> tuple[Doing, SimCall, OverUnicast]:
        agent = Doing(what)
        async with (
            unicast_desk(agent, destinations=DESTINATIONS, switch=link, **desk) as here,
            here.switch(**({"endpoints": ENDPOINTS} | (switch or {}))) as simulated,
        ):
            call = await simulated.place(caller or Caller(), faults=faults)
            async with asyncio.timeout(patience_s):
                if then is not None:
                    await then(agent, call, here, simulated)
                else:
                    await agent.done.wait()
            call.hang_up()
            await call.over()
            await call.released()
        return agent, call, here

    return run_virtual(main())


async def nothing(call: Call) -> None:
    """Only listen."""


def loud_ms(pcm: bytes, rate_hz: int = 8000) -> int:
    """How many frames of it sound, in ms."""
    frames = samples(pcm)[: len(pcm) // 2 // (rate_hz // 50) * (rate_hz // 50)].reshape(-1, rate_hz // 50)
    return 20 * int((np.abs(frames).max(axis=1) > 600).sum())


# -- what is heard


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_a_sweep_of_ten_seconds_arrives_whole_in_order_and_as_it_was(rate_hz: int) -> None:
    spoken = sweep(rate_hz, 10.0)
    _, call, _ = scene(lambda call: call.say(spoken), caller=Caller(rate_hz=rate_hz))
    heard = samples(call.heard)
    start = int(np.flatnonzero(np.abs(heard) > 0)[0])
    whole = samples(spoken)
    assert np.array_equal(heard[start - 1 : start - 1 + len(whole)], whole)
    assert call.counters.gaps == 0


def test_what_the_caller_says_arrives_sample_by_sample() -> None:
    spoken = sweep(8000, 2.0)

    async def speaks(line: Line) -> None:
        await line.wait(0.5)
        await line.say(spoken)
        await line.wait(0.5)

    async def until_over(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await call.over()

    agent, _, _ = scene(nothing, until_over, caller=Caller(script=speaks))
    assert spoken[2:] in bytes(agent.heard)


def test_the_call_runs_at_the_rate_of_its_channel_whatever_was_announced() -> None:
    async def rate(call: Call) -> int:
        return call.rate_hz

    agent, _, _ = scene(rate, caller=Caller(rate_hz=16000, variables=(("read_rate", "8000"),)))
    assert agent.result == 16000


def test_a_caller_who_hears_nothing_of_the_agent_hears_silence_and_not_no_packets() -> None:
    async def three_seconds(call: Call) -> None:
        await asyncio.sleep(3.0)

    _, call, _ = scene(three_seconds)
    assert 140 <= call.counters.frames_down <= 152
    assert call.counters.gaps == 0
    _, call, _ = scene(three_seconds, options=UnicastOptions(idle_silence=False))
    assert call.counters.frames_down == 0


def test_silence_gives_way_to_speech_and_comes_back_without_a_gap_or_a_queue() -> None:
    async def now_and_then(call: Call) -> None:
        for _ in range(5):
            await call.say(HELLO)
            await asyncio.sleep(0.31)

    waiting: list[float] = []

    async def look(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await agent.done.wait()
        await asyncio.sleep(0.5)
        assert call.channel.unicast is not None
        waiting.append(call.channel.unicast.waiting_ms)

    _, call, _ = scene(now_and_then, look)
    assert loud_ms(call.heard) == 2500
    assert call.counters.gaps == 0
    assert waiting[0] <= 20


def test_a_cut_sentence_is_silent_within_the_lead() -> None:
    async def cut(call: Call) -> tuple[int, float]:
        saying = asyncio.ensure_future(call.say(tone(8000, 10.0, 600)))
        await asyncio.sleep(2.0)
        before = asyncio.get_running_loop().time()
        await call.stop()
        with pytest.raises(Interrupted) as told:
            await saying
        await asyncio.sleep(1.0)
        return told.value.heard_ms, before

    agent, call, _ = scene(cut)
    heard_ms, decided_at = agent.result
    assert loud_ms(call.heard) == heard_ms
    last_s = call.placed_at + (np.flatnonzero(np.abs(samples(call.heard)) > 600)[-1] + 1) / 8000
    assert last_s - decided_at <= 0.16 + 0.04


@pytest.mark.parametrize("stall_s", [0.1, 0.3])
def test_a_stall_shorter_than_the_lead_is_not_heard(stall_s: float) -> None:
    """The clock goes on while nobody runs; the switch has played the lead meanwhile, if that was enough."""

    async def stalled(call: Call) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        saying = asyncio.ensure_future(call.say(tone(8000, 5.0, 600)))
        for _ in range(4 if stall_s < 0.2 else 1):
            await asyncio.sleep(0.5)
            loop.jump(stall_s)
        await saying

    _, call, _ = scene(stalled)
    assert loud_ms(call.heard) == 5000
    if stall_s < 0.16:
        assert call.counters.gap_ms == 0
    else:  # whoever wakes first, the lead is not heard twice
        assert 0 < call.counters.gap_ms <= stall_s * 1000 - 160 + 20


def test_lost_datagrams_cost_what_they_carried_and_no_more() -> None:
    network = MemoryNetwork(lost=lambda number, data: number % 20 == 0 and number > 40)
    _, call, _ = scene(lambda call: call.say(tone(8000, 5.0, 600)), network=network)
    assert 4500 <= loud_ms(call.heard) < 5000


# -- who is heard


def test_datagrams_from_elsewhere_are_not_heard_and_counted() -> None:
    async def spoof(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("agent_started")
        session = here.desk.desk.find(call.unique_id)
        assert session is not None
        leg: Any = session.media
        offer = leg.offer
        ours = (offer.remote_ip, offer.remote_port)
        for stranger in (("127.0.0.1", offer.local_port + 1), ("127.0.0.2", offer.local_port)):
            thief = await here.network.open(asyncio.DatagramProtocol(), *stranger)
            for _ in range(10):
                thief.sendto(tone(8000, 0.02, 1000), ours)
            thief.close()
        await asyncio.sleep(0.5)
        assert leg.refused == 20
        assert leg.datagrams >= 20

    agent, _, here = scene(nothing, spoof)
    assert not np.abs(samples(bytes(agent.heard))).max() > 600
    refusals = [fields for _, name, fields in here.desk.journal if name == "refused"]
    assert [fields["reason"] for fields in refusals] == ["other_source"]


def test_datagrams_of_another_size_are_dropped_and_counted() -> None:
    async def odd(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("agent_started")
        session = here.desk.desk.find(call.unique_id)
        assert session is not None
        leg: Any = session.media
        before = leg.datagrams
        for size in (0, 1, 319, 321, 640, 4000):
            leg.datagram_received(b"\x40" * size, (leg.offer.local_ip, leg.offer.local_port))
        assert (leg.odd, leg.datagrams) == (6, before)

    scene(nothing, odd)


# -- a port that is busy


@pytest.mark.parametrize("busy", [1, 2])
def test_a_busy_port_on_the_switch_costs_a_moment_and_another_port(busy: int) -> None:
    _, call, here = scene(lambda call: call.say(HELLO), faults=Faults(unicast_busy=busy))
    assert here.desk.names().count("unicast_unanswered") == busy
    assert loud_ms(call.heard) == 500


def test_without_a_stream_after_three_tries_the_call_goes_back_to_its_dialplan() -> None:
    async def over(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await call.over()

    agent, call, here = scene(
        nothing, over, faults=Faults(unicast_busy=9), switch={"dialplan": [("sleep", "100"), ("hangup", "")]}
    )
    assert agent.runs == 0
    assert call.channel.variables["dueto_result"] == "no_media"
    assert "unicast_failed" in here.desk.names()


def test_a_channel_that_rings_gets_early_media_first() -> None:
    _, call, _ = scene(lambda call: call.say(HELLO), switch={"answer": False})
    assert loud_ms(call.heard) == 500
    names = [happening.name for happening in call.events]
    assert names.index("CHANNEL_PROGRESS_MEDIA") < names.index("unicast")


# -- away and back


def test_a_bridge_out_and_back_with_the_agent_going_on() -> None:
    async def transfer(call: Call) -> Any:
        await call.say(HELLO)
        result = await call.transfer("operator")
        await call.wait_for(Unbridged)
        await call.say(HELLO)
        return result

    agent, call, here = scene(transfer)
    assert agent.result.ok
    assert agent.runs == 1
    assert [kind for kind in agent.kinds if kind != "HungUp"] == ["Bridged", "Unbridged"]
    assert here.desk.names().count("control_connected") == 2
    assert here.desk.names().count("media_connected") == 2
    assert loud_ms(call.heard) == 500 + 2000 + 500
    frequencies = [_pitch(piece) for piece in _pieces(call.heard)]
    assert frequencies == [600, 900, 600]


def test_a_transfer_that_meets_busy_leaves_the_caller_with_an_agent_who_is_heard() -> None:
    async def transfer(call: Call) -> Any:
        result = await call.transfer("busy")
        await call.say(HELLO)
        return result

    agent, call, here = scene(transfer)
    assert agent.result.outcome == "busy"
    assert loud_ms(call.heard) == 500
    assert "MediaLost" not in agent.kinds
    assert here.desk.names().count("media_connected") == 2


def test_what_the_switch_plays_comes_between_and_the_stream_comes_back() -> None:
    async def play(call: Call) -> int:
        await call.say(HELLO)
        ms = await call.play("tone_stream://%(400,0,900)")
        await call.say(HELLO)
        return ms

    agent, call, _ = scene(play)
    assert agent.result == 400
    assert [_pitch(piece) for piece in _pieces(call.heard)] == [600, 900, 600]
    assert loud_ms(call.heard) == 1400


def test_what_is_said_while_something_plays_waits_for_it() -> None:
    async def both(call: Call) -> None:
        playing = asyncio.ensure_future(call.play("tone_stream://%(1000,0,900)"))
        await asyncio.sleep(0.3)
        await call.say(HELLO)
        await playing

    _, call, _ = scene(both)
    assert [_pitch(piece) for piece in _pieces(call.heard)] == [900, 600]
    assert loud_ms(call.heard) == 1500


@pytest.mark.parametrize(("application", "streams"), [("set", 1), ("sleep", 1), ("playback", 2)])
def test_an_application_costs_a_new_stream_only_if_it_ends_the_old_one(application: str, streams: int) -> None:
    argument = {"set": "a=b", "sleep": "100", "playback": "silence_stream://100"}[application]

    async def execute(call: Call) -> None:
        await call.execute(application, argument)
        await call.say(HELLO)

    _, call, here = scene(execute)
    assert loud_ms(call.heard) == 500
    assert here.desk.names().count("media_connected") == streams


def test_a_stream_that_somebody_else_ended_is_had_again_and_the_agent_is_told_once() -> None:
    async def talk(call: Call) -> None:
        await call.wait_for(MediaLost)
        await call.wait_for(MediaResumed)
        await call.say(HELLO)

    async def broadcast(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("agent_started")
        await asyncio.sleep(0.5)
        session = here.desk.desk.find(call.unique_id)
        assert session is not None
        await session.api("uuid_broadcast", f"{call.unique_id} silence_stream://100")
        await agent.done.wait()

    agent, call, _ = scene(talk, broadcast)
    assert [kind for kind in agent.kinds if kind != "HungUp"] == ["MediaLost", "MediaResumed"]
    assert loud_ms(call.heard) == 500
    assert agent.runs == 1


def test_what_was_cut_while_the_stream_was_away_is_not_said_again() -> None:
    async def cut(call: Call) -> None:
        saying = asyncio.ensure_future(call.say(tone(8000, 5.0, 600)))
        await asyncio.sleep(1.5)
        await call.stop()
        with pytest.raises(Interrupted):
            await saying
        await call.say(tone(8000, 0.5, 900))

    _, call, here = scene(cut, faults=Faults(media_reset_after_s=1.0))
    assert "media_resumed" in here.desk.names()
    pieces = _pieces(call.heard)
    assert [_pitch(piece) for piece in pieces] == [600, 900]
    assert len(pieces[1]) == 8000


def test_a_sentence_in_the_middle_of_which_the_stream_was_lost_is_heard_to_its_end_before_it_counts_as_heard() -> None:
    async def say(call: Call) -> float:
        await call.say(tone(8000, 3.0, 600))
        return asyncio.get_running_loop().time()

    agent, call, _ = scene(say, faults=Faults(media_reset_after_s=1.0))
    assert loud_ms(call.heard) == 3000
    last_s = call.placed_at + (np.flatnonzero(np.abs(samples(call.heard)) > 600)[-1] + 1) / 8000
    assert -0.02 <= agent.result - last_s <= 0.06


def test_a_channel_that_was_sent_elsewhere_is_not_fetched_back() -> None:
    async def elsewhere(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("agent_started")
        session = here.desk.desk.find(call.unique_id)
        assert session is not None
        await session.api("uuid_transfer", f"{call.unique_id} 'playback:silence_stream://20000,hangup:' inline")
        await here.desk.desk.empty()
        assert call.channel.up
        assert here.desk.names().count("control_connected") == 1

    agent, _, _ = scene(nothing, elsewhere)
    assert isinstance(agent.events[-1], HungUp)


@pytest.mark.parametrize("digit", ["1", "2"])
def test_an_announced_transfer_with_the_switchs_music_meanwhile(digit: str) -> None:
    async def transfer(call: Call) -> Any:
        result = await call.transfer(
            "loopback",
            mode="announced",
            announce=HELLO,
            accept=Accept(prompt=""),
            ringback="tone_stream://%(500,0,900);loops=-1",
        )
        if not result.ok:
            await call.say(HELLO)
        return result

    async def decide(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("announcing")
        other = next(c for c in switch.calls.values() if c is not call)
        await here.desk.until_noted("said")
        other.channel.press(digit, 1280, "RTP")
        await agent.done.wait()
        assert loud_ms(other.heard) == 500
        if digit == "1":
            await asyncio.sleep(0.5)
            assert call.channel.peer is other.channel
        other.hang_up()

    agent, call, _ = scene(transfer, decide)
    assert agent.result.outcome == {"1": "bridged", "2": "declined"}[digit]
    if digit == "2":
        assert [_pitch(piece) for piece in _pieces(call.heard)] == [900, 600]


@pytest.mark.parametrize("fails", [False, True])
def test_an_attended_transfer_over_a_leg_of_the_agents_own(fails: bool) -> None:
    """All three talk in a conference; then the two stay together, or the caller is the agent's again."""
    other_says = tone(8000, 20.0, 1700)
    heard: list[bytes] = []

    async def talks(line: Line) -> None:
        await line.say(other_says)
        await line.until_hangup()

    async def introduce(call: Call) -> None:
        stop = call.audio_to(heard.append)
        await call.say(tone(8000, 0.6, 1300))
        await asyncio.sleep(0.5)
        stop()
        if fails:
            raise LookupError("nothing to say")

    async def transfer(call: Call) -> Any:
        accept = Accept(prompt="", silence="accept", within_s=0.2)
        result = None
        with contextlib.suppress(LookupError):
            result = await call.transfer("operator", mode="attended", accept=accept, introduce=introduce)
        if fails:
            await call.say(tone(8000, 0.5, 900))
        return result

    async def look(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await agent.done.wait()
        await asyncio.sleep(1.5)
        assert call.channel.up
        if not fails:
            others = [other for other in switch.calls.values() if other is not call]
            assert [other.channel for other in others] == [call.channel.peer], "the agent's leg is gone"

    agent, call, here = scene(transfer, look, switch={"endpoints": {"user/1001": Endpoint("answers", script=talks)}})
    assert agent.runs == 1
    meeting = b"".join(heard)
    assert _has(meeting, 1700), "the agent hears the other side"
    assert _has(call.heard, 1300), "the caller hears the agent in the conference"
    if fails:
        assert _pitch(_pieces(call.heard)[-1]) == 900, "the caller is the agent's again"
        assert here.desk.names(call.unique_id).count("media_connected") == 3
    else:
        assert agent.result.ok
        assert _pitch(call.heard[-8000:]) == 1700, "the two go on without the agent"


@pytest.mark.parametrize("first", ["during the bridge", "during the return"])
def test_a_hangup_at_any_moment_of_the_way_back_leaves_nothing(first: str) -> None:
    async def transfer(call: Call) -> None:
        await call.transfer("operator")

    async def hang_up(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("bridged")
        if first == "during the return":
            await here.desk.until_noted("unbridged")

    agent, _, _ = scene(transfer, hang_up)
    assert isinstance(agent.events[-1], HungUp)


def test_a_second_control_leg_of_whatever_origin_gets_the_stream() -> None:
    async def again(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("media_connected", times=2)
        await asyncio.sleep(0.1)

    agent, _, _ = scene(nothing, again, faults=Faults(control_twice_after_s=1.0))
    assert agent.runs == 1
    assert "MediaLost" not in agent.kinds


def test_a_gateway_without_an_address_to_come_back_to_says_so() -> None:
    from dueto.call.house import Whereabouts

    async def play(call: Call) -> None:
        await call.play("silence_stream://100")

    async def over(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await call.over()

    agent, call, here = scene(
        play, over, whereabouts=Whereabouts(""), switch={"dialplan": [("sleep", "100"), ("hangup", "")]}
    )
    why = [fields["reason"] for _, name, fields in here.desk.journal if name == "unicast_failed"]
    assert any("public_address" in str(reason) for reason in why)
    assert call.channel.variables["dueto_result"] == "no_media"
    assert agent.events[0] == MediaLost()


def test_no_port_is_left_of_a_hundred_calls_on_sixty_ports_more_than_needed() -> None:
    async def main() -> None:
        agents = Doing(lambda call: call.say(HELLO))
        async with (
            unicast_desk(agents, options=UnicastOptions(ports=(12000, 12259))) as here,
            here.switch() as switch,
        ):
            calls = [await switch.place(Caller()) for _ in range(100)]
            await here.desk.until_noted("said", times=100)
            assert len(here.door) == 200
            for call in calls:
                call.hang_up()
            for call in calls:
                await call.over()

    run_virtual(main())


def _pieces(heard: bytes) -> list[bytes]:
    """Cut what was heard at silences of 40 ms or more; what is shorter than 100 ms is no piece."""
    pieces: list[bytes] = []
    piece, quiet = bytearray(), 0
    for at in range(0, len(heard), 320):
        frame = heard[at : at + 320]
        if np.abs(samples(frame)).max(initial=0) > 600:
            piece += frame
            quiet = 0
        elif (quiet := quiet + 1) >= 2 and piece:
            pieces.append(bytes(piece))
            piece = bytearray()
    return [found for found in (*pieces, bytes(piece)) if len(found) >= 1600]


def _pitch(pcm: bytes) -> int:
    """Return the loudest frequency, to 50 Hz."""
    spectrum = np.abs(np.fft.rfft(samples(pcm)))
    return int(round(np.argmax(spectrum) * 8000 / (len(pcm) // 2) / 50) * 50)


def test_the_other_party_is_told_of_as_bridged() -> None:
    """The event of the bridge names the leg, as on every other dialect."""

    async def transfer(call: Call) -> Any:
        return await call.transfer("operator")

    agent, call, _ = scene(transfer)
    assert any(isinstance(event, Bridged) and event.other_id == call.bridged_to for event in agent.events)


def _has(pcm: bytes, hz: int) -> bool:
    """Whether a frequency stands out in some 200 ms of it."""
    for at in range(0, len(pcm) - 3200, 1600):
        spectrum = np.abs(np.fft.rfft(samples(pcm[at : at + 3200]) * np.hanning(1600)))
        if spectrum[hz // 5] > 20 * np.median(spectrum) + 1000:
            return True
    return False


# -- the ends of the control leg


def test_a_lost_control_leg_is_had_again_and_the_stream_with_it() -> None:
    link = Bent()

    async def talk(call: Call) -> None:
        await call.wait_for(ControlJoined, timeout_s=20)
        await call.say(HELLO)

    async def lose(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await up(link, switch)
        await agent.done.wait()
        await link.aclose()

    agent, call, here = scene(
        talk,
        lose,
        link=link,
        faults=Faults(control_reset_after_s=2.0),
        switch={"dialplan": [("sleep", "60000")]},
    )
    assert agent.runs == 1
    assert loud_ms(call.heard) == 500
    assert [kind for kind in agent.kinds if kind.startswith("Control")] == ["ControlLost", "ControlJoined"]
    assert here.desk.names().count("media_connected") == 2


def test_without_an_inbound_socket_a_lost_control_leg_ends_the_call_and_the_dialplan_goes_on() -> None:
    async def over(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("call_ended")
        assert call.channel.up, "the caller is in the dialplan's fall-back"

    agent, _, here = scene(
        nothing, over, faults=Faults(control_reset_after_s=1.0), switch={"dialplan": [("sleep", "5000")]}
    )
    assert isinstance(agent.events[-1], HungUp)
    lost = [at for at, name in enumerate(here.desk.names()) if name in ("control_lost", "hungup")]
    assert len(lost) == 2


def test_a_gateway_that_comes_back_takes_its_calls_back() -> None:
    async def main() -> None:
        first, second = Doing(nothing), Doing(lambda call: call.say(HELLO))
        network, link = MemoryNetwork(), Bent()
        async with contextlib.AsyncExitStack() as stack:
            old = await stack.enter_async_context(unicast_desk(first, network=network, empty=False, switch=link))
            switch = await stack.enter_async_context(old.switch(dialplan=[("sleep", "600000")]))
            await up(link, switch)
            calls = [await switch.place(Caller(f"200{number}")) for number in range(3)]
            await old.desk.until_noted("agent_started", times=3)
            await asyncio.sleep(0.5)
            await link.aclose()
            for session in old.desk.desk:
                session.abort()
            new_link = Bent()
            new = await stack.enter_async_context(unicast_desk(second, network=network, empty=False, switch=new_link))
            old.desk.doors._control = new.desk.doors._control  # who listens now
            await asyncio.sleep(2.0)
            new_link.on_up(new.desk.desk.switch_up)
            await up(new_link, switch)
            await new.desk.until_noted("said", times=3)
            assert [loud_ms(call.heard) for call in calls] == [500] * 3
            for call in calls:
                call.hang_up()
                await call.over()
            await new_link.aclose()

    run_virtual(main())


@pytest.mark.parametrize("while_playing", [False, True])
def test_leaving_gives_the_channel_to_the_dialplan_without_a_sound_of_ours(while_playing: bool) -> None:
    async def leave(call: Call) -> None:
        if while_playing:
            playing = asyncio.ensure_future(call.play("tone_stream://%(5000,0,900)"))
            await asyncio.sleep(0.5)
            await call.return_to_dialplan(dueto_result="enough")
            with contextlib.suppress(DuetoError):
                await playing
        else:
            saying = asyncio.ensure_future(call.say(tone(8000, 5.0, 600)))
            await asyncio.sleep(0.5)
            await call.return_to_dialplan(dueto_result="enough")
            with contextlib.suppress(DuetoError):
                await saying

    async def later(agent: Doing, call: SimCall, here: OverUnicast, switch: Switch) -> None:
        await here.desk.until_noted("call_ended")
        await asyncio.sleep(6.0 if while_playing else 1.0)  # what plays, plays on
        assert call.channel.up
        assert call.ended_in == "playback"
        assert call.channel.unicast is None

    _, call, here = scene(leave, later, switch={"dialplan": [("playback", "tone_stream://%(30000,0,1500)")]})
    assert call.channel.variables["dueto_result"] == "enough"
    assert _pitch(call.heard[-8000:]) == 1500
    assert here.desk.names().count("control_connected") == 1


def test_a_placed_call_is_an_ordinary_one() -> None:
    link = Bent()

    async def main() -> None:
        agent = Doing(lambda call: call.say(HELLO))
        async with unicast_desk(agent, switch=link) as here, here.switch(endpoints=ENDPOINTS) as switch:
            await up(link, switch)
            dialled = await dial(here.desk, link, agent)
            assert dialled.ok
            await agent.done.wait()
            other = switch.calls[dialled.unique_id]
            assert loud_ms(other.heard) == 500
            other.hang_up()
            await other.over()
            await link.aclose()

    async def dial(virtual: Any, link: Bent, agent: Any) -> Any:
        async def job(command: str, argument: str, timeout_s: float) -> str:
            return await link.job(command, argument, timeout_s=timeout_s)

        given: dict[str, Any] = {"unique_id": mint(), "variables": {}, "timeout_s": 20.0}
        return await place(virtual.desk, virtual.desk.house, job, "user/1001", agent, **given)

    run_virtual(main())
