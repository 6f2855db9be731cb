"""One round of the workloads that pykka knows; prints the figures as JSON. Run by `bench/supervisors.py`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pykka

clock = time.perf_counter if os.environ.get("BENCH_CLOCK") == "wall" else time.process_time
CALLERS = 100


class Echo(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


def calls(actor: pykka.ActorRef[Echo], count: int) -> float:
    """Asks a second, one after the other."""
    started = clock()
    for _ in range(count):
        actor.ask(1)
    return count / (clock() - started)


def measure_calls(count: int) -> float:
    actor = Echo.start()
    calls(actor, count // 10)
    return calls(actor, count)


def measure_many_callers(count: int) -> float:
    """Asks a second when many threads ask one actor at the same time."""
    actor = Echo.start()

    def caller() -> None:
        for _ in range(count // CALLERS):
            actor.ask(1)

    started = clock()
    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (clock() - started)


def measure_casts(count: int) -> float:
    actor = Echo.start()
    started = clock()
    for _ in range(count):
        actor.tell(1)
    actor.ask(0)
    return count / (clock() - started)


def measure_starts(count: int) -> float:
    started = clock()
    for _ in range(count):
        Echo.start().stop()
    return count / (clock() - started)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure_memory(count: int) -> float:
    """Resident bytes of an idle actor with its thread."""
    before = resident_bytes()
    actors = [Echo.start() for _ in range(count)]
    for actor in actors:
        actor.ask(1)  # its thread has started
    return (resident_bytes() - before) / count


def measure_beside(actors: int, count: int) -> float:
    for _ in range(actors):
        Echo.start()
    return measure_calls(count)


def measure(sizes: dict[str, int]) -> dict[str, float]:
    few = sizes["calls"] // 2
    found = {
        "calls": measure_calls(few),
        "calls_of_many": measure_many_callers(few),
        "casts": measure_casts(sizes["casts"] // 4),
        "starts": measure_starts(sizes["starts"] // 4),
        "memory": measure_memory(200),
    }
    pykka.ActorRegistry.stop_all()
    for actors in (10, 1_000):
        found[f"calls_beside_{actors}"] = measure_beside(actors, few // 2)
        pykka.ActorRegistry.stop_all()
    return found


if __name__ == "__main__":
    json.dump(measure(json.loads(sys.argv[1])), sys.stdout)
