"""The benchmark that stands beside the package has its name, and must not stand in its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEER = ROOT / "bench" / "peers" / "supervisors_peer.py"
SIZES = dict.fromkeys(("calls", "casts", "spawns", "starts", "restarts", "memory", "children", "processes"), 100)


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts_beside_the_benchmark_get_the_package() -> None:
    beside = (
        "import sys; sys.path.insert(0, 'bench'); import supervisors; print(supervisors.call.__module__, sys.path[0])"
    )
    assert run("-c", beside).split() == ["supervisors.calls.call", "bench"]


def test_the_benchmark_explains_itself() -> None:
    assert "pykka and Erlang/OTP" in run("bench/supervisors.py", "--help")


def test_every_workload_gives_its_figure() -> None:
    figures = json.loads(run(str(PEER), json.dumps(SIZES | {"queued": 100})))
    assert len(figures) == 13
    assert all(value > 0 for value in figures.values())
