"""Nobody who is interrupted leaves a child process behind."""

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest

from dueto.agents.speech.children import reap


@pytest.mark.parametrize("cancels", [0, 1, 3])
async def test_a_process_is_gone_after_its_reaping_however_often_that_is_cancelled(cancels: int) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE, stdout=PIPE)
    reaping = asyncio.create_task(reap(process))
    for _ in range(cancels):
        await asyncio.sleep(0)
        reaping.cancel()
    if cancels:
        with pytest.raises(asyncio.CancelledError):
            await reaping
    else:
        await reaping
    assert process.returncode is not None
