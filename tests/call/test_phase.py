"""The phase machine is total, and every state it can reach keeps the invariants."""

from collections import deque
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.call import phase
from dueto.call.actions import PERFORMERS
from dueto.call.phase import Action, AgentIs, CallState, Leg, Phase, step

EVENTS: tuple[phase.Event, ...] = (
    phase.ControlCame(),
    phase.MediaCame(),
    phase.ControlClosed(),
    phase.MediaClosed(),
    phase.GraceOver(),
    phase.WarnTime(),
    phase.GiveUpTime(),
    phase.ChannelGone("NORMAL_CLEARING", "CHANNEL_HANGUP"),
    phase.ChannelGone(None, "linger"),
    phase.HoldBegan(),
    phase.HoldEnded(),
    phase.TransferBegan(),
    phase.TransferFailed(),
    phase.BridgeBegan("b"),
    phase.BridgeEnded(),
    phase.RestartFailed(),
    phase.AgentDone(),
    phase.AgentFailed(),
    phase.LeaveAsked(""),
    phase.HangupAsked("NORMAL_CLEARING"),
    phase.Left(),
)
STATES = [CallState(*parts) for parts in product(Phase, Leg, Leg, AgentIs, (False, True), (False, True))]
AUDIBLE = {Action.UNMUTE, Action.START_AGENT}


def test_every_action_has_its_performer() -> None:
    assert set(PERFORMERS) == set(Action)


def test_every_event_class_is_walked() -> None:
    assert {type(event).__name__ for event in EVENTS} == {cls.__name__ for cls in phase.Event.__subclasses__()}


def test_every_combination_of_state_and_event_is_decided() -> None:
    for state, event in product(STATES, EVENTS):
        after, actions = step(state, event)
        assert isinstance(after, CallState), (state, event)
        assert len(set(actions)) == len(actions), (state, event)


def test_nothing_leads_back_from_the_end() -> None:
    for state, event in product(STATES, EVENTS):
        if state.phase is Phase.ENDED:
            after, actions = step(state, event)
            assert after.phase is Phase.ENDED
            assert not set(actions) - {Action.REFUSE_CONTROL, Action.REFUSE_MEDIA, Action.TELL_HUNG_UP}


def test_letting_go_ends_only_in_the_end() -> None:
    for state, event in product(STATES, EVENTS):
        if state.phase is Phase.LEAVING:
            after, _ = step(state, event)
            assert after.phase in (Phase.LEAVING, Phase.ENDED)


LATE: list[tuple[phase.Event, Callable[[CallState], bool]]] = [
    (phase.ControlClosed(), lambda state: state.control is not Leg.UP),
    (phase.MediaClosed(), lambda state: state.media is not Leg.UP),
    (phase.GraceOver(), lambda state: Leg.DOUBTED not in (state.control, state.media)),
    (phase.WarnTime(), lambda state: state.media is not Leg.AWAITED),
    (phase.GiveUpTime(), lambda state: state.media is not Leg.AWAITED),
    (phase.HoldBegan(), lambda state: state.held),
    (phase.HoldEnded(), lambda state: not state.held),
    (phase.TransferBegan(), lambda state: state.phase is not Phase.TALKING),
    (phase.TransferFailed(), lambda state: state.phase is not Phase.TRANSFERRING),
    (phase.BridgeBegan("b"), lambda state: state.phase is Phase.BRIDGED),
    (phase.BridgeEnded(), lambda state: state.phase is not Phase.BRIDGED),
    (phase.RestartFailed(), lambda state: state.media is not Leg.LOST),
    (phase.Left(), lambda state: state.phase is not Phase.LEAVING),
]


def test_what_comes_again_or_too_late_means_nothing() -> None:
    for (event, late), state in product(LATE, STATES):
        if state.phase is not Phase.ENDED and late(state):
            assert step(state, event) == (state, ())


def test_of_a_call_that_is_on_its_way_out_only_the_end_and_the_legs_count() -> None:
    ours = phase.WarnTime | phase.GiveUpTime | phase.RestartFailed | phase.LeaveAsked | phase.HangupAsked
    others = phase.TransferBegan | phase.TransferFailed | phase.BridgeBegan | phase.BridgeEnded
    for state, event in product(STATES, EVENTS):
        if state.phase is Phase.LEAVING and isinstance(event, ours | others):
            assert step(state, event) == (state, ())
        if state.phase is Phase.LEAVING and isinstance(event, phase.AgentDone | phase.AgentFailed):
            assert step(state, event) == (state._replace(agent=AgentIs.DONE), ())


