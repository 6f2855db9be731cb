"""Supervisors driven at random, step by step in virtual time, against a pure model."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from guest_loop import GuestLoop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from supervisor_model import Ended, ModelChild, SupervisorModel

import supervisors as sup
from supervisors.testing import settle

IDS = st.sampled_from("abcd")
QUARTERS = st.integers(0, 24).map(lambda n: n / 4)  # sums of these are exact
REASONS = {"crash": "crash", "normal": sup.Normal(), "shutdown": sup.Shutdown("by itself")}


class Script:
    """What the puppets shall do, and what they did."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.failing: dict[str, int] = {}
        self.hanging: set[str] = set()
        self.released = trio.Event()


class Puppet(sup.GenServer):
    def __init__(self, script: Script, id: str, stop_seconds: float) -> None:
        self.script = script
        self.id = id
        self.stop_seconds = stop_seconds

    async def init(self) -> None:
        script = self.script
        script.log.append(("try", self.id))
        if script.failing.get(self.id, 0) > 0:
            script.failing[self.id] -= 1
            raise RuntimeError(self.id)
        if self.id in script.hanging:
            script.hanging.remove(self.id)
            script.released = trio.Event()
            await script.released.wait()
        script.log.append(("up", self.id))

    async def handle_cast(self, reason: Any) -> Any:
        return sup.Stop(reason)

    async def terminate(self, reason: object) -> None:
        if reason == sup.Shutdown():  # the supervisor's, not its own
            await trio.sleep(self.stop_seconds)
            self.script.log.append(("down", self.id))


async def outcome_of(command: Callable[..., Awaitable[Any]], *args: Any) -> str:
    """The name of the error, or ok; a hang is one too."""
    try:
        with trio.fail_after(1000):
            await command(*args)
    except sup.SupervisorsError as exc:
        return type(exc).__name__
    return "ok"


