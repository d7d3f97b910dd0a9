"""The demo in the terminal, live: what happens as it happens, and a small time line of each call below it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dueto.app.demo.listening import FRAME_S, LOUD, peaks
from dueto.app.demo.notebook import Note, Notebook
from dueto.app.demo.stage import OnStage
from dueto.app.demo.story import Story
from dueto.app.demo.words import in_words
from dueto.app.redact import clean
from dueto.clock import Clock, monotonic

REFRESH_S = 0.125
CELL_S = 0.5
"One character of a time line."
_LEVELS = " ▁▂▃▄▅▆▇"
_STYLES = {"caller": "blue", "agent": "magenta", "gateway": "default", "media": "cyan", "control": "red"}


class Show:
    """Prints the moments of all calls in order; on a terminal, draws voices and bridges while they last."""

    def __init__(self, console: Console, notebook: Notebook, clock: Clock = monotonic) -> None:
        self._console, self._notebook, self._clock = console, notebook, clock
        self._calls: list[OnStage] = []
        self._printed: list[int] = []
        self._began = clock()

    def placed(self, on_stage: OnStage) -> None:
        """Take a further call."""
        if not self._calls:
            self._began = on_stage.call.placed_at
        self._calls.append(on_stage)
        self._printed.append(0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Show while the block runs."""
        live = Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        with live or contextlib.nullcontext():
            showing = asyncio.create_task(self._keep_showing(live), name="show")
            try:
                yield
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
                self._print_news()

    async def _keep_showing(self, live: Live | None) -> None:
        while True:
            self._print_news()
            if live is not None:
                live.update(self._picture(), refresh=True)
            await asyncio.sleep(REFRESH_S)

    def _print_news(self) -> None:
        news: list[tuple[float, int, Note]] = []
        for number, on_stage in enumerate(self._calls):
            notes = self._notebook.of(on_stage.call)
            news += [(note.at, number, note) for note in notes[self._printed[number] :]]
            self._printed[number] = len(notes)
        for at, number, note in sorted(news, key=lambda entry: entry[:2]):
            text = in_words(note)
            if text:
                self._console.print(self._line(at, number, note, clean(text)), soft_wrap=not self._console.is_terminal)

    def _line(self, at: float, number: int, note: Note, text: str) -> Text:
        lane = f"{note.lane} leg" if note.lane in ("media", "control") else note.lane
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{at - self._began:6.2f} s  ", "dim")
        line.append(f"{number + 1} {self._calls[number].role.name:<6}", "bold")
        line.append(f"  {lane:<11} ", _STYLES[note.lane])
        line.append(text, "bold" if note.lane in ("caller", "agent") else "")
        return line

    def _picture(self) -> Group:
        cells = max(self._console.width - 30, 20)
        elapsed = int((self._clock() - self._began) / CELL_S) + 1
        first = max(0, elapsed - cells)
        grid = Table.grid(padding=(0, 1))
        for number, on_stage in enumerate(self._calls):
            call = on_stage.call
            offset = int((call.placed_at - self._began) / CELL_S)
            over = bool(call.hangup_cause)
            bridged = call.bridged_to and not over
            state = Text("over", "dim") if over else Text("connected", "green") if bridged else Text("talking", "cyan")
            said = _track(peaks(call.said, call.rate_hz).tolist(), offset, first, "blue")
            heard = _track(peaks(call.heard, call.rate_hz).tolist(), offset, first, "green" if bridged else "yellow")
            grid.add_row(Text(f"{number + 1} {on_stage.role.name}", "bold"), "says", said, state)
            grid.add_row("", "hears", heard, "")
        return Group(Text(), grid)


def _track(loudness: Sequence[int], offset: int, first: int, style: str) -> Text:
    """Draw a voice from the cell `first` of the common time line on; the call began at cell `offset`."""
    size = round(CELL_S / FRAME_S)
    cells = []
    for at in range(0, len(loudness), size):
        loudest = max(loudness[at : at + size])
        level = 0 if loudest <= LOUD else 1 + int((loudest / 32768) ** 0.7 * (len(_LEVELS) - 2))
        cells.append(_LEVELS[min(level, len(_LEVELS) - 1)] if level else "·")
    return Text((" " * offset + "".join(cells))[first:], style, no_wrap=True)


def print_summary(console: Console, stories: Sequence[Story], page: object) -> None:
    """Print what became of the calls, and where to look."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("call", "outcome", "paired in", "hangup to agent", ""):
        table.add_column(heading, justify="right" if heading in ("paired in", "hangup to agent") else "left")
    for number, story in enumerate(stories, start=1):
        verdict = Text("as expected", "green") if story.as_expected else Text("NOT as expected", "bold red")
        table.add_row(
            f"{number} {story.title}",
            clean(str(story.outcome)),
            _ms(story.figures.pairing_ms),
            _ms(story.figures.hangup_to_agent_ms),
            verdict,
        )
    console.print()
    console.print(table)
    for number, story in enumerate(stories, start=1):
        if not story.as_expected:
            console.print(f"[red]call {number}: expected:[/] {story.expected}")
        if story.error:
            console.print(f"[red]call {number}: the caller's script:[/] {clean(story.error)}", markup=True)
    console.print(f"\nListen and look: [bold]{page}[/]", highlight=False, soft_wrap=True)


def _ms(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} ms"
