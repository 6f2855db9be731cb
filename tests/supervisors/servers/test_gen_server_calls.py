"""Calls and casts to a generic server: rows G04 to G11."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from actors import Broken, Echo, in_process
from scripted_server import Scripted, state_of

import supervisors as sup
from supervisors.testing import settle


async def test_g04_one_handler_at_a_time_and_first_in_first_out(node: sup.Node) -> None:
    running = 0
    order = []

    async def handle(server: Scripted, request: Any, from_: sup.From) -> Any:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(1)
        order.append(request)
        running -= 1
        return sup.Reply(request * 2)

    pid = await node.start(Scripted, call=handle)
    requests = [sup.send_request(pid, n) for n in range(20)]
    assert [await request.wait() for request in requests] == [2 * n for n in range(20)]
    assert order == list(range(20))


async def test_g04_messages_of_one_sender_keep_their_order_whatever_their_kind(node: sup.Node) -> None:
    pid = await node.start(Scripted)

    async def sender(name: str) -> None:
        for n in range(0, 30, 3):
            sup.cast(pid, (name, n))
            sup.send(pid, (name, n + 1))
            await sup.call(pid, (name, n + 2))

    for process in [node.spawn(sender, name) for name in "abc"]:
        await sup.wait_down(process)
    seen = [entry[1] for entry in (await state_of(pid)).log if entry[0] != "init"]
    assert len(seen) == 90
    for name in "abc":
        assert [n for who, n in seen if who == name] == list(range(30))


async def test_g05_reply_later_from_any_task(node: sup.Node) -> None:
    waiting: list[sup.From] = []

    def keep(server: Scripted, request: Any, from_: sup.From) -> Any:
        waiting.append(from_)
        return sup.NO_REPLY

    pid = await node.start(Scripted, call=keep)
    request = sup.send_request(pid, "x")
    await settle()
    assert not request.done
    sup.reply(waiting[0], "later")
    assert await request.wait() == "later"
    request = sup.send_request(pid, "y")
    await settle()
    node.spawn(answer_from_process, waiting[1])
    assert await request.wait() == "from another process"


async def answer_from_process(from_: sup.From) -> None:
    sup.reply(from_, "from another process")


async def test_g06_timeout_hits_the_caller_only_and_the_late_reply_is_dropped(node: sup.Node) -> None:
    async def slow(server: Scripted, request: Any, from_: sup.From) -> Any:
        await trio.sleep(request)
        return sup.Reply("late")

    pid = await node.start(Scripted, call=slow)

    async def caller() -> None:
        began = trio.current_time()
        with pytest.raises(sup.CallTimeout):
            await sup.call(pid, 2, timeout=1)
        assert trio.current_time() - began == pytest.approx(1)
        assert await sup.call(pid, 0) == "late"
        await trio.sleep(10)
        assert len(sup.self().mailbox) == 0

    await in_process(node, caller)
    assert pid.alive
    assert pid._calls == {}


async def test_g07_dead_or_unknown_target_is_noproc_at_once(node: sup.Node) -> None:
    pid = await node.start(Echo)
    await sup.stop(pid)
    for target in (pid, node.registry.via("unknown"), sup.IGNORE):
        with pytest.raises(sup.NoProc):
            await sup.call(target, 1)
        with pytest.raises(sup.NoProc):
            await sup.send_request(target, 1).wait()


@pytest.mark.parametrize("how", ["crash", "stop", "kill"])
@pytest.mark.parametrize("where", ["handled", "queued"])
async def test_g08_end_of_the_server_fails_its_callers_at_once(node: sup.Node, how: str, where: str) -> None:
    async def handle(server: Scripted, request: Any, from_: sup.From) -> Any:
        await trio.sleep(1)
        if how == "crash":
            raise Broken("handler")
        if how == "stop":
            return sup.Stop("stopped")
        return await trio.sleep_forever()

    pid = await node.start(Scripted, call=handle)
    handled = sup.send_request(pid, 1)
    queued = sup.send_request(pid, 2)
    if how == "kill":
        await trio.sleep(2)
        sup.exit(pid, sup.Killed())
    with pytest.raises(sup.ServerExited) as exited:
        await (handled if where == "handled" else queued).wait()
    assert exited.value.reason == pid.exit_reason
    if how == "crash":
        assert isinstance(pid.exit_reason, sup.Crashed)
    else:
        assert pid.exit_reason == ("stopped" if how == "stop" else sup.Killed())


async def test_g09_calling_or_stopping_oneself_is_refused(node: sup.Node) -> None:
    async def call_self(server: Scripted, request: Any, from_: sup.From) -> Any:
        with pytest.raises(sup.CallingSelf):
            await sup.call(sup.self(), "again")
        with pytest.raises(sup.CallingSelf):
            await sup.stop(sup.self())
        return sup.Reply("survived")

    pid = await node.start(Scripted, call=call_self)
    assert await sup.call(pid, 1) == "survived"


async def test_g09_longer_circle_is_a_deadlock_that_names_the_chain(node: sup.Node) -> None:
    servers: list[sup.Pid[Any]] = []

    async def pass_on(server: Scripted, request: int, from_: sup.From) -> Any:
        return sup.Reply(await sup.call(servers[(request + 1) % 3], request + 1))

    servers += [await node.start(Scripted, call=pass_on) for _ in range(3)]
    with pytest.raises(sup.ServerExited):
        await sup.call(servers[0], 0)
    reason = servers[2].exit_reason
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, sup.Deadlock)
    assert reason.exception.chain == (servers[2], servers[0], servers[1], servers[2])


async def test_g09_init_that_calls_its_starter_is_a_deadlock(node: sup.Node) -> None:
    async def starter() -> Any:
        me = sup.self()

        async def call_back(server: Scripted) -> None:
            await sup.call(me, "hello", timeout=100)

        with pytest.raises(sup.StartFailed) as failed:
            await sup.start(Scripted, init=call_back)
        assert isinstance(failed.value.__cause__, sup.Deadlock)

    await in_process(node, starter)
    assert trio.current_time() == 0


async def test_g10_second_reply_is_ignored(node: sup.Node) -> None:
    def twice(server: Scripted, request: Any, from_: sup.From) -> Any:
        sup.reply(from_, "first")
        sup.reply_error(from_, Broken("second"))
        return sup.Reply("third")

    pid = await node.start(Scripted, call=twice)
    assert [await sup.call(pid, n) for n in range(2)] == ["first", "first"]


async def test_g11_cast_never_blocks_and_is_silent_to_the_dead(node: sup.Node) -> None:
    pid = await node.start(Scripted)
    for n in range(1000):
        sup.cast(pid, n)
    await settle()
    assert [entry[1] for entry in (await state_of(pid)).log if entry[0] == "cast"] == list(range(1000))
    await sup.stop(pid)
    sup.cast(pid, "to the dead")
    sup.cast(node.registry.via("unknown"), "to nobody")
    sup.send(pid, "to the dead")


async def test_reply_error_raises_in_the_caller_and_the_server_lives(node: sup.Node) -> None:
    def refuse(server: Scripted, request: Any, from_: sup.From) -> Any:
        sup.reply_error(from_, Broken("refused"))
        return sup.NO_REPLY

    pid = await node.start(Scripted, call=refuse)
    with pytest.raises(Broken, match="refused"):
        await sup.call(pid, 1)
    assert pid.alive


async def test_bounded_mailbox_refuses_casts_and_lets_calls_wait(node: sup.Node) -> None:
    class Bounded(Echo):
        mailbox_limit = 2

        async def handle_call(self, request: Any, from_: sup.From) -> Any:
            await trio.sleep(1)
            return sup.Reply(request)

    pid = await node.start(Bounded)
    first = sup.send_request(pid, 0)
    await settle()
    sup.cast(pid, "a")
    sup.cast(pid, "b")
    with pytest.raises(sup.MailboxFull) as full:
        sup.cast(pid, "c")
    assert full.value.limit == 2
    with pytest.raises(sup.CallTimeout):
        await sup.call(pid, 1, timeout=0.5)
    assert await sup.call(pid, 2, timeout=3) == 2
    assert await first.wait() == 0
    await sup.suspend(pid)
    sup.cast(pid, "a")
    sup.cast(pid, "b")
    async with trio.open_nursery() as nursery:

        async def blocked() -> None:
            with pytest.raises(sup.NoProc):
                await sup.call(pid, 3)

        nursery.start_soon(blocked)
        await settle()
        sup.exit(pid, sup.Killed())


async def test_an_answer_from_another_thread_is_refused_and_the_call_stays_as_it_was(node: sup.Node) -> None:
    waiting: list[sup.From] = []

    async def defer(server: Scripted, request: Any, from_: sup.From) -> Any:
        waiting.append(from_)
        return sup.NO_REPLY

    pid = await node.start(Scripted, call=defer)
    answers: list[Any] = []
    collection: sup.RequestCollection[str] = sup.RequestCollection()
    collection.add(sup.send_request(pid, "x"), "x")

    async def ask() -> None:
        answers.append(await sup.call(pid, "y", math.inf))

    async def wait_any() -> None:
        answers.append((await collection.wait_any()).value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(wait_any)
        await settle()
        for from_ in waiting:
            with pytest.raises(RuntimeError):
                await trio.to_thread.run_sync(sup.reply, from_, "from a thread")
        assert answers == []
        for from_ in waiting:
            await trio.to_thread.run_sync(trio.from_thread.run_sync, sup.reply, from_, "answer")
    assert answers == ["answer", "answer"]