TALKING = CallState(Phase.TALKING, Leg.UP, Leg.UP, AgentIs.RUNNING)
WAITING = CallState(Phase.WAITING, Leg.UP)
LEAVING = TALKING._replace(phase=Phase.LEAVING)
BRIDGED = TALKING._replace(phase=Phase.BRIDGED)
UNTOLD = TALKING._replace(phase=Phase.ENDED)
ENDED = UNTOLD._replace(told=True)
OVER = (Action.TELL_HUNG_UP, Action.END)


@pytest.mark.parametrize(
    ("state", "event", "after", "actions"),
    [
        (TALKING, phase.HoldBegan(), TALKING._replace(held=True), (Action.TELL_HELD,)),
        (TALKING._replace(held=True), phase.HoldEnded(), TALKING, (Action.TELL_RESUMED,)),
        (WAITING, phase.WarnTime(), WAITING, (Action.WARN,)),
        (WAITING, phase.GiveUpTime(), WAITING._replace(phase=Phase.LEAVING), (Action.MISSING_MEDIA,)),
        (TALKING, phase.TransferBegan(), TALKING._replace(phase=Phase.TRANSFERRING), ()),
        (TALKING._replace(phase=Phase.TRANSFERRING), phase.TransferFailed(), TALKING, ()),
        (WAITING._replace(phase=Phase.TRANSFERRING), phase.TransferFailed(), WAITING, ()),
        (WAITING._replace(phase=Phase.BRIDGED), phase.BridgeEnded(), WAITING, (Action.UNMUTE, Action.TELL_UNBRIDGED)),
        (
            BRIDGED._replace(media=Leg.LOST),
            phase.BridgeEnded(),
            TALKING._replace(media=Leg.LOST),
            (Action.UNMUTE, Action.TELL_UNBRIDGED, Action.RESTART_STREAM),
        ),
        (
            BRIDGED._replace(media=Leg.DOUBTED),
            phase.GraceOver(),
            BRIDGED._replace(media=Leg.LOST),
            (Action.TELL_MEDIA_LOST,),
        ),
        (TALKING._replace(media=Leg.LOST), phase.RestartFailed(), LEAVING._replace(media=Leg.LOST), (Action.LEAVE,)),
        (TALKING, phase.AgentDone(), LEAVING._replace(agent=AgentIs.DONE), (Action.FINISH,)),
        (TALKING, phase.AgentFailed(), LEAVING._replace(agent=AgentIs.DONE), (Action.RESCUE,)),
        (BRIDGED, phase.AgentFailed(), BRIDGED._replace(agent=AgentIs.DONE), ()),
        (TALKING, phase.LeaveAsked(""), LEAVING, (Action.MUTE, Action.LEAVE)),
        (TALKING, phase.HangupAsked("X"), LEAVING, (Action.MUTE, Action.HANG_UP)),
        (LEAVING, phase.Left(), ENDED, OVER),
        (
            TALKING._replace(control=Leg.DOUBTED),
            phase.GraceOver(),
            TALKING._replace(control=Leg.LOST),
            (Action.TELL_CONTROL_LOST, Action.RECLAIM),
        ),
        (LEAVING._replace(control=Leg.DOUBTED), phase.GraceOver(), LEAVING._replace(control=Leg.LOST), ()),
        (LEAVING._replace(media=Leg.DOUBTED), phase.GraceOver(), LEAVING._replace(media=Leg.LOST), ()),
        (LEAVING, phase.MediaClosed(), LEAVING._replace(media=Leg.LOST), ()),
        (CallState(), phase.ControlCame(), WAITING, (Action.EXPECT_MEDIA,)),
        (
            TALKING._replace(control=Leg.AWAITED),
            phase.ControlCame(),
            TALKING,
            (Action.PAIRED, Action.TELL_CONTROL_JOINED),
        ),
        (TALKING._replace(control=Leg.LOST), phase.ControlCame(), TALKING, (Action.TELL_CONTROL_JOINED,)),
        (TALKING._replace(control=Leg.DOUBTED), phase.ControlCame(), TALKING, ()),
        (LEAVING, phase.ControlCame(), LEAVING, (Action.RETIRE_CONTROL,)),
        (WAITING, phase.ControlCame(), WAITING, (Action.RETIRE_CONTROL,)),
        (TALKING, phase.MediaCame(), TALKING, (Action.RETIRE_MEDIA,)),
        (TALKING._replace(media=Leg.DOUBTED), phase.MediaCame(), TALKING, ()),
        (CallState(), phase.MediaCame(), TALKING._replace(control=Leg.AWAITED), (Action.START_AGENT,)),
        (WAITING._replace(phase=Phase.BRIDGED), phase.MediaCame(), BRIDGED, (Action.PAIRED, Action.START_AGENT)),
        (
            WAITING._replace(agent=AgentIs.DONE),
            phase.MediaCame(),
            TALKING._replace(agent=AgentIs.DONE),
            (Action.PAIRED,),
        ),
        (CallState(Phase.LEAVING), phase.ControlCame(), CallState(Phase.LEAVING, Leg.UP), ()),
        (TALKING, phase.ControlClosed(), TALKING._replace(control=Leg.DOUBTED), (Action.START_GRACE,)),
        (LEAVING, phase.ControlClosed(), ENDED._replace(control=Leg.LOST), OVER),
        (
            TALKING._replace(media=Leg.LOST),
            phase.ControlClosed(),
            ENDED._replace(control=Leg.DOUBTED, media=Leg.LOST),
            OVER,
        ),
        (
            LEAVING._replace(control=Leg.LOST),
            phase.MediaClosed(),
            ENDED._replace(control=Leg.LOST, media=Leg.LOST),
            OVER,
        ),
        (
            TALKING._replace(control=Leg.LOST),
            phase.MediaClosed(),
            ENDED._replace(control=Leg.LOST, media=Leg.DOUBTED),
            OVER,
        ),
        (
            WAITING._replace(control=Leg.DOUBTED),
            phase.GraceOver(),
            WAITING._replace(phase=Phase.ENDED, control=Leg.LOST, told=True),
            OVER,
        ),
        (UNTOLD, phase.ControlClosed(), ENDED._replace(control=Leg.LOST), (Action.TELL_HUNG_UP,)),
        (UNTOLD, phase.Left(), ENDED, (Action.TELL_HUNG_UP,)),
        (UNTOLD, phase.ChannelGone(None, "linger"), UNTOLD, ()),
        (ENDED, phase.ControlClosed(), ENDED._replace(control=Leg.LOST), ()),
        (ENDED, phase.MediaClosed(), ENDED._replace(media=Leg.LOST), ()),
        (ENDED, phase.GraceOver(), ENDED, ()),
        (ENDED, phase.AgentDone(), ENDED._replace(agent=AgentIs.DONE), ()),
    ],
)
def test_what_happens_means_this(
    state: CallState, event: phase.Event, after: CallState, actions: tuple[Action, ...]
) -> None:
    assert step(state, event) == (after, actions)


