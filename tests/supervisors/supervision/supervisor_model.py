"""A supervisor as a pure model: no tasks, no messages; its clock moves when an operation takes time."""

import math
from collections.abc import Generator

import attrs

# yields the child whose init hangs; is sent True when that goes on, False when it is given up
Step = Generator["ModelChild", bool, bool | None]


class Ended(Exception): ...


@attrs.define(eq=False)
class ModelChild:
    id: str
    restart: str
    significant: bool
    stop_seconds: float
    shutdown: float  # 0 for a brutal kill
    process: int | None = None  # until its end has been dealt with
    alive: bool = False
    restarting: bool = False
    failures: int = -1
    ready_at: float = math.inf

    def comes_back(self, reason: str) -> bool:
        return self.restart == "permanent" or (self.restart == "transient" and reason == "crash")


class SupervisorModel:
    def __init__(self, strategy, intensity, period, auto, backoff, now=0.0) -> None:
        self.strategy, self.intensity, self.period, self.auto, self.now = strategy, intensity, period, auto, now
        self.initial, self.factor, self.maximum, self.reset_after = backoff or (0, 1, 0, 0)
        self.children: dict[str, ModelChild] = {}
        self.failing, self.hanging = {}, set()  # how many of the next inits fail, whose next init hangs
        self.ended, self.operation, self.hung = False, None, None  # and whose init does, in the operation
        self.pending: list[tuple[float, list[ModelChild]]] = []  # groups to be started, and when
        self.log, self.times, self.exits, self.retries = [], [], [], []  # times: of restarts

    def start(self, child: ModelChild) -> Step:
        self.log.append(("try", child.id))
        if self.failing.get(child.id, 0) > 0:
            self.failing[child.id] -= 1
            return False
        if child.id in self.hanging:
            self.hanging.remove(child.id)
            if not (yield child):
                return False
        self.log.append(("up", child.id))
        child.process, child.alive, child.restarting, child.ready_at = len(self.log), True, False, self.now
        return True

    def stop(self, child: ModelChild) -> None:
        if child.alive:
            self.now += min(child.stop_seconds, child.shutdown)
            if child.stop_seconds < child.shutdown:
                self.log.append(("down", child.id))
        child.alive, child.process = False, None
        if child.restart == "temporary":
            self.children.pop(child.id, None)

    def stop_all(self) -> None:
        self.ended, self.hung = True, None
        for child in reversed(list(self.children.values())):
            self.stop(child)
        raise Ended

    def terminate(self, child: ModelChild) -> None:
        if not child.restarting:
            self.stop(child)
        child.restarting = False
        if child is self.hung:
            self.run(self.operation, False)

    def end(self, child: ModelChild, reason: str) -> None:
        child.alive = False
        self.exits.append((child, child.process, reason))
        if self.hung is not None and child.comes_back(reason) and self.hung in self.group(child):
            self.run(self.operation, False)  # given up, as its group is restarted anyway

    def group(self, failed: ModelChild) -> list[ModelChild]:
        everyone = list(self.children.values())
        later = everyone[everyone.index(failed) :]
        return {"one_for_one": [failed], "one_for_all": everyone, "rest_for_one": later}[self.strategy]

    def restart(self, failed: ModelChild) -> Step:
        self.times = [time for time in self.times if self.now - time <= self.period] + [self.now]
        if len(self.times) > self.intensity:
            self.stop_all()
        failed.failures = 0 if self.now - failed.ready_at >= self.reset_after else failed.failures + 1
        failed.ready_at = math.inf
        group = self.group(failed)
        for child in reversed(group):
            child.restarting = child.restart != "temporary"
            self.stop(child)
        if not self.initial:
            yield from self.start_group(group)
            return
        due = self.now + min(self.maximum, self.initial * self.factor**failed.failures)
        merged = [pending for pending in self.pending if set(pending[1]) <= set(group)]
        due = max([due, *(other for other, _ in merged)])
        self.pending = [pending for pending in self.pending if pending not in merged] + [(due, group)]

    def start_group(self, group: list[ModelChild]) -> Step:
        for place, child in enumerate(group):
            if child.restarting and not (yield from self.start(child)) and child.restarting:
                for later in group[place + 1 :]:
                    later.restarting = False
                self.retries.append(child)
                return

    def exited(self, child: ModelChild, process: int | None, reason: str) -> Step:
        if child.process != process:
            return
        child.process = None
        if child.comes_back(reason):
            yield from self.restart(child)
            return
        self.stop(child)
        others = any(c.significant and (c.restarting or c.process) for c in self.children.values())
        if child.significant and (self.auto == "any_significant" or not others):
            self.stop_all()

    def run(self, operation: Step, how: bool | None = None) -> bool:
        """Go on with an operation, to its end or to a hanging init; its result, False without one."""
        self.operation, self.hung = operation, None
        try:
            self.hung = operation.send(how)
        except (StopIteration, Ended) as end:
            return bool(getattr(end, "value", False))
        return False

    def run_until(self, until: float = -math.inf) -> None:
        """Do what there is to do up to the time ``until``, or to a hanging init."""
        while not self.hung and not self.ended:
            due, group = first = min(self.pending, key=lambda pending: pending[0], default=(math.inf, []))
            if self.exits:
                self.run(self.exited(*self.exits.pop(0)))
            elif self.retries:
                child = self.retries.pop(0)
                self.run(self.restart(child) if child.restarting else self.start_group([]))
            elif due <= max(self.now, until):
                self.now = max(self.now, due)
                self.pending.remove(first)
                self.run(self.start_group(group))
            else:
                break
        self.now = max(self.now, until)
