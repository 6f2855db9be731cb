"""Rows G21 to G23: any of several requests, all of several, and a caller with a long queue of its own."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import trio
from actors import Broken, Echo, in_process

import supervisors as sup
from supervisors.testing import settle


class Slow(sup.GenServer):
    """Answers after as many seconds as it is asked for; to anything else it crashes, gives an error or keeps still."""

    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        if request == "crash":
            raise Broken("slow")
        if request == "error":
            sup.reply_error(from_, Broken("given"))
            return sup.NO_REPLY
        if request == "never":
            return sup.NO_REPLY
        await trio.sleep(request)
        return sup.Reply(f"after {request}")


async def start_many(node: sup.Node, count: int) -> list[sup.Pid[Slow]]:
    return [await node.start(Slow) for _ in range(count)]


async def test_g21_whichever_answers_first_comes_first_by_its_label(node: sup.Node) -> None:
    requests: sup.RequestCollection[str] = sup.RequestCollection()
    for pid, seconds in zip(await start_many(node, 3), (3, 1, 2), strict=True):
        requests.add(sup.send_request(pid, seconds), f"label {seconds}")
    assert len(requests) == 3
    for seconds in (1, 2, 3):
        response = await requests.wait_any()
        assert (response.label, response.unwrap()) == (f"label {seconds}", f"after {seconds}")
        assert trio.current_time() == seconds
    assert len(requests) == 0
    with pytest.raises(sup.NoRequest):
        await requests.wait_any()


async def test_g21_timeout_and_cancellation_keep_the_rest(node: sup.Node) -> None:
    requests: sup.RequestCollection[int] = sup.RequestCollection()
    for pid, seconds in zip(await start_many(node, 2), (2, 4), strict=True):
        requests.add(sup.send_request(pid, seconds), seconds)
    with pytest.raises(sup.CallTimeout):
        await requests.wait_any(1)
    with trio.move_on_after(0.5) as scope:
        await requests.wait_any()
    assert scope.cancelled_caught
    assert len(requests) == 2
    assert repr(requests) == "<RequestCollection of 2, 0 of them answered>"
    assert (await requests.wait_any(1)).label == 2
    assert (await requests.wait_any()).label == 4


async def test_g21_dead_servers_and_errors_come_as_items(node: sup.Node) -> None:
    requests: sup.RequestCollection[str] = sup.RequestCollection()
    dead = await node.start(Slow)
    await sup.stop(dead)
    requests.add(sup.send_request(dead, 1), "dead")
    requests.add(sup.send_request(node.registry.via("nobody"), 1), "unknown")
    for label in ("crash", "error"):
        requests.add(sup.send_request(await node.start(Slow), label), label)
    given_up = sup.send_request(await node.start(Slow), 1)
    requests.add(given_up, "given up")
    given_up.abandon()
    responses = {(response := await requests.wait_any()).label: response for _ in range(5)}
    errors = {label: type(response.error) for label, response in responses.items()}
    assert errors == {
        "dead": sup.NoProc,
        "unknown": sup.NoProc,
        "crash": sup.ServerExited,
        "error": Broken,
        "given up": sup.RequestAbandoned,
    }
    with pytest.raises(Broken, match="given"):
        responses["error"].unwrap()


async def test_g21_the_same_request_is_not_taken_twice(node: sup.Node) -> None:
    requests: sup.RequestCollection[int] = sup.RequestCollection()
    (pid,) = await start_many(node, 1)
    request = sup.send_request(pid, 1)
    requests.add(request, 1)
    for collection in (requests, sup.RequestCollection[int]()):
        with pytest.raises(sup.DuplicateRequest):
            collection.add(request, 2)
    with pytest.raises(trio.BusyResourceError):
        await request.wait()
    dead = sup.send_request(node.registry.via("nobody"), 1)
    requests.add(dead, 3)
    with pytest.raises(sup.DuplicateRequest):
        requests.add(dead, 3)
    assert {(await requests.wait_any()).label for _ in range(2)} == {1, 3}


async def test_g21_answered_before_it_was_added(node: sup.Node) -> None:
    requests: sup.RequestCollection[str] = sup.RequestCollection()
    (pid,) = await start_many(node, 1)
    request = sup.send_request(pid, 1)
    await trio.sleep(2)
    requests.add(request, "early")
    assert await requests.wait_any(0) == sup.Response("early", "after 1")


async def test_g21_two_tasks_cannot_wait_for_one_collection(node: sup.Node) -> None:
    requests: sup.RequestCollection[int] = sup.RequestCollection()
    (pid,) = await start_many(node, 1)
    requests.add(sup.send_request(pid, 1), 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.wait_any)
        await settle()
        with pytest.raises(trio.BusyResourceError):
            await requests.wait_any()


async def test_request_that_was_abandoned_has_no_answer(node: sup.Node) -> None:
    request = sup.send_request(await node.start(Echo), 1)
    request.abandon()
    assert request.done
    with pytest.raises(sup.RequestAbandoned):
        await request.wait()
    sup.send_request(node.registry.via("nobody"), 1).abandon()


async def test_request_may_be_waited_for_again_after_a_timeout(node: sup.Node) -> None:
    request = sup.send_request(await node.start(Slow), 2)
    with pytest.raises(sup.CallTimeout):
        await request.wait(1)
    assert await request.wait() == "after 2"
    assert await request.wait() == "after 2"


async def test_g22_multi_call_tells_replies_from_the_bad(node: sup.Node) -> None:
    fast, dead, crashing, late, other = await start_many(node, 5)
    await sup.stop(dead)
    sup.cast(crashing, "no handle_cast: this crashes it")
    full = await node.start(Full)
    sup.cast(full, None)
    await settle()
    sup.cast(full, None)
    sup.send_request(late, 10)
    targets: list[sup.Target] = [fast, dead, crashing, late, full, node.registry.via("nobody"), other]
    began = trio.current_time()
    replies, bad = await sup.multi_call(targets, 1, timeout=3)
    assert trio.current_time() - began == 3, "one timeout for all"
    assert replies == [(fast, "after 1"), (other, "after 1")]
    assert [(target, type(error)) for target, error in bad] == [
        (dead, sup.NoProc),
        (crashing, sup.NoProc),
        (late, sup.CallTimeout),
        (full, sup.MailboxFull),
        (node.registry.via("nobody"), sup.NoProc),
    ]
    assert [error.timeout for _, error in bad if isinstance(error, sup.CallTimeout)] == [3]


class Full(Slow):
    mailbox_limit = 1

    async def handle_cast(self, message: None) -> None:
        await trio.sleep(100)


async def test_g22_multi_call_asks_all_at_the_same_time(node: sup.Node) -> None:
    pids = await start_many(node, 50)
    replies, bad = await sup.multi_call(pids, 1)
    assert trio.current_time() == 1
    assert ([pid for pid, _ in replies], bad) == (pids, [])
    assert await sup.multi_call([], 1) == ([], [])


async def test_g22_the_caller_itself_is_among_the_bad(node: sup.Node) -> None:
    async def body() -> None:
        replies, bad = await sup.multi_call([sup.self()], "x")
        assert (replies, [type(error) for _, error in bad]) == ([], [sup.CallingSelf])

    await in_process(node, body)


async def test_g22_cancelled_it_waits_for_nothing_any_more(node: sup.Node) -> None:
    (pid,) = await start_many(node, 1)
    with trio.move_on_after(1):
        await sup.multi_call([pid], "never", timeout=100)
    assert trio.current_time() == 1
    assert pid._calls == {}


class Untouchable(deque[Any]):
    """A queue that is only added to at its end: whoever looks at it or goes through it fails."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("the caller's queue was looked at")

    __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = __reversed__ = _refuse
    popleft = pop = remove = index = count = copy = extend = rotate = appendleft = _refuse


