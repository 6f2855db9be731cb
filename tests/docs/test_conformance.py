"""The conformance list: its rows, the command that runs their tests, and the page made from both."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import conformance
import pytest
from conformance import ROOT, Row, RowTest, main, row_tests, rows, run

PAGE = ROOT / "docs" / "conformance.md"


def write_tests(folder: Path, source: str) -> list[RowTest]:
    """The tests of a file in a repository of its own."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text(source)
    return [test for found in row_tests(folder / "tests", folder).values() for test in found]


def test_the_list_has_all_rows_of_each_suite_in_order() -> None:
    ids = [row.id for row in rows()]
    assert Counter(id[0] for id in ids) == {"S": 48, "D": 8, "G": 23, "F": 20, "L": 11, "R": 7, "Y": 3, "A": 4}
    assert ids == [
        f"{suite}{number:02}" for suite, count in Counter(id[0] for id in ids).items() for number in range(1, count + 1)
    ]
    assert sum(row.core for row in rows()) == 94


def test_every_row_says_what_is_to_be_seen_and_where_it_is_from() -> None:
    for row in rows():
        assert row.behaviour.endswith("."), row.id
        assert row.source, row.id
        assert not row.differs or row.differs.endswith("."), row.id
    assert len({row.behaviour for row in rows()}) == len(rows())


def test_every_row_has_a_test_and_every_such_test_a_row() -> None:
    assert set(row_tests()) == {row.id for row in rows()}


def test_a_test_belongs_to_the_row_that_its_name_begins_with(tmp_path: Path) -> None:
    source = "def test_s01_a(): ...\nasync def test_l11_b(): ...\ndef test_other(): ...\ndef test_x01_c(): ...\n"
    found = write_tests(tmp_path, source + "def helper_s02_d(): ...\ndef test_s1_d(): ...\n")
    assert [(test.row, test.name) for test in found] == [("S01", "test_s01_a"), ("L11", "test_l11_b")]


def test_the_results_are_those_of_all_parameters(tmp_path: Path) -> None:
    tests = write_tests(
        tmp_path,
        "import pytest\n"
        "def test_s01_good(): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_s02_half(n): assert n == 1\n"
        "def test_s03_skipped(): pytest.skip('no')\n"
        "@pytest.fixture\n"
        "def broken(): raise LookupError\n"
        "def test_s04_error(broken): pass\n",
    )
    outcomes = run(tests, tmp_path)
    assert [outcomes[test] for test in tests] == ["passed", "FAILED", "NOT RUN", "FAILED"]


def test_tests_that_cannot_be_imported_are_not_run(tmp_path: Path) -> None:
    tests = write_tests(tmp_path, "import nowhere_at_all\ndef test_s01_a(): ...\n")
    assert set(run(tests, tmp_path).values()) == {"NOT RUN"}
    assert run([], tmp_path) == {}


@pytest.mark.parametrize(
    ("tests", "code", "said"),
    [
        (["test_s01_good", "test_s02_good"], 0, "2 rows, 2 conform; 2 tests"),
        (["test_s01_good"], 1, "      MISSING  no test\n\n2 rows, 1 conform; 1 tests\nmissing or failing: S02"),
        (["test_s01_good", "test_s02_good", "test_s02_bad"], 1, "missing or failing: S02"),
        (["test_s01_good", "test_s02_good", "test_s03_good"], 1, "tests of rows that are not listed: S03"),
    ],
)
def test_the_command_fails_for_a_row_that_is_missing_or_failing(
    tests: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [Row("S01", "It does one thing.", "a", core=True), Row("S02", "It does another.", "b")]
    found: dict[str, list[RowTest]] = {}
    for name in tests:
        found.setdefault(name[5:8].upper(), []).append(RowTest(name[5:8].upper(), "tests/test_it.py", name))
    monkeypatch.setattr(conformance, "rows", lambda: listed)
    monkeypatch.setattr(conformance, "row_tests", lambda: found)
    monkeypatch.setattr(
        conformance, "run", lambda tests: {test: "FAILED" if "bad" in test.name else "passed" for test in tests}
    )
    assert main() == code
    printed = capsys.readouterr().out
    assert said in printed
    assert "S01*  It does one thing.\n      passed   tests/test_it.py::test_s01_good" in printed
    assert main(["D"]) == 2
    assert main(["S01"]) == (1 if "test_s03_good" in tests else 0)


def test_the_page_names_every_row_and_its_links_lead_to_the_tests() -> None:
    page = PAGE.read_text(encoding="utf-8")
    tests = row_tests()
    for row in rows():
        (line,) = re.findall(rf"^\| {row.id}(?:\\\*)? \|.*$", page, re.MULTILINE)
        assert line.count("<a href=") == len(tests.get(row.id, ()))
    for link in re.findall(r'<a href="([^"]+)">', page):
        assert (PAGE.parent / link).is_file()
