"""Runs the tests of the OTP conformance list and prints what came of each row.

    python tools/conformance.py             all rows
    python tools/conformance.py S G07       a suite, a row

Exits with 1 when a row has no test, or one of its tests did not pass. The rows stand in ``conformance_rows.toml``; a
test belongs to the row whose id its name begins with: ``test_s01_...``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import textwrap
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs

ROOT = Path(__file__).resolve().parents[1]
ROWS_FILE = Path(__file__).with_name("conformance_rows.toml")
TESTS = ROOT / "tests" / "supervisors"

SUITES: Final = {
    "S": "Supervisor",
    "D": "Dynamic supervisor",
    "G": "gen_server",
    "F": "gen_statem",
    "L": "Links, monitors, exits",
    "R": "Registry and process groups",
    "Y": "sys",
    "A": "Application",
}

Outcome: TypeAlias = Literal["passed", "FAILED", "NOT RUN"]


@attrs.frozen
class Row:
    """One behaviour of OTP. ``differs`` says where it is another thing here on purpose, and why."""

    id: str
    behaviour: str
    source: str
    core: bool = False
    differs: str = ""

    @property
    def suite(self) -> str:
        """The heading it stands under."""
        return SUITES[self.id[0]]


@attrs.frozen
class RowTest:
    """A test of a row: its file, relative to the repository, and its name."""

    row: str
    file: str
    name: str


def rows(path: Path = ROWS_FILE) -> list[Row]:
    """All rows, in the order of the file. TypeError names a field that no row has."""
    with path.open("rb") as file:
        return [Row(id, **fields) for id, fields in tomllib.load(file).items()]


def row_tests(folder: Path = TESTS, root: Path = ROOT) -> dict[str, list[RowTest]]:
    """The tests of each row that has any, by reading the sources."""
    found: dict[str, list[RowTest]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (id := _row_of(node.name)):
                found.setdefault(id, []).append(RowTest(id, path.relative_to(root).as_posix(), node.name))
    return found


def _row_of(name: str) -> str | None:
    """``test_s01_starts`` → ``S01``; None for a test of no row."""
    test, _, rest = name.partition("_")
    id = rest.partition("_")[0].upper()
    return id if test == "test" and len(id) == 3 and id[0] in SUITES and id[1:].isdigit() else None


def run(tests: Sequence[RowTest], root: Path = ROOT) -> Mapping[RowTest, Outcome]:
    """Run the tests in one pytest process; what pytest writes goes to stderr."""
    if not tests:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-m", ""]
        command += ["-o", "junit_family=xunit1", f"--junitxml={report}"]
        command += [f"{test.file}::{test.name}" for test in tests]
        subprocess.run(command, cwd=root, stdout=sys.stderr, check=False)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    return {test: _outcome(test, cases) for test in tests}


def _outcome(test: RowTest, cases: Iterable[ElementTree.Element]) -> Outcome:
    """What came of a test with all its parameters."""
    named = (test.file, test.name)
    mine = [case for case in cases if (case.get("file"), case.get("name", "").partition("[")[0]) == named]
    if any(case.find(tag) is not None for case in mine for tag in ("failure", "error")):
        return "FAILED"
    # a skipped test has shown nothing
    return "passed" if mine and all(case.find("skipped") is None for case in mine) else "NOT RUN"


@attrs.frozen
class Verdict:
    """A row and what came of its tests. It conforms when it has some and all have passed."""

    row: Row
    outcomes: Mapping[RowTest, Outcome]

    @property
    def conforms(self) -> bool:
        return bool(self.outcomes) and set(self.outcomes.values()) == {"passed"}

    def lines(self) -> Iterator[str]:
        """The row and its behaviour, then each test with its result."""
        yield textwrap.fill(
            f"{self.row.id}{'*' if self.row.core else ' '}  {self.row.behaviour}", 118, subsequent_indent=" " * 6
        )
        for test, outcome in self.outcomes.items():
            yield f"      {outcome:<8} {test.file}::{test.name}"
        if not self.outcomes:
            yield "      MISSING  no test"


def main(arguments: Sequence[str] = ()) -> int:
    """The command. Returns its exit code."""
    listed = rows()
    chosen = [row for row in listed if not arguments or row.id in arguments or row.id[0] in arguments]
    if not chosen:
        print(f"no such row: {' '.join(arguments)}", file=sys.stderr)
        return 2
    tests = row_tests()
    outcomes = run([test for row in chosen for test in tests.get(row.id, ())])
    verdicts = [Verdict(row, {test: outcomes[test] for test in tests.get(row.id, ())}) for row in chosen]
    for verdict in verdicts:
        print(*verdict.lines(), sep="\n")
    bad = [verdict.row.id for verdict in verdicts if not verdict.conforms]
    print(f"\n{len(chosen)} rows, {len(chosen) - len(bad)} conform; {len(outcomes)} tests")
    if bad:
        print(f"missing or failing: {' '.join(bad)}")
    unlisted = sorted(set(tests) - {row.id for row in listed})
    if unlisted:
        print(f"tests of rows that are not listed: {' '.join(unlisted)}")
    return 1 if bad or unlisted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
