"""The package needs trio, attrs, outcome and the standard library, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import supervisors

PACKAGE = Path(supervisors.__file__).parent
DEPENDENCIES = {"trio", "attr", "attrs", "outcome"}
WHAT_TRIO_NEEDS = {"sniffio", "sortedcontainers", "idna"}

PROGRAM = """
import sys


class OnlyThese:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | ALLOWED:
            raise ModuleNotFoundError(f"not installed: {name}", name=name)


sys.meta_path.insert(0, OnlyThese())
sys.path.insert(0, ROOT)

try:
    import numpy
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the hook lets everything through")

import supervisors as sup
from supervisors.testing import run_in_virtual_time, settle


class Counter(sup.GenServer):
    count = 0

    async def handle_call(self, request, from_):
        self.count += request
        return sup.Reply(self.count)


async def main():
    async with sup.open_node() as node:
        await node.start(sup.Supervisor, None, [sup.child(Counter, name="counter")])
        counter = node.registry.via("counter")
        assert await sup.call(counter, 2) == 2
        sup.exit(sup.whereis(counter), sup.Killed())
        await settle()
        assert await sup.call(counter, 3) == 3
        print("restarted")


run_in_virtual_time(main)
"""


class Imports(ast.NodeVisitor):
    """The packages that a file imports when it runs: what only type checkers read is not needed."""

    def __init__(self, path: Path) -> None:
        self.names: set[str] = set()
        self.visit(ast.parse(path.read_text(encoding="utf-8")))

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name.partition(".")[0] for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module is not None:
            self.names.add(node.module.partition(".")[0])


def test_every_import_is_of_the_package_its_dependencies_or_the_standard_library() -> None:
    allowed = {"supervisors", *DEPENDENCIES, *sys.stdlib_module_names}
    strangers = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in Imports(path).names
        if name not in allowed
    }
    assert strangers == set()


def test_it_works_where_nothing_else_is_installed() -> None:
    settings = f"ALLOWED = {DEPENDENCIES | WHAT_TRIO_NEEDS | {'supervisors'}!r}\nROOT = {str(PACKAGE.parent)!r}\n"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", settings + PROGRAM], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "restarted\n"), ended.stderr
