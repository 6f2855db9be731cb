"""Writes the tables of the documentation made from the code: parameters, configuration, errors, conformance.

    python tools/reference_tables.py

rewrites what stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` in the pages; the test suite compares.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import attrs
from conformance import SUITES, Row, RowTest, row_tests
from conformance import rows as conformance_rows

import paddock
import paddock.config
import paddock.errors
from paddock.sampling.parameters import PARAMETERS

DOCS = Path(__file__).resolve().parents[1] / "docs"
_TABLE = re.compile(r"(<!-- table: ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def cell(text: str) -> str:
    """Text for a cell of a Markdown table, on one line; reST literals and roles become Markdown's."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def parameters_table() -> str:
    rows = (
        (f"`{info.name}`", f"`{cell(shown(info.default))}`", cell(info.range), cell(info.meaning))
        for info in PARAMETERS
    )
    return table(("parameter", "default", "allowed", "meaning"), rows)


def shown(default: object) -> str:
    """A default as one would write it."""
    return repr(list(default) if isinstance(default, tuple) else default)


def configuration_table(name: str) -> str:
    """The fields of a class of :mod:`paddock.config`, with the text that stands below each in the source."""
    source = ast.parse(inspect.getsource(paddock.config))
    (body,) = (node.body for node in source.body if isinstance(node, ast.ClassDef) and node.name == name)
    defaults = {field.name: field.default for field in attrs.fields(getattr(paddock.config, name))}

    def rows() -> Iterator[tuple[str, ...]]:
        for field, below in zip(body, [*body[1:], ast.Pass()], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                default = defaults[field.target.id]
                yield (
                    f"`{field.target.id}`",
                    _default(default),
                    cell(_allowed(field.value)),
                    cell(_text(below)),
                )

    return table(("field", "default", "allowed", "meaning"), rows())


def _default(default: object) -> str:
    if default is attrs.NOTHING:
        return "required"
    # What depends on other fields is told in words.
    return "" if isinstance(default, attrs.Factory) else f"`{shown(default)}`"  # type: ignore[arg-type]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _allowed(value: ast.expr | None) -> str:
    """What the field's validator, as it is written in the source, lets through."""
    if not isinstance(value, ast.Call):
        return ""
    checks = [keyword.value for keyword in value.keywords if keyword.arg == "validator"]
    if not checks:
        return ""
    (check,) = checks
    if isinstance(check, ast.Name):
        names = {"_name": "a printable name of 1 to 200 characters", "_source": "a name or a path"}
        return {**names, "_folder": "a path, or None", "_true_or_false": "`True`, `False`"}[check.id]
    assert isinstance(check, ast.Call)
    assert isinstance(check.func, ast.Name)
    arguments = [eval(compile(ast.Expression(argument), "config", "eval")) for argument in check.args]
    optional = ", or None" if check.keywords else ""
    match check.func.id, arguments:
        case "_whole", [low, high]:
            return f"a whole number from {low:,} to {high:,}{optional}"
        case "_seconds", [low]:
            return f"seconds, at least {low:g}"
        case "_seconds", [low, high]:
            return f"seconds from {low:g} to {high:,.0f}"
        case "_one_of", names:
            return ", ".join(f"`{name!r}`" for name in names)
        case unknown:
            raise ValueError(f"a validator that the documentation does not know: {unknown}")


def errors_table() -> str:
    """Every error, after its base, with its attributes."""

    def rows(owner: type[Exception]) -> Iterator[tuple[str, ...]]:
        doc = inspect.getdoc(owner) or ""
        names = [] if "__init__" not in vars(owner) else list(inspect.signature(owner).parameters)
        attributes = [name for name in names if re.search(rf"self\.{name} = ", inspect.getsource(owner))]
        yield (
            f"`{owner.__name__}`",
            f"`{owner.__bases__[0].__name__}`",
            ", ".join(f"`{name}`" for name in attributes),
            cell(doc.partition("\n\n")[0]),
        )
        for name in paddock.errors.__all__:
            error = getattr(paddock.errors, name)
            if error.__bases__[0] is owner:
                yield from rows(error)

    return table(("error", "a kind of", "attributes", "meaning"), rows(paddock.PaddockError))


def conformance_table(suite: str) -> str:
    """The rows of a suite of the conformance list, each with its tests and where it differs from OTP."""
    tests = row_tests()

    def shown(row: Row) -> tuple[str, ...]:
        return (
            row.id + "\\*" * row.core,
            cell(row.behaviour),
            "<br>".join(map(link, tests.get(row.id, ()))) or "none yet",
            cell(row.differs),
            cell(row.source),
        )

    def link(test: RowTest) -> str:
        # as HTML, since MkDocs takes a Markdown link to what is not a page for a mistake
        return f'<a href="../{test.file}">{test.name[len("test_s01_") :].replace("_", " ")}</a>'

    chosen = (row for row in conformance_rows() if row.id[0] == suite)
    return table(("row", "behaviour", "tests", "differs from OTP", "source"), map(shown, chosen))


def conformance_counts() -> str:
    """How many rows of each suite there are, and how many of them have a test."""
    tests = row_tests()

    def counted(name: str, rows: list[Row]) -> tuple[str, ...]:
        having = [row for row in rows if row.id in tests]
        with_tests = sum(len(tests[row.id]) for row in having)
        numbers = (
            len(rows),
            sum(row.core for row in rows),
            len(having),
            with_tests,
            sum(bool(row.differs) for row in rows),
        )
        return name, *map(str, numbers)

    listed = conformance_rows()
    lines = [counted(name, [row for row in listed if row.id[0] == suite]) for suite, name in SUITES.items()]
    head = ("suite", "rows", "core", "rows with a test", "tests", "differ on purpose")
    return table(head, iter([*lines, counted("all", listed)]))


TABLES: dict[str, Callable[[], str]] = {
    "parameters": parameters_table,
    "ModelConfig": lambda: configuration_table("ModelConfig"),
    "RuntimeConfig": lambda: configuration_table("RuntimeConfig"),
    "errors": errors_table,
    "conformance": conformance_counts,
    **{f"conformance.{suite}": partial(conformance_table, suite) for suite in SUITES},
}


def with_tables(page: str) -> str:
    """The page with its tables as the code has them now."""
    return _TABLE.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[3]}", page)


def pages() -> list[Path]:
    """The pages that hold such tables."""
    return [path for path in sorted(DOCS.rglob("*.md")) if _TABLE.search(path.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for path in pages():
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
