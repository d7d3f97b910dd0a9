"""Telephone calls take their time, so tests of them take it together.

The tests of a module with `pytestmark = pytest.mark.at_once` run on one loop at the same time, as the calls of a
gateway do, when the first of them has its turn; each reports its outcome in its own turn. Only those that were picked
run, and one that wants a fixture runs alone: it may have changed what the others stand on.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

AT_ONCE = 6
"More would be a load test, and fail on a machine that is busy with something else."

_OUTCOMES = pytest.StashKey[dict[str, BaseException | None]]()
"By node id: of those that ran and have not had their turn yet."
_BEGUN = pytest.StashKey[set[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run a test with all that follow in its module, or tell how it went when they ran."""
    if not _joins(pyfuncitem):
        return None
    stash, items = pyfuncitem.session.stash, pyfuncitem.session.items
    outcomes, begun = stash.setdefault(_OUTCOMES, {}), stash.setdefault(_BEGUN, set())
    if pyfuncitem.nodeid not in outcomes:
        rest = [item for item in items[items.index(pyfuncitem) + 1 :] if item.parent is pyfuncitem.parent]
        together = [pyfuncitem, *(item for item in rest if _joins(item) and item.nodeid not in begun)]
        begun |= {item.nodeid for item in together}
        asyncio.run(_run(together, outcomes))
    if (error := outcomes.pop(pyfuncitem.nodeid)) is not None:
        raise error
    return True


def _joins(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or item.get_closest_marker("at_once") is None:
        return False
    test = getattr(item.module, item.originalname)
    return asyncio.iscoroutinefunction(test) and set(item._fixtureinfo.argnames) == _parameters(item).keys()


def _parameters(item: pytest.Function) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


async def _run(items: Sequence[pytest.Function], outcomes: dict[str, BaseException | None]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def run(item: pytest.Function) -> None:
        async with places:
            try:
                await getattr(item.module, item.originalname)(**_parameters(item))
            except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
                outcomes[item.nodeid] = error
            else:
                outcomes[item.nodeid] = None

    await asyncio.gather(*(asyncio.create_task(run(item), name=item.nodeid) for item in items))