class Supervision(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)  # thousands of crashes
        self.loop = GuestLoop()
        self.script = Script()
        self.block = sup.open_node(stall_seconds=math.inf)
        self.node = self.loop.do(self.block.__aenter__)
        self.model = SupervisorModel("one_for_one", 1, 1, "never", None)
        self.pid: Any = None

    # -- what the rules need

    def child(self, data: Any, id: str) -> tuple[ModelChild, sup.ChildSpec]:
        auto = self.model.auto != "never"
        restarts = ["transient", "transient", "permanent", "temporary"]
        restart = data.draw(st.sampled_from(restarts if auto else ["permanent", *restarts]), "restart")
        significant = auto and restart != "permanent" and data.draw(st.booleans(), "significant")
        stop_seconds = data.draw(st.sampled_from([0.0, 0.0, 0.25, 0.25, 1.0, 100.0]), "stop_seconds")
        shutdown = data.draw(st.sampled_from([5.0, 5.0, 0.5, sup.BRUTAL_KILL]), "shutdown")
        seconds = 0.0 if shutdown is sup.BRUTAL_KILL else shutdown
        model = ModelChild(id, restart, significant, stop_seconds, seconds)
        spec = sup.ChildSpec(
            id=id,
            start=(Puppet, (self.script, id, stop_seconds)),
            restart=restart,
            significant=significant,
            shutdown=shutdown,
        )
        return model, spec

    def known(self, data: Any, *states: str) -> ModelChild | None:
        """One of the model's children."""
        fitting = [
            child
            for child in self.model.children.values()
            if ("up" if child.alive else "restarting" if child.restarting else "down") in states
        ]
        return data.draw(st.sampled_from(fitting), "child") if fitting else None

    def catch_up(self) -> None:
        """Let the supervisor have the time that the model says it needs."""
        self.model.run_until()

        async def wait() -> None:
            await trio.sleep_until(self.model.now)
            await settle()

        self.loop.do(wait)

    def stop_model(self) -> None:
        with suppress(Ended):
            self.model.stop_all()

    def command(self, expected: str, command: Callable[..., Awaitable[Any]], *args: Any) -> None:
        assert self.loop.do(outcome_of, command, *args) == expected
        self.catch_up()

    # -- rules

    def running(self) -> bool:
        return self.pid is not None and not self.model.ended

    def idle(self) -> bool:
        return self.running() and self.model.hung is None

    @precondition(lambda self: not self.running())
    @rule(
        data=st.data(),
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
        intensity=st.sampled_from([20, 5, 2, 1, 0]),
        period=st.sampled_from([2.0, 0.25, 10.0]),
        auto_shutdown=st.sampled_from(["never", "never", "any_significant", "all_significant"]),
        backoff=st.sampled_from([(0.25, 2.0, 4.0, 6.0), None, (0.5, 2.0, 4.0, 1.0), (2.0, 1.0, 2.0, 0.5)]),
        ids=st.permutations("abcd"),
        count=st.sampled_from([3, 4, 2, 1, 0]),
        failing=st.sampled_from([*[None] * 20, *"abcd"]),
    )
    def start(
        self,
        data: Any,
        strategy: Any,
        intensity: int,
        period: float,
        auto_shutdown: Any,
        backoff: Any,
        ids: list[str],
        count: int,
        failing: str | None,
    ) -> None:
        model = self.model = SupervisorModel(strategy, intensity, period, auto_shutdown, backoff, self.model.now)
        self.script.__init__()  # type: ignore[misc]
        self.pid = None
        wait = None if backoff is None else sup.Backoff(*backoff[:3], jitter=0, reset_after=backoff[3])
        flags = sup.SupervisorFlags(strategy, intensity, period, auto_shutdown, wait)
        children = [self.child(data, id) for id in ids[:count]]
        if failing is not None:
            model.failing[failing] = self.script.failing[failing] = 1

        async def start() -> Any:
            try:
                return await self.node.start(sup.Supervisor, flags, [spec for _, spec in children])
            except sup.StartFailed as exc:
                return exc.reason

        for child, _ in children:
            model.children[child.id] = child
            if not model.run(model.start(child)):
                del model.children[child.id]
                self.stop_model()
                break
        result = self.loop.do(start)
        if model.ended:
            assert isinstance(result, sup.FailedToStartChild)
            assert result.id == failing
        else:
            self.pid = result
        self.catch_up()

    @precondition(running)
    @rule(data=st.data(), reason=st.sampled_from(sorted(REASONS)))
    def child_ends_by_itself(self, data: Any, reason: str) -> None:
        child = self.known(data, "up")
        if child is not None:
            self.end(child, reason)

    @precondition(running)
    @rule(data=st.data())
    def child_crashes(self, data: Any) -> None:
        child = self.known(data, "up")
        if child is not None:
            self.end(child, "crash")

    @precondition(running)
    @rule(data=st.data(), count=st.integers(1, 3))
    def child_crashes_and_fails_to_start(self, data: Any, count: int) -> None:
        child = self.known(data, "up")
        if child is not None:
            self.model.failing[child.id] = self.script.failing[child.id] = count
            self.end(child, "crash")

    @precondition(idle)
    @rule(data=st.data(), which=IDS)
    def child_crashes_and_a_start_hangs(self, data: Any, which: str) -> None:
        child = self.known(data, "up")
        if child is not None:
            self.model.hanging.add(which)
            self.script.hanging.add(which)
            self.end(child, "crash")

    def end(self, child: ModelChild, reason: str) -> None:

        async def end() -> None:
            pid = (await sup.which_child(self.pid, child.id)).pid
            sup.cast(pid, REASONS[reason])  # type: ignore[arg-type]
            await settle()

        self.loop.do(end)
        self.model.end(child, reason)
        self.catch_up()

    @precondition(lambda self: self.running() and not self.idle())
    @rule()
    def hanging_start_goes_on(self) -> None:
        self.script.released.set()
        self.model.run(self.model.operation, True)
        self.catch_up()

    @precondition(running)
    @rule(seconds=QUARTERS | st.sampled_from(["period", "reset_after"]))
    def time_passes(self, seconds: Any) -> None:
        """Some seconds, or just as many as the window has, or a child needs to begin its backoff anew."""
        self.model.run_until(self.model.now + (getattr(self.model, seconds) if isinstance(seconds, str) else seconds))
        self.catch_up()

    @precondition(idle)
    @rule(data=st.data(), id=IDS)
    def start_child(self, data: Any, id: str) -> None:
        model = self.model
        child, spec = self.child(data, id)
        self.no_hang(id)
        present = model.children.get(id)
        if present is not None:
            expected = "AlreadyStarted" if present.alive else "AlreadyPresent"
        else:
            expected = "ok" if model.run(model.start(child)) else "StartFailed"
            if expected == "ok":
                model.children[id] = child
        self.command(expected, sup.start_child, self.pid, spec)

    def no_hang(self, id: str) -> None:
        self.model.hanging.discard(id)
        self.script.hanging.discard(id)

    @precondition(running)
    @rule(data=st.data(), id=IDS)
    def terminate_child(self, data: Any, id: str) -> None:
        model, child = self.model, self.model.children.get(id)
        if model.hung is not None:
            child = self.known(data, "restarting")  # any other command is put off
            assert child is not None
            id = child.id
        if child is not None:
            model.terminate(child)
        self.command("NotFound" if child is None else "ok", sup.terminate_child, self.pid, id)

    @precondition(idle)
    @rule(id=IDS, kind=st.sampled_from(["restart", "delete"]))
    def restart_or_delete_child(self, id: str, kind: str) -> None:
        model, child = self.model, self.model.children.get(id)
        self.no_hang(id)
        if child is None:
            expected = "NotFound"
        elif child.restarting or child.alive:
            expected = "ChildRestarting" if child.restarting else "ChildRunning"
        elif kind == "delete":
            del model.children[id]
            expected = "ok"
        else:
            expected = "ok" if model.run(model.start(child)) else "StartFailed"
        self.command(expected, sup.restart_child if kind == "restart" else sup.delete_child, self.pid, id)

    @precondition(running)
    @rule(really=st.sampled_from([False] * 9 + [True]))
    def supervisor_is_stopped(self, really: bool) -> None:
        if not really:
            return
        self.stop_model()
        self.command("ok", sup.stop, self.pid, sup.Shutdown())

    # -- what always holds

    @invariant()
    def the_same_has_happened_at_the_same_time(self) -> None:
        assert self.script.log == self.model.log

        async def look() -> tuple[float, Any]:
            alive = self.pid is not None and self.pid.alive
            return trio.current_time(), await sup.which_children(self.pid) if alive else None

        now, children = self.loop.do(look)
        assert now == self.model.now
        if children is None:
            assert self.pid is None or self.model.ended
            assert self.pid is None or self.pid.exit_reason == sup.Shutdown()
            return
        assert not self.model.ended
        expected = [
            (child.id, "restarting" if child.restarting else "up" if child.alive else "down")
            for child in reversed(self.model.children.values())
        ]
        shown = {None: "down", sup.RESTARTING: "restarting"}
        assert [(info.id, shown.get(info.pid, "up")) for info in children] == expected

    def teardown(self) -> None:
        try:
            self.loop.do(self.block.__aexit__, None, None, None)
            assert self.node.processes == ()
        finally:
            self.loop.close()
            logging.disable(logging.NOTSET)


TestSupervision = Supervision.TestCase
TestSupervision.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
