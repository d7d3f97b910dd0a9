"""One address for the bots of several workers: who is asked, and what is answered where some do not answer."""

from typing import Any

import pytest

from dueto.app.addresses import Address
from dueto.app.http import Answer, Request
from dueto.app.workers.front import Front
from dueto.app.workers.relayed import answer_of, fields_of, fields_of_answer, request_of
from dueto.errors import Refused

CALLS = "/2010-04-01/Accounts/AC" + "a1" * 16 + "/Calls"
ONE = f"{CALLS}/CA{'b2' * 16}.json"


class Worker:
    """A worker that answers everything with one status; 0: it hangs."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[Request] = []

    async def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        assert what == "request"
        self.asked.append(request_of(fields))
        if not self.status:
            raise TimeoutError
        return fields_of_answer(Answer(self.status, b"here", headers={"X": "y"}))


async def asked(workers: list[Worker], path: str) -> int:
    def least() -> Any:
        if not workers:
            raise Refused("no_worker")
        return workers[-1]

    front = Front(Address("127.0.0.1", 0), lambda: workers, least)  # type: ignore[arg-type, return-value]
    return (await front._answer(Request("POST", path, {"authorization": "Basic x"}, b"Status=completed\xff"))).status


@pytest.mark.parametrize(
    ("statuses", "status"),
    [([404, 200, 404], 200), ([404, 404], 404), ([401, 401], 401), ([0, 200], 200), ([0, 404], 503), ([], 503)],
)
async def test_whoever_has_the_call_answers(statuses: list[int], status: int) -> None:
    workers = [Worker(one) for one in statuses]
    assert await asked(workers, ONE) == status
    assert all(len(worker.asked) == 1 for worker in workers)


async def test_a_new_call_is_the_business_of_one() -> None:
    workers = [Worker(404), Worker(201)]
    assert await asked(workers, f"{CALLS}.json") == 201
    assert [len(worker.asked) for worker in workers] == [0, 1]


def test_a_request_and_its_answer_come_through_as_they_were() -> None:
    request = Request("POST", ONE, {"authorization": "Basic x"}, bytes(range(256)))
    assert request_of(fields_of(request)) == request
    answer = Answer(401, b'{"code": 20003}', "application/json", {"WWW-Authenticate": "Basic"})
    assert answer_of(fields_of_answer(answer)) == answer
