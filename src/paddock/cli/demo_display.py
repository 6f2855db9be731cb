"""Streams side by side in a terminal of any size; without a terminal, a few lines of progress. All of it on stderr."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from paddock.cli.output import note
from paddock.cli.plain import printable
from paddock.cli.terminal import is_interactive

__all__ = ["StreamView", "render_streams", "shown_streams"]

_FRAME_SECONDS = 1 / 12
_LINE_SECONDS = 2.0
_PANEL_WIDTH = 38
_PANEL_LINES = 10
_FEWEST_PANEL_LINES = 4


@attrs.define(eq=False)
class StreamView:
    """What is shown of one stream."""

    prompt: str
    text: str = ""
    tokens: int = 0
    finish_reason: str | None = None


@asynccontextmanager
async def shown_streams(views: Sequence[StreamView], *, quiet: bool) -> AsyncIterator[None]:
    """Shows the streams while the block runs, and as they are at its end."""
    if quiet:
        yield
        return
    async with trio.open_nursery() as nursery:
        if is_interactive(2):
            console = Console(stderr=True)

            def frame() -> RenderableType:
                return render_streams(views, console)

            with Live(console=console, auto_refresh=False, get_renderable=frame) as live:
                nursery.start_soon(_draw, live)
                yield
                nursery.cancel_scope.cancel()
        else:
            note(f"{len(views)} streams at once")
            nursery.start_soon(_report, views)
            yield
            nursery.cancel_scope.cancel()


async def _draw(live: Live) -> None:
    """In a thread: drawing takes longer than the event loop should stand still."""
    while True:
        await trio.to_thread.run_sync(live.refresh)
        await trio.sleep(_FRAME_SECONDS)


async def _report(views: Sequence[StreamView]) -> None:
    started = time.monotonic()
    while True:
        await trio.sleep(_LINE_SECONDS)
        ended = sum(view.finish_reason is not None for view in views)
        tokens = sum(view.tokens for view in views)
        note(f"{tokens} tokens after {time.monotonic() - started:.0f} s, {ended} of {len(views)} streams ended")


def render_streams(views: Sequence[StreamView], console: Console) -> RenderableType:
    """A grid of panels, or one line for each stream where the terminal is too small for panels."""
    width, height = console.size
    columns = max(1, min(len(views), width // _PANEL_WIDTH))
    rows = -(-len(views) // columns)
    columns = -(-len(views) // rows)  # evenly filled
    lines = min(_PANEL_LINES, (height - 1) // rows)
    if lines < _FEWEST_PANEL_LINES or width < 2 * 6:
        return _as_lines(views, width, height - 1)
    grid = Table.grid(expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1)
    panels = [_panel(number, view, console, width // columns, lines) for number, view in enumerate(views, 1)]
    for start in range(0, len(panels), columns):
        grid.add_row(*panels[start : start + columns])
    return grid


def _panel(number: int, view: StreamView, console: Console, width: int, lines: int) -> Panel:
    text = Text.assemble((printable(view.prompt), "dim"), printable(view.text))
    # Only the end can be seen, so only the end is wrapped.
    text = text[-(width * lines * 2) :]
    wrapped = text.wrap(console, max(1, width - 4))
    ended = view.finish_reason is not None
    state = f"{view.tokens} tokens" + (f", {view.finish_reason}" if ended else "")
    return Panel(
        Text("\n").join(wrapped[-(lines - 2) :]),
        title=str(number),
        title_align="left",
        subtitle=state,
        subtitle_align="right",
        height=lines,
        border_style="green" if ended else "cyan",
    )


def _as_lines(views: Sequence[StreamView], width: int, height: int) -> Group:
    shown = views if len(views) <= height else views[: max(0, height - 1)]
    rendered = []
    for number, view in enumerate(shown, 1):
        head = f"{number:>3} {view.tokens:>4} "
        room = max(0, width - len(head) - 1)
        flat = " ".join(printable(view.prompt + view.text).split())
        line = Text(head, style="green" if view.finish_reason is not None else "cyan", no_wrap=True, overflow="crop")
        line.append(flat[-room:] if room else "", style="default")
        rendered.append(line)
    if len(shown) < len(views):
        rendered.append(Text(f"and {len(views) - len(shown)} more", no_wrap=True, overflow="crop"))
    return Group(*rendered)
