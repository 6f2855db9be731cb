from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from paddock.cli.demo_display import StreamView, render_streams

VIEWS = st.lists(
    st.builds(
        StreamView,
        st.text(max_size=60),
        st.text(max_size=400),
        st.integers(0, 10_000),
        st.none() | st.sampled_from(["stop", "length"]),
    ),
    min_size=1,
    max_size=40,
)


def rendered(views: list[StreamView], width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), legacy_windows=False)
    with console.capture() as capture:
        console.print(render_streams(views, console))
    return capture.get().splitlines()


@given(VIEWS, st.integers(1, 250), st.integers(2, 80))
def test_streams_fit_into_a_terminal_of_any_size(views: list[StreamView], width: int, height: int) -> None:
    lines = rendered(views, width, height)
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)


def test_a_wide_terminal_shows_panels_side_by_side_with_the_end_of_each_text() -> None:
    views = [
        StreamView("Once upon a time", f" there was number {n}. " + "And so on. " * 90 + "END", 99, None)
        for n in range(4)
    ]
    lines = rendered(views, 160, 30)
    assert lines[0].count("╭") == 4
    assert sum(line.count("END") for line in lines) == 4
    assert sum(line.count("99 tokens") for line in lines) == 4


def test_a_small_terminal_shows_a_line_for_each_stream_that_has_room() -> None:
    views = [StreamView("p", f" text {n}", n) for n in range(10)]
    lines = rendered(views, 30, 6)
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "and"]
    assert lines[-1].strip() == "and 6 more"


def test_text_is_no_markup_and_no_control_sequence() -> None:
    lines = rendered([StreamView("[bold]p[/bold]", "\x1b[2J[/]")], 80, 24)
    assert any("[bold]p[/bold]␛[2J[/]" in line for line in lines)
