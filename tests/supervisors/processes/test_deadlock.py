"""Circles of processes that wait for each other are refused with the whole chain, whatever they wait by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from actors import Echo, in_process, wait_forever

import supervisors as sup
from supervisors.testing import settle


class Asking(sup.GenServer):
    """Does what it is called with; the answer is what that gives, or the error."""

    async def handle_call(self, request: Callable[[], Awaitable[Any]], from_: sup.From) -> Any:
        try:
            return sup.Reply(await request())
        except sup.SupervisorsError as exc:
            return sup.Reply(exc)


WAITS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "call": lambda pid: sup.call(pid, wait_forever),
    "stop": sup.stop,
    "wait_down": sup.wait_down,
    "get_state": sup.get_state,
    "send_request": lambda pid: sup.send_request(pid, wait_forever).wait(),
}


@pytest.mark.parametrize("how", WAITS)
async def test_wait_for_a_process_that_waits_for_this_one_is_refused(node: sup.Node, how: str) -> None:
    first, second = await node.start(Asking), await node.start(Asking)

    async def ask_second() -> Any:
        return await sup.call(second, wait_back, 1000)

    async def wait_back() -> Any:
        return await WAITS[how](first)

    error = await sup.call(first, ask_second, 1000)
    assert isinstance(error, sup.Deadlock)
    assert error.chain == (second, first, second)
    assert trio.current_time() == 0
    assert first.alive


@pytest.mark.parametrize("how", WAITS)
async def test_call_to_a_process_that_waits_for_this_one_is_refused(node: sup.Node, how: str) -> None:
    first, second = await node.start(Asking), await node.start(Asking)
    errors: list[Any] = []

    async def call_back() -> None:
        await trio.sleep(1)
        with pytest.raises(sup.Deadlock) as refused:
            await sup.call(first, "never answered", 1000)
        errors.append(refused.value)

    async def wait_for_second() -> Any:
        busy = sup.send_request(second, call_back)
        await trio.sleep(0.5)
        with trio.move_on_after(10):
            return await (busy.wait() if how == "send_request" else WAITS[how](second))

    await sup.call(first, wait_for_second, 1000)
    assert [error.chain for error in errors] == [(second, first, second)]


@pytest.mark.parametrize("how", [how for how in WAITS if how != "get_state"])
async def test_waiting_for_oneself_is_refused(node: sup.Node, how: str) -> None:
    pid = await node.start(Asking)
    assert isinstance(await sup.call(pid, lambda: WAITS[how](pid)), sup.CallingSelf)
    assert pid.alive


async def test_killed_process_is_waited_for_although_it_waits_for_this_one(node: sup.Node) -> None:
    async def body() -> None:
        me = sup.self()

        async def call_back() -> None:
            await sup.call(me, "never answered", 1000)

        for end in (sup.Killed(), sup.Shutdown()):
            pid = sup.spawn(call_back)
            await settle()
            with pytest.raises(sup.Deadlock):
                await sup.wait_down(pid)
            sup.exit(pid, end)
            assert await sup.wait_down(pid) == end
        pid = sup.spawn(call_back)
        await settle()
        await sup.stop(pid)  # a plain process is cancelled: that ends its wait
        assert pid.exit_reason == sup.Normal()

    await in_process(node, body)


async def test_process_that_was_just_answered_does_not_wait_any_more(node: sup.Node) -> None:
    async def server() -> None:
        message = await sup.receive()
        sup.reply(message.from_, "answer")
        answers.append(await sup.call(caller, "question"))

    async def asking() -> None:
        answers.append(await sup.call(pid, "x"))
        question = await sup.receive()
        sup.reply(question.from_, "answer to the question")

    answers: list[object] = []
    pid = node.spawn(server)
    caller = node.spawn(asking)
    assert await sup.wait_down(pid) == sup.Normal()
    assert answers == ["answer", "answer to the question"]


async def test_starter_does_not_wait_any_more_once_init_has_returned(node: sup.Node) -> None:
    class CallsItsStarter(sup.GenServer):
        def __init__(self, starter: sup.Pid[Any]) -> None:
            self.starter = starter

        async def init(self) -> Any:
            return sup.Continue("call")

        async def handle_continue(self, content: Any) -> None:
            answers.append(await sup.call(self.starter, "hello"))

    async def starter() -> None:
        await sup.start(CallsItsStarter, sup.self())
        message = await sup.receive()
        sup.reply(message.from_, "answer")

    answers: list[Any] = []
    await in_process(node, starter)
    await settle()
    assert answers == ["answer"]


async def test_circle_through_a_server_that_put_its_answer_off_is_not_refused(node: sup.Node) -> None:
    waiting: list[sup.From] = []

    class Putting(sup.GenServer):
        async def handle_call(self, request: Any, from_: sup.From) -> Any:
            waiting.append(from_)
            return sup.NO_REPLY

        async def handle_cast(self, message: sup.Pid[Any]) -> None:
            with pytest.raises(sup.CallTimeout):
                await sup.call(message, "x", 1)

    async def body() -> str:
        request = sup.send_request(pid, "x")
        await settle()
        sup.cast(pid, sup.self())
        with pytest.raises(sup.CallTimeout):
            await request.wait(5)
        sup.reply(waiting[0], "late")
        return await request.wait()

    pid = await node.start(Putting)
    assert await in_process(node, body) == "late"


async def test_another_task_of_a_process_may_wait_for_its_end(node: sup.Node) -> None:
    async def body() -> None:
        me = sup.self()

        async def waiting() -> None:
            with trio.CancelScope(shield=True):
                reasons.append(await sup.wait_down(me, 10))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting)
            await settle()
            with pytest.raises(sup.CallTimeout):
                await sup.wait_down(await node.start(Echo), 1)
            nursery.cancel_scope.shield = True

    reasons: list[Any] = []
    pid = node.spawn(body)
    reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, sup.CallTimeout), "it waited as long as it was told to, and was not refused"
