"""The queue of a process: order, bounds, the one reader, the counter."""

from __future__ import annotations

import pytest
import trio
from actors import Echo, in_process

import supervisors as sup
from supervisors.processes.mailbox import CAST, INFO, SYSTEM, Mailbox
from supervisors.testing import settle


async def test_messages_taken_are_counted_system_messages_included(node: sup.Node) -> None:
    pid = await node.start(Echo)
    assert pid.mailbox.handled == 0
    for _ in range(3):
        sup.cast(pid, 1)
    assert pid.mailbox.handled == 0, "queued is not handled"
    await sup.call(pid, 1)
    await sup.suspend(pid)
    assert pid.mailbox.handled == 5
    sup.cast(pid, 1)
    await sup.resume(pid)
    await settle()
    assert pid.mailbox.handled == 7


async def test_a_second_reader_is_refused(node: sup.Node) -> None:
    async def body() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sup.receive)
            await settle()
            with pytest.raises(trio.BusyResourceError):
                await sup.receive()
            nursery.cancel_scope.cancel()

    await in_process(node, body)
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.get_system)
        await settle()
        with pytest.raises(trio.BusyResourceError):
            await mailbox.get_system()
        nursery.cancel_scope.cancel()


def test_nothing_gets_into_a_closed_mailbox() -> None:
    mailbox = Mailbox()
    mailbox.close()
    mailbox.put((INFO, "x", None))
    mailbox.put_system((SYSTEM, "x", None))
    assert not mailbox.queue
    assert not mailbox.system


@pytest.mark.parametrize("others", [0, 1])
async def test_room_given_to_one_who_is_cancelled_goes_to_the_next(others: int) -> None:
    mailbox = Mailbox(limit=1)
    mailbox.put((INFO, 0, None))
    passed: list[int] = []

    async def wait(number: int) -> None:
        await mailbox.wait_room()
        passed.append(number)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(wait, 0)
                await settle()
                for number in range(others):
                    nursery.start_soon(wait, number + 1)
                await settle()
                scope.cancel()
                await mailbox.get()  # tells the first in line, which has been cancelled and has not run since
    assert passed == [1] * others
    assert mailbox._room == []


async def test_waiting_for_room_may_be_cancelled() -> None:
    mailbox = Mailbox(limit=1)
    mailbox.put((INFO, 0, None))
    with trio.move_on_after(1):
        await mailbox.wait_room()
    assert mailbox._room == []
    await mailbox.get()
    await mailbox.wait_room()


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
