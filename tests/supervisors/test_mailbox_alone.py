"""The mailbox by itself: closed, read twice, waited for."""

from __future__ import annotations

import pytest
import trio

from supervisors._mailbox import CAST, INFO, STOP, Mailbox
from supervisors.testing import settle


def test_a_closed_mailbox_takes_nothing() -> None:
    mailbox = Mailbox()
    mailbox.close()
    mailbox.put((INFO, "late", None))
    mailbox.put_system((STOP, "late", None))
    assert len(mailbox) == 0
    assert not mailbox.system


async def test_the_system_lane_has_one_reader_too() -> None:
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.get_system)
        await settle()
        with pytest.raises(trio.BusyResourceError):
            await mailbox.get_system()
        nursery.cancel_scope.cancel()


async def test_whoever_gives_up_waiting_for_room_leaves_it_to_the_next() -> None:
    mailbox = Mailbox(1)
    mailbox.put((CAST, 1, None))
    order: list[str] = []

    async def wait(name: str, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await mailbox.wait_room()
            order.append(name)

    async with trio.open_nursery() as nursery:
        for name, seconds in (("first", 1), ("second", 100), ("third", 100)):
            nursery.start_soon(wait, name, seconds)
            await settle()
        await trio.sleep(2)
        assert await mailbox.get() == (CAST, 1, None)
        await settle()
        assert order == ["second"]
        mailbox.close()
    assert order == ["second", "third"]