def test_a_proof_of_hangup_ends_every_call_at_once() -> None:
    for state in STATES:
        if state.phase is Phase.ENDED:
            continue
        after, actions = step(state, phase.ChannelGone("USER_BUSY", "CHANNEL_HANGUP"))
        assert after.phase is Phase.ENDED
        assert after.told
        assert actions == (Action.TELL_HUNG_UP, Action.END)


def test_a_proof_without_a_cause_ends_the_call_at_once_and_tells_when_the_cause_comes() -> None:
    talking = CallState(Phase.TALKING, Leg.UP, Leg.UP, AgentIs.RUNNING)
    ended, actions = step(talking, phase.ChannelGone(None, "linger"))
    assert actions == (Action.START_GRACE, Action.END)
    assert step(ended, phase.ChannelGone("NORMAL_CLEARING", "CHANNEL_HANGUP"))[1] == (Action.TELL_HUNG_UP,)
    assert step(ended, phase.GraceOver())[1] == (Action.TELL_HUNG_UP,)


def reachable() -> dict[CallState, tuple[phase.Event, ...]]:
    """All states a call can get into from its beginning, each with a shortest way there."""
    ways: dict[CallState, tuple[phase.Event, ...]] = {CallState(): ()}
    queue = deque(ways)
    while queue:
        state = queue.popleft()
        for event in EVENTS:
            after, _ = step(state, event)
            if after not in ways:
                ways[after] = (*ways[state], event)
                queue.append(after)
    return ways


def test_no_reachable_state_talks_without_an_agent_ever_started() -> None:
    for state in reachable():
        if state.phase is Phase.TALKING:
            assert state.agent is not AgentIs.ABSENT, state


def test_no_reachable_state_lives_on_with_both_legs_gone() -> None:
    gone = (Leg.LOST, Leg.DOUBTED)
    for state, way in reachable().items():
        if state.control in gone and state.media in gone:
            assert state.phase is Phase.ENDED, way


