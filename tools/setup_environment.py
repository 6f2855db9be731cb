"""Set up ``.venv``: ``python3 tools/setup_environment.py [--extra NAME ...]``; what ``make`` calls first.

Needs nothing but the standard library. This file alone must also run under interpreters that Paddock does not
support (it finds one that it does, and hands over to it), so it keeps to the syntax of Python 3.7. The work
is in ``environment/``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

SUPPORTED = ((3, 11), (3, 12), (3, 13))
NAMES = ("python3.13", "python3.12", "python3.11", "python3", "python")
PROBE = "import sys; print(sys.version_info[0], sys.version_info[1]); import venv, ensurepip"


def judge(exit_status: int, output: str) -> str | None:
    """Why an interpreter that answered ``PROBE`` so cannot be used; None when it can."""
    words = output.split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return "does not run"
    version = (int(words[0]), int(words[1]))
    if version not in SUPPORTED:
        return f"is Python {version[0]}.{version[1]}"
    if exit_status != 0:
        return f"has no venv module (on Debian and Ubuntu: apt install python{version[0]}.{version[1]}-venv)"
    return None


def probe(executable: str) -> str | None:
    """Ask one interpreter for its version and its venv module; returns what ``judge`` says."""
    try:
        answer = subprocess.run(
            [executable, "-c", PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "does not run"
    return judge(answer.returncode, answer.stdout.decode("ascii", "replace"))


def find_interpreter(
    probe: Callable[[str], str | None] = probe, which: Callable[[str], str | None] = shutil.which
) -> tuple[str | None, str]:
    """The first usable interpreter, this one before others; when there is none, a line of reasons."""
    rejected = []
    seen: set[str] = set()
    for candidate in [sys.executable, *map(which, NAMES)]:
        if not candidate or candidate in seen:
            continue
        seen.add(candidate)
        reason = probe(candidate)
        if reason is None:
            return candidate, ""
        rejected.append(f"{candidate} {reason}")
    return None, "Python 3.11, 3.12 or 3.13 is needed; " + "; ".join(rejected)


def main() -> int:
    if sys.version_info[:2] not in SUPPORTED or probe(sys.executable) is not None:
        executable, problem = find_interpreter()
        if executable is None:
            sys.stderr.write(f"set-up failed: {problem}\n")
            return 1
        os.execv(executable, [executable, os.path.abspath(__file__), *sys.argv[1:]])
    from environment.set_up import main as set_up

    return set_up(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
