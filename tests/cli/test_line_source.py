from __future__ import annotations

import os

import trio
from hypothesis import given
from hypothesis import strategies as st

from paddock.cli.line_source import DescriptorLines


async def lines_of(source: DescriptorLines) -> list[str]:
    lines = []
    while (line := await source.next_line()) is not None:
        lines.append(line)
    return lines


async def test_lines_come_from_a_pipe_however_they_are_cut() -> None:
    reader, writer = os.pipe()
    source = DescriptorLines(reader)
    for piece in (b"on", b"e\ntw", b"o\r\n\nthree"):
        os.write(writer, piece)
    assert await source.next_line() == "one"
    assert await source.next_line() == "two"
    assert await source.next_line() == ""
    os.close(writer)
    assert await lines_of(source) == ["three"]
    os.close(reader)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r")), max_size=5))
def test_a_file_is_read_line_by_line(lines: list[str]) -> None:
    async def read() -> list[str]:
        descriptor = os.memfd_create("lines")
        try:
            os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
            os.lseek(descriptor, 0, os.SEEK_SET)
            return await lines_of(DescriptorLines(descriptor))
        finally:
            os.close(descriptor)

    assert trio.run(read) == lines


async def test_nothing_to_read_is_the_end() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    assert await DescriptorLines(nothing).next_line() is None
    os.close(nothing)


async def test_bytes_that_are_no_utf8_become_surrogates_for_the_model_to_refuse() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"caf\xe9\n")
    os.close(writer)
    assert await DescriptorLines(reader).next_line() == "caf\udce9"
    os.close(reader)


async def test_waiting_for_a_line_can_be_cancelled_and_loses_nothing(autojump_clock: object) -> None:
    reader, writer = os.pipe()
    source = DescriptorLines(reader)
    os.write(writer, b"half")
    with trio.move_on_after(1) as scope:
        await source.next_line()
    assert scope.cancelled_caught
    os.write(writer, b" and half\n")
    assert await source.next_line() == "half and half"
    os.close(writer)
    os.close(reader)