def test_a_call_that_lost_a_leg_is_never_forgotten() -> None:
    """From every reachable state some event ends the call: there is no trap."""
    for state in reachable():
        if state.phase is not Phase.ENDED:
            assert step(state, phase.ChannelGone(None, "x"))[0].phase is Phase.ENDED


@pytest.mark.parametrize("control", [Leg.AWAITED, Leg.LOST])
def test_the_end_of_media_is_the_hangup_where_there_is_no_control_leg(control: Leg) -> None:
    state = CallState(Phase.TALKING, control, Leg.UP, AgentIs.RUNNING)
    after, actions = step(state, phase.MediaClosed())
    assert after.phase is Phase.ENDED
    assert Action.TELL_HUNG_UP in actions


def test_the_end_of_media_is_only_a_suspicion_while_control_lives() -> None:
    state = CallState(Phase.TALKING, Leg.UP, Leg.UP, AgentIs.RUNNING)
    doubted, actions = step(state, phase.MediaClosed())
    assert (doubted.media, actions) == (Leg.DOUBTED, (Action.START_GRACE,))
    lost, actions = step(doubted, phase.GraceOver())
    assert lost.phase is Phase.TALKING
    assert actions == (Action.TELL_MEDIA_LOST, Action.RESTART_STREAM)


def test_a_stream_that_comes_back_does_not_start_the_agent_again() -> None:
    lost = CallState(Phase.TALKING, Leg.UP, Leg.LOST, AgentIs.RUNNING)
    assert step(lost, phase.MediaCame())[1] == (Action.TELL_MEDIA_RESUMED,)


def test_the_agent_is_muted_before_it_hears_of_the_bridge() -> None:
    state = CallState(Phase.TRANSFERRING, Leg.UP, Leg.UP, AgentIs.RUNNING)
    assert step(state, phase.BridgeBegan("b"))[1] == (Action.MUTE, Action.TELL_BRIDGED)


def test_an_agent_that_is_done_while_bridged_ends_the_call_only_after_the_bridge() -> None:
    bridged = CallState(Phase.BRIDGED, Leg.UP, Leg.UP, AgentIs.RUNNING)
    done, actions = step(bridged, phase.AgentDone())
    assert (done.phase, actions) == (Phase.BRIDGED, ())
    after, actions = step(done, phase.BridgeEnded())
    assert after.phase is Phase.LEAVING
    assert actions == (Action.TELL_UNBRIDGED, Action.FINISH)


def test_a_second_control_leg_retires_the_first() -> None:
    state = CallState(Phase.TALKING, Leg.UP, Leg.UP, AgentIs.RUNNING)
    assert step(state, phase.ControlCame())[1] == (Action.RETIRE_CONTROL,)


def test_late_media_wakes_a_waiting_call_and_refuses_one_that_is_leaving() -> None:
    waiting = CallState(Phase.WAITING, Leg.UP, Leg.AWAITED)
    assert step(waiting, phase.MediaCame())[1] == (Action.PAIRED, Action.START_AGENT)
    assert step(waiting._replace(phase=Phase.LEAVING), phase.MediaCame())[1] == (Action.REFUSE_MEDIA,)


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_in_any_order_the_agent_starts_once_is_told_once_and_the_call_ends_once(events: list[phase.Event]) -> None:
    state = CallState()
    seen: list[Action] = []
    for event in events:
        state, actions = step(state, event)
        seen += actions
    assert seen.count(Action.START_AGENT) <= 1
    assert seen.count(Action.TELL_HUNG_UP) <= 1
    assert seen.count(Action.END) <= 1
    assert seen.count(Action.PAIRED) <= 1
    if Action.TELL_HUNG_UP in seen:
        told = seen.index(Action.TELL_HUNG_UP)
        assert not any(action.name.startswith("TELL_") for action in seen[told + 1 :])
    if Action.END in seen:
        assert not AUDIBLE & set(seen[seen.index(Action.END) :])


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_between_a_bridge_and_its_end_nothing_makes_the_agent_audible(events: list[phase.Event]) -> None:
    state = CallState(Phase.TALKING, Leg.UP, Leg.UP, AgentIs.RUNNING)
    state, actions = step(state, phase.BridgeBegan("b"))
    assert actions[0] is Action.MUTE
    for event in events:
        state, actions = step(state, event)
        if isinstance(event, phase.BridgeEnded):
            return
        assert Action.UNMUTE not in actions
        assert state.phase in (Phase.BRIDGED, Phase.LEAVING, Phase.ENDED)
