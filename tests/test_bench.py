"""The benchmark's parts work together: the load is built, measures a server, and what it finds is reported."""

import shutil

import pytest
from bench.lab import BARE_PICOWS, DUETO, Load, Server, language
from bench.rows import Goal, Metric, Row


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: the load would be the Python one")
def test_where_there_is_a_compiler_the_load_is_in_c() -> None:
    assert language() == "C"


def test_a_load_places_calls_hears_its_frames_come_back_and_hangs_up() -> None:
    with Server(DUETO) as server:
        with Load(server, room=10) as load:
            load.place(4)
            load.talk()
            figures = load.measure(0.3)
            assert figures["back"] >= 4
            assert figures["wrong"] == 0
            written = load.hang_up(4, 100)
        told = server.report()["told"]
        assert set(told) <= set(written)
        assert all(told[name] > written[name] for name in told)


def test_a_load_without_control_legs_finds_a_bare_server() -> None:
    with Server(BARE_PICOWS) as server, Load(server, control=False, room=10) as load:
        load.place(2)
        load.talk()
        assert load.measure(0.2)["wrong"] == 0


def test_a_goal_is_judged_by_the_medians_of_the_rounds() -> None:
    metric = {"us": Metric("CPU", "us")}
    goals = [
        Goal("us", "peer", 1 / 5),
        Goal("us", limit=30),
        Goal("us", "unmeasured", 2),
        Goal("us", "peer", 1, least=True),
    ]
    row = Row("Z1", "A row", metric, goals)
    for ours, peers in ((10, 100), (22, 100), (90, 100)):
        row.add("dueto", us=ours)
        row.add("peer", us=peers)
    verdicts = [(figure, bar, met) for _, figure, bar, met in row.verdicts()]
    assert verdicts == [(22, 20, False), (22, 30, True), (22, 100, False)]
    assert goals[0].text(metric["us"]) == "CPU <= 1/5 of peer"
    assert Row.from_json(row.to_json()) == row