async def test_g23_a_call_does_not_look_at_the_queue_of_its_caller(node: sup.Node) -> None:
    pid = await node.start(Echo)
    deep = 500_000

    async def caller() -> None:
        mailbox = sup.self().mailbox
        queue = mailbox.queue
        for n in range(deep):
            queue.append((0, n, None))
        mailbox.queue = Untouchable(queue)
        sup.send(sup.self(), "one more")
        assert [await sup.call(pid, n) for n in range(3)] == [0, 1, 2]
        with pytest.raises(sup.CallTimeout):
            await sup.call(await node.start(Slow), "never")
        assert await sup.send_request(pid, 4).wait() == 4
        with pytest.raises(AssertionError):
            len(mailbox)
        mailbox.queue = queue
        assert await sup.receive() == 0

    await in_process(node, caller)


async def test_typed_requests_are_plain_objects_at_run_time(node: sup.Node) -> None:
    class Get(sup.Request[int]):
        pass

    class Describe(sup.Request[str, "Echo"]):
        __slots__ = ()

    pid = await node.start(Echo)
    for request in (Get(), Describe()):
        assert await sup.call(pid, request) is request
    assert Get.__bases__ == Describe.__bases__ == (sup.Request,)
    assert not hasattr(Describe(), "__dict__")
