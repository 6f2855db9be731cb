"""`supervisors` beside pykka and Erlang/OTP: calls, casts, starts, restarts, memory, and what must not grow.

Every peer runs the same workloads in a process of its own, round about (supervisors, pykka, Erlang, supervisors, ...);
shown is the median over the rounds with the lowest and the highest in brackets. Erlang's column says so where `erl` is
not installed.

* ``call``: one process calls a server, one call after the other, each with the default timeout;
* ``call, 100 callers``: the same from 100 processes (threads with pykka) at once, calls of all together;
* ``cast``: casts sent one after the other, handled included;
* ``spawn and exit``: a plain process that ends at once, and is waited for;
* ``start and stop``: a server, ready before it is stopped, ended before the next is started;
* ``crash to restart``: a supervised process that crashes with an exception, its crash report, the supervisor's report
  (both to a hook, none to the log), and its restart;
* ``idle server``: bytes by tracemalloc; with pykka the resident memory of an actor with its thread; with Erlang what
  the process says it has;
* ``stop``: a supervisor with 10,000 servers, dynamic (all at once) and static (strictly one after another);
* ``call beside N processes`` and ``call with N messages queued`` at the caller: neither may slow a call.

Times of the two Python peers are the CPU's (of all their threads) unless --wall is given, so that other work on the
machine counts little; this leaves out what pykka's threads wait for each other. Erlang's are those of the wall clock.

Usage: python bench/supervisors.py [--rounds N] [--quick] [--wall] [--json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import attrs

HERE = Path(__file__).resolve().parent

SIZES: Final = {
    "calls": 20_000,
    "casts": 100_000,
    "spawns": 5_000,
    "starts": 3_000,
    "restarts": 3_000,
    "memory": 1_000,
    "children": 10_000,
    "processes": 100_000,
    "queued": 500_000,
}
QUICK: Final = {name: size // 10 for name, size in SIZES.items()}
TIMEOUT_SECONDS = 300


@attrs.frozen
class Row:
    """One figure: rates count operations a second, more is better; the others are better when less."""

    key: str
    title: str
    unit: str = "/s"
    target: float | None = None
    times_pykka: float | None = None

    @property
    def is_rate(self) -> bool:
        return self.unit == "/s"


ROWS: Final = (
    Row("calls", "call", target=80_000, times_pykka=4),
    Row("calls_of_many", "call, 100 callers", target=80_000, times_pykka=4),
    Row("casts", "cast", target=200_000),
    Row("spawns", "spawn and exit", target=40_000),
    Row("starts", "start and stop", times_pykka=10),
    Row("restarts", "crash to restart", target=25_000),
    Row("memory", "idle server", "bytes", target=6 * 1024),
    Row("stop_dynamic", "stop {children:,} children, dynamic", "s", target=2),
    Row("stop_static", "stop {children:,} children, static", "s", target=2),
    Row("calls_beside_10", "call beside 10 processes"),
    Row("calls_beside_1000", "call beside 1,000 processes"),
    Row("calls_beside_many", "call beside {processes:,} processes"),
    Row("calls_queued", "call with {queued:,} messages queued"),
)

Figures = dict[str, float]


def run_python(peer: str, sizes: dict[str, int], clock: str) -> Figures:
    command = [sys.executable, str(HERE / "peers" / f"{peer}_peer.py"), json.dumps(sizes)]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "BENCH_CLOCK": clock}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_SECONDS
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def run_erlang(sizes: dict[str, int]) -> Figures:
    arguments = ", ".join(str(sizes[name]) for name in SIZES)
    source = HERE / "peers" / "otp_peer.erl"
    program = f'{{ok, M, B}} = compile:file("{source}", [binary]), code:load_binary(M, "", B), M:main([{arguments}]).'
    command = ["erl", "-noshell", "+P", "1000000", "-eval", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_SECONDS)
    figures: Figures = json.loads(done.stdout)
    return figures


def peers() -> dict[str, str | None]:
    """Who takes part; the value says why one does not."""
    return {
        "supervisors": None,
        "pykka": None if find_spec("pykka") else "not installed (pip install pykka)",
        "Erlang/OTP": None if shutil.which("erl") else "not installed (Debian: erlang-base)",
    }


def measure(rounds: int, sizes: dict[str, int], clock: str) -> dict[str, list[Figures]]:
    """The figures of every round of every peer that is there."""
    found: dict[str, list[Figures]] = {name: [] for name, absent in peers().items() if absent is None}
    for number in range(rounds):
        for name, results in found.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            results.append(run_erlang(sizes) if name == "Erlang/OTP" else run_python(name, sizes, clock))
    return found


def shown(value: float, row: Row) -> str:
    if row.is_rate:
        return f"{value / 1000:,.1f}k"
    return f"{value:,.0f}" if row.unit == "bytes" else f"{value:.2f}"


def cell(results: list[Figures], row: Row) -> str:
    values = [figures[row.key] for figures in results if row.key in figures]
    if not values:
        return "—"
    return f"{shown(statistics.median(values), row)} [{shown(min(values), row)}–{shown(max(values), row)}]"


def median(found: dict[str, list[Figures]], name: str, key: str) -> float | None:
    values = [figures[key] for figures in found.get(name, ()) if key in figures]
    return statistics.median(values) if values else None


def verdict(found: dict[str, list[Figures]], row: Row) -> str:
    """The targets and whether they are met."""
    ours = median(found, "supervisors", row.key)
    assert ours is not None
    parts = []
    if row.target is not None:
        met = ours >= row.target if row.is_rate else ours <= row.target
        parts.append(f"{'≥' if row.is_rate else '≤'} {shown(row.target, row)} {'yes' if met else 'NO'}")
    theirs = median(found, "pykka", row.key)
    if row.times_pykka is not None and theirs is not None:
        ratio = ours / theirs
        parts.append(f"≥ {row.times_pykka:g} × pykka {'yes' if ratio >= row.times_pykka else 'NO'} ({ratio:.1f} ×)")
    return ", ".join(parts)


def print_table(found: dict[str, list[Figures]], sizes: dict[str, int]) -> None:
    lines = [("", *peers(), "target")]
    for row in ROWS:
        title = f"{row.title.format(**sizes)}, {row.unit}"
        lines.append((title, *(cell(found.get(name, []), row) for name in peers()), verdict(found, row)))
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    few, many = (median(found, "supervisors", key) for key in ("calls_beside_10", "calls_beside_many"))
    plain, queued = (median(found, "supervisors", key) for key in ("calls", "calls_queued"))
    if few and many:
        print(f"\ncall beside {sizes['processes']:,} processes takes {few / many:.2f} × the time of one beside 10")
    if plain and queued:
        print(f"call with {sizes['queued']:,} messages queued takes {plain / queued:.2f} × the time of one without")
    for name, absent in peers().items():
        if absent is not None:
            print(f"{name}: {absent}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every peer (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the size")
    parser.add_argument("--wall", action="store_true", help="time by the wall clock instead of the CPU's")
    parser.add_argument("--json", action="store_true", help="all figures of all rounds as JSON")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else SIZES
    clock = "wall" if arguments.wall else "cpu"
    found = measure(1 if arguments.quick else max(1, arguments.rounds), sizes, clock)
    if arguments.json:
        absent = {name: why for name, why in peers().items() if why is not None}
        print(json.dumps({"clock": clock, "sizes": sizes, "figures": found, "absent": absent}, indent=2))
    else:
        print_table(found, sizes)


if __name__ == "__main__":
    main()
else:
    # Python looks for modules in the folder of a script first, so that the other scripts here, which want the package
    # of this name, come by this file: they get the package.
    del sys.modules[__name__]
    path = sys.path.copy()
    sys.path[:] = [entry for entry in path if Path(entry).resolve() != HERE]
    try:
        importlib.import_module(__name__)
    finally:
        sys.path[:] = path
