"""Rows G01 to G20 of the conformance list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from actors import Broken, Echo, in_process

import supervisors as sup
from supervisors.testing import settle


class Scripted(sup.GenServer):
    """Every callback is a function given from outside; what happens is logged."""

    def __init__(self, **callbacks: Callable[..., Any]) -> None:
        self.callbacks = callbacks
        self.log: list[Any] = []

    async def _run(self, name: str, default: Any, *args: Any) -> Any:
        self.log.append((name, *args[:1]))
        if name not in self.callbacks:
            return default
        result = self.callbacks[name](self, *args)
        return await result if isinstance(result, Awaitable) else result

    async def init(self) -> Any:
        return await self._run("init", None)

    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        return await self._run("call", sup.Reply(request), request, from_)

    async def handle_cast(self, message: Any) -> Any:
        return await self._run("cast", None, message)

    async def handle_info(self, message: Any) -> Any:
        return await self._run("info", None, message)

    async def handle_continue(self, content: Any) -> Any:
        return await self._run("continue", None, content)

    async def handle_timeout(self) -> Any:
        return await self._run("silence", None)

    async def terminate(self, reason: Any) -> None:
        await self._run("terminate", None, reason)


def crashing(*_: Any) -> Any:
    raise Broken("handler")


async def wait(*_: Any) -> None:
    await trio.sleep_forever()


async def state_of(pid: sup.Pid[Scripted]) -> Scripted:
    server: Scripted = await sup.get_state(pid)
    return server


async def test_g01_ready_when_start_returns(node: sup.Node) -> None:
    ready = []

    async def slow(server: Scripted) -> None:
        await trio.sleep(3)
        ready.append(True)

    pid = await node.start(Scripted, init=slow, name="slow")
    assert ready == [True]
    assert sup.whereis(node.registry.via("slow")) is pid

    async def starters() -> None:
        linked = await sup.start_link(Scripted)
        monitored, ref = await sup.start_monitor(Scripted)
        sup.exit(monitored, "bye")
        down = await sup.receive()
        assert (down.ref, down.pid, down.reason) == (ref, monitored, "bye")
        sup.trap_exits()
        sup.exit(linked, "bye")
        assert await sup.receive() == sup.ExitSignal(linked, "bye")

    await in_process(node, starters)


async def test_g01_init_that_crashes_cannot_hang_the_starter(node: sup.Node) -> None:
    async def die(server: Scripted) -> None:
        await trio.sleep(1)
        sup.exit(sup.self(), sup.Killed())
        await trio.sleep_forever()

    with pytest.raises(sup.StartFailed) as failed:
        await node.start(Scripted, init=die)
    assert failed.value.reason == sup.Killed()


@pytest.mark.parametrize("how", ["ignore", "stop", "exit", "raise", "timeout"])
async def test_g02_failed_starts_are_told_apart_and_free_the_name_at_once(
    node: sup.Node, how: str, reports: list[object]
) -> None:
    def ends(server: Scripted) -> Any:
        if how == "ignore":
            return sup.IGNORE
        if how == "stop":
            return sup.Stop("reason")
        if how == "exit":
            raise sup.Exit("reason")
        if how == "raise":
            raise Broken("init")
        return wait()

    for _ in range(100):
        if how == "ignore":
            assert await node.start(Scripted, init=ends, name="x") is sup.IGNORE
        elif how == "timeout":
            with pytest.raises(sup.StartTimeout):
                await node.start(Scripted, init=ends, name="x", timeout=1)
        else:
            with pytest.raises(sup.StartFailed) as failed:
                await node.start(Scripted, init=ends, name="x")
            if how == "raise":
                assert isinstance(failed.value.__cause__, Broken)
            else:
                assert failed.value.reason == "reason"
        assert node.registry.whereis("x") is None
    assert reports == [], "the starter was told: no crash report"
    await settle()
    assert node.processes == ()


async def test_g03_same_name_twice(node: sup.Node) -> None:
    first = await node.start(Echo, name="echo")
    with pytest.raises(sup.AlreadyStarted) as taken:
        await node.start(Echo, name="echo")
    assert taken.value.pid is first
    assert await sup.call(first, 1) == 1


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


async def test_g13_continue_can_stop(node: sup.Node) -> None:
    callbacks = {"init": lambda _: sup.Continue(1), "continue": lambda _, content: sup.Stop("enough")}
    pid = await node.start(Scripted, **callbacks)
    assert await sup.wait_down(pid) == "enough"


async def test_g14_timeout_fires_after_silence_and_messages_cancel_it(node: sup.Node) -> None:
    fired = []

    def timeout(server: Scripted) -> None:
        fired.append(trio.current_time())

    pid = await node.start(Scripted, init=lambda _: sup.Timeout(5), silence=timeout)
    await trio.sleep(3)
    await sup.get_status(pid)
    await trio.sleep(10)
    assert fired == [5], "a system message does not cancel it"
    pid = await node.start(Scripted, init=lambda _: sup.Timeout(5), silence=timeout)
    await trio.sleep(3)
    sup.cast(pid, "message")
    await trio.sleep(10)
    assert fired == [5], "a message cancels it"
    at = trio.current_time() + 7
    await node.start(Scripted, init=lambda _: sup.TimeoutAt(at), silence=timeout)
    await trio.sleep(10)
    assert fired == [5, at]


async def test_g15_explicit_timeout_zero_comes_before_what_is_queued(node: sup.Node) -> None:
    pid = await node.start(Scripted, cast=lambda _, message: sup.Timeout(0) if message == 1 else None)
    sup.cast(pid, 1)
    sup.cast(pid, 2)
    await settle()
    assert (await state_of(pid)).log == [("init",), ("cast", 1), ("silence",), ("cast", 2)]


@pytest.mark.parametrize("by", ["pid", "name"])
async def test_g16_stop_runs_terminate_and_waits(node: sup.Node, by: str) -> None:
    seen = []

    async def slow(server: Scripted, reason: object) -> None:
        await trio.sleep(3)
        seen.append((trio.current_time(), reason))

    pid = await node.start(Scripted, terminate=slow, name="x")
    target: Any = pid if by == "pid" else node.registry.via("x")
    with pytest.raises(TypeError):
        await sup.stop(target, timeout="soon")  # type: ignore[arg-type]
    assert pid.alive
    await sup.stop(target, "reason")
    assert seen == [(3, "reason")]
    assert pid.exit_reason == "reason"
    with pytest.raises(sup.NoProc):
        await sup.stop(target)


async def test_g16_stop_of_one_that_dies_otherwise_or_hangs(node: sup.Node) -> None:
    pid = await node.start(Scripted, terminate=crashing)
    with pytest.raises(sup.ServerExited):
        await sup.stop(pid)
    hanging = await node.start(Scripted, terminate=wait)
    with pytest.raises(sup.CallTimeout):
        await sup.stop(hanging, timeout=2)


@pytest.mark.parametrize("reason", [sup.Normal(), sup.Shutdown(), sup.Shutdown("x")])
async def test_g17_orderly_exits_log_no_crash(
    node: sup.Node, reports: list[object], caplog: pytest.LogCaptureFixture, reason: object
) -> None:
    pid = await node.start(Scripted, cast=lambda _, message: sup.Stop(message))
    sup.cast(pid, reason)
    assert await sup.wait_down(pid) == reason
    assert reports == []
    assert caplog.records == []


async def test_g17_crash_report_names_everything_once(
    node: sup.Node, reports: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    pid = await node.start(Scripted, call=crashing)

    async def client() -> sup.Pid[Any]:
        with pytest.raises(sup.ServerExited):
            await sup.call(pid, "fatal request")
        return sup.self()

    caller = await in_process(node, client)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert report.pid is pid
    assert report.last_message == "fatal request"
    assert report.client is caller
    assert isinstance(report.state, dict)
    assert "Scripted" in report.started_as
    assert "Broken" in report.format()
    assert "crashing" in report.format(), "the traceback"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.report is report  # type: ignore[attr-defined]


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


async def test_g19_terminate_runs_on_stop_crash_and_shutdown_not_on_kill(node: sup.Node) -> None:
    seen: list[object] = []

    async def note(server: Scripted, reason: object) -> None:
        await trio.sleep(1)
        seen.append(reason)

    stopped, crashed, killed = [await node.start(Scripted, terminate=note, cast=crashing) for _ in range(3)]
    await sup.stop(stopped, "stop")
    sup.cast(crashed, 1)
    await sup.wait_down(crashed)
    sup.exit(killed, sup.Killed())
    assert await sup.wait_down(killed) == sup.Killed()
    spec = sup.child(Scripted, terminate=note)
    supervisor = await node.start(sup.Supervisor, sup.SupervisorFlags(), [spec])
    await sup.stop(supervisor, sup.Shutdown())
    assert seen == ["stop", crashed.exit_reason, sup.Shutdown()]


async def test_g19_crash_in_terminate_becomes_the_reason(node: sup.Node) -> None:
    pid = await node.start(Scripted, terminate=crashing)
    with pytest.raises(sup.ServerExited):
        await sup.stop(pid, "asked")
    assert isinstance(pid.exit_reason, sup.Crashed)
    assert isinstance(pid.exit_reason.exception, Broken)


async def test_g20_format_status_hides_and_a_faulty_one_hurts_nobody(node: sup.Node, reports: list[object]) -> None:
    class Hiding(Echo):
        secret = "password"

        def format_status(self) -> Any:
            return "hidden"

    class Faulty(Echo):
        def format_status(self) -> Any:
            raise Broken("format")

    hiding, faulty = await node.start(Hiding), await node.start(Faulty)
    assert (await sup.get_status(hiding))["state"] == "hidden"
    assert "Broken" in str((await sup.get_status(faulty))["state"])
    assert await sup.call(faulty, 1) == 1
    for pid in (hiding, faulty):
        sup.cast(pid, "crash")
        await sup.wait_down(pid)
    assert next(getattr(report, "state", None) for report in reports) == "hidden"
    assert len(reports) == 2


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


async def test_suspended_server_answers_system_messages_only(node: sup.Node) -> None:
    pid = await node.start(Echo)
    await sup.suspend(pid)
    await sup.suspend(pid)
    with pytest.raises(sup.CallTimeout):
        await sup.call(pid, 1)
    assert isinstance(await sup.get_state(pid), Echo)
    request = sup.send_request(pid, 2)
    await sup.resume(pid)
    assert await request.wait() == 2
