"""What the callbacks of a generic server are called for and may return: rows G12 to G15 and G18."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from scripted_server import Scripted, state_of

import supervisors as sup
from supervisors.testing import settle


async def test_g12_other_messages_go_to_handle_info_and_default_warns(
    node: sup.Node, caplog: pytest.LogCaptureFixture
) -> None:
    pid = await node.start(Scripted)
    sup.send(pid, "hello")
    await settle()
    assert ("info", "hello") in (await state_of(pid)).log
    plain = await node.start(sup.GenServer)
    sup.send(plain, "hello")
    await settle()
    assert plain.alive
    assert "unexpected message 'hello'" in caplog.text


@pytest.mark.parametrize("send", [sup.cast, sup.send_request])
async def test_g12_missing_handler_crashes(node: sup.Node, send: Any) -> None:
    pid = await node.start(sup.GenServer)
    send(pid, "hello")
    await settle()
    assert isinstance(pid.exit_reason, sup.Crashed)
    assert isinstance(pid.exit_reason.exception, NotImplementedError)


@pytest.mark.parametrize("origin", ["init", "call", "cast", "info", "continue"])
async def test_g13_continue_runs_before_anything_queued(node: sup.Node, origin: str) -> None:
    def go_on(server: Scripted, *args: Any) -> Any:
        if args and args[0] == "second":
            return None
        if origin == "continue" or args == ("chain",):
            return sup.Continue("second")
        return sup.Reply(1, sup.Continue("x")) if origin == "call" else sup.Continue("x")

    callbacks: dict[str, Any] = {} if origin == "continue" else {origin: go_on}
    if origin == "continue":
        callbacks = {"init": lambda server: sup.Continue("chain"), "continue": go_on}
    pid = await node.start(Scripted, **callbacks)
    if origin == "call":
        sup.send_request(pid, "start")
    elif origin == "cast":
        sup.cast(pid, "start")
    elif origin == "info":
        sup.send(pid, "start")
    request = sup.send_request(pid, "after") if origin != "call" else None
    sup.cast(pid, "after")
    await settle()
    if origin in ("cast", "info"):
        assert (await state_of(pid)).log[:4] == [("init",), (origin, "start"), ("continue", "x"), ("call", "after")]
    elif origin == "call":
        assert (await state_of(pid)).log[1:4] == [("call", "start"), ("continue", "x"), ("cast", "after")]
    elif origin == "init":
        assert (await state_of(pid)).log[:3] == [("init",), ("continue", "x"), ("call", "after")]
    else:
        log = (await state_of(pid)).log
        assert log[:4] == [("init",), ("continue", "chain"), ("continue", "second"), ("call", "after")]
    assert request is None or request.done


@pytest.mark.parametrize("asked", [sup.Continue("x"), sup.Timeout(0)])
async def test_g12_missing_handler_of_what_was_asked_for_crashes(node: sup.Node, asked: Any) -> None:
    class Asking(sup.GenServer):
        async def init(self) -> Any:
            return asked

    reason = await sup.wait_down(await node.start(Asking))
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, NotImplementedError)


async def test_g13_continue_can_stop(node: sup.Node) -> None:
    callbacks = {"init": lambda _: sup.Continue(1), "continue": lambda _, content: sup.Stop("enough")}
    pid = await node.start(Scripted, **callbacks)
    assert await sup.wait_down(pid) == "enough"


async def test_g14_timeout_fires_after_silence(node: sup.Node) -> None:
    fired = []

    def timeout(server: Scripted) -> None:
        fired.append(trio.current_time())

    pid = await node.start(Scripted, init=lambda _: sup.Timeout(5), silence=timeout)
    await trio.sleep(3)
    await sup.get_status(pid)
    await trio.sleep(10)
    assert fired == [5], "once, and a system message does not cancel it"
    at = trio.current_time() + 7
    await node.start(Scripted, init=lambda _: sup.TimeoutAt(at), silence=timeout)
    await trio.sleep(10)
    assert fired == [5, at]


@pytest.mark.parametrize("send", [sup.cast, sup.send, sup.send_request])
async def test_g14_any_message_cancels_the_timeout(node: sup.Node, send: Any) -> None:
    fired = []
    pid = await node.start(Scripted, init=lambda _: sup.Timeout(5), silence=lambda _: fired.append(1))
    await trio.sleep(3)
    send(pid, "message")
    await trio.sleep(10)
    assert fired == []


@pytest.mark.parametrize("origin", ["call", "cast", "info", "continue", "silence", "no reply"])
async def test_g14_timeout_may_be_asked_for_by_any_callback(node: sup.Node, origin: str) -> None:
    fired = []

    def silence(server: Scripted) -> Any:
        fired.append(trio.current_time())
        return sup.Timeout(2) if origin == "silence" and len(fired) == 1 else None

    results: dict[str, Any] = {
        "call": lambda *_: sup.Reply(1, sup.Timeout(2)),
        "no reply": lambda *_: sup.NoReply(sup.Timeout(2)),
        "cast": lambda *_: sup.NoReply(sup.Timeout(2)),
        "info": lambda *_: sup.Timeout(2),
        "continue": lambda *_: sup.Timeout(2),
    }
    callbacks = {"silence": silence}
    if origin in ("continue", "silence"):
        callbacks["init"] = lambda _: sup.Continue() if origin == "continue" else sup.Timeout(1)
    if origin != "silence":
        callbacks["call" if origin == "no reply" else origin] = results[origin]
    pid = await node.start(Scripted, **callbacks)
    send: Any = {"call": sup.send_request, "no reply": sup.send_request, "cast": sup.cast, "info": sup.send}.get(origin)
    if send is not None:
        send(pid, "message")
    await trio.sleep(10)
    assert fired == ([1, 3] if origin == "silence" else [2])


async def test_g15_explicit_timeout_zero_comes_before_what_is_queued(node: sup.Node) -> None:
    pid = await node.start(Scripted, cast=lambda _, message: sup.Timeout(0) if message == 1 else None)
    sup.cast(pid, 1)
    sup.cast(pid, 2)
    await settle()
    assert (await state_of(pid)).log == [("init",), ("cast", 1), ("silence",), ("cast", 2)]


async def test_g15_explicit_timeout_zero_from_init_comes_before_what_came_meanwhile(node: sup.Node) -> None:
    async def init(server: Scripted) -> Any:
        sup.cast(sup.self(), "queued")
        return sup.Timeout(0)

    pid = await node.start(Scripted, init=init)
    await settle()
    assert (await state_of(pid)).log == [("init",), ("silence",), ("cast", "queued")]


@pytest.mark.parametrize("callback", ["init", "call", "cast", "info", "continue", "silence"])
async def test_g18_wrong_return_value_crashes_with_it(node: sup.Node, callback: str) -> None:
    callbacks: dict[str, Any] = {callback: lambda *_: "nonsense"}
    if callback == "init":
        with pytest.raises(sup.StartFailed) as failed:
            await node.start(Scripted, **callbacks)
        reason = failed.value.reason
    else:
        if callback in ("continue", "silence"):
            callbacks["init"] = lambda _: sup.Continue(1) if callback == "continue" else sup.Timeout(1)
        pid = await node.start(Scripted, **callbacks)
        if callback == "call":
            with pytest.raises(sup.ServerExited) as exited:
                await sup.call(pid, 1)
            assert exited.value.reason == pid.exit_reason
        elif callback == "cast":
            sup.cast(pid, 1)
        elif callback == "info":
            sup.send(pid, 1)
        reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, sup.BadReturnValue)
    assert reason.exception.value == "nonsense"


async def test_work_in_pieces_lets_others_run_between_two(node: sup.Node) -> None:
    class Chunks(sup.GenServer):
        done = 0

        async def init(self) -> Any:
            return sup.Continue()

        async def handle_continue(self, content: object) -> Any:
            self.done += 1
            assert self.done < 1000, "nobody else ran"
            return sup.Continue()

    pid = await node.start(Chunks)
    sup.exit(pid, sup.Killed())
    assert await sup.wait_down(pid) == sup.Killed()
