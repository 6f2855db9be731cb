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


async def test_what_is_taken_out_of_the_middle_makes_room_too() -> None:
    mailbox = Mailbox(1)
    mailbox.put((INFO, "signal", None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.wait_room)
        await settle()
        mailbox.remove(lambda item: item[1] == "another")
        await settle()
        assert nursery.child_tasks
        mailbox.remove(lambda item: item[1] == "signal")
    assert len(mailbox) == 0
    mailbox.put((INFO, "signal", None))
    mailbox.remove(lambda _: True)
    assert len(mailbox) == 0


async def test_a_message_from_another_thread_is_refused_and_does_no_harm() -> None:
    mailbox = Mailbox()
    taken = []

    async def read() -> None:
        taken.extend([await mailbox.get(), await mailbox.get()])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await settle()
        for put in (mailbox.put, mailbox.put_system):
            with pytest.raises(RuntimeError):
                await trio.to_thread.run_sync(put, (INFO, "from a thread", None))
        mailbox.put((INFO, 1, None))
        mailbox.put((INFO, 2, None))
    assert taken == [(INFO, 1, None), (INFO, 2, None)]
