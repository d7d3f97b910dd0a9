"""`dueto demo` from its first line to its exit code."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dueto.app.demo.cast import ECHO_ROLES, RECEPTIONIST_ROLES, Role, recorded_lines
from dueto.app.demo.files import write_out
from dueto.app.demo.notebook import Notebook
from dueto.app.demo.show import Show, print_summary
from dueto.app.demo.stage import AgentName, perform
from dueto.app.demo.story import Story
from dueto.app.logs import configure_logs
from dueto.app.serve import Stop, new_event_loop, stopped_by_signals
from dueto.errors import DuetoError, SettingsError

STOPPED = 130
LOG = "gateway.log"
WAY_OUT = "; or try the agent that only repeats: dueto demo --agent echo"


def run_demo(out: Path, agent: AgentName) -> int:
    """Run the demo, write its results into `out`, and return the exit code.

    0: every call went as it should; 1: one did not; 130: stopped by a signal.
    Raises: SettingsError: something is missing; the text says what, and a way out.
    """
    lines = recorded_lines()
    roles = that_can_be_played(RECEPTIONIST_ROLES) if agent == "receptionist" else ECHO_ROLES
    console = Console(highlight=False)
    notebook = Notebook()
    show = Show(console, notebook)
    folder = out.absolute()

    async def play() -> Sequence[Story] | None:
        stop = Stop()
        with stopped_by_signals(stop.ask):
            async with show.running():
                playing = perform(roles, agent, lines, notebook=notebook, placed=show.placed, out=folder)
                calls = asyncio.create_task(playing)
                stopped = asyncio.create_task(stop.once())
                await asyncio.wait((calls, stopped), return_when=asyncio.FIRST_COMPLETED)
                calls.cancel()
                stopped.cancel()
                await asyncio.wait((calls, stopped))
        return None if calls.cancelled() else calls.result()

    try:
        out.mkdir(parents=True, exist_ok=True)
        log = (out / LOG).open("w", encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{out}: can't be written to ({error.strerror}); choose another folder with --out"
        ) from None
    with log:
        configure_logs("json", log)
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                stories = runner.run(play())
        except DuetoError as error:
            way_out = "" if agent == "echo" or "--agent echo" in str(error) else WAY_OUT
            raise SettingsError(f"{error}{way_out}") from None
        finally:
            configure_logs("console", sys.stderr, level="warning")
    if stories is None:
        console.print("Stopped.")
        return STOPPED
    print_summary(console, stories, write_out(stories, out))
    return 0 if all(story.as_expected for story in stories) else 1


def that_can_be_played(roles: Sequence[Role]) -> Sequence[Role]:
    """Without a synthesiser the receptionist has its recordings, but what a model thinks of can't be said."""
    from dueto.agents.speech import installed

    return roles if installed() else [role for role in roles if role.agent != "cascade"]
