"""The layering is a contract that runs, and it covers all of the package."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lint_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_import_contract_is_kept() -> None:
    ended = lint_imports(ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 broken" in ended.stdout


def test_the_layers_stand_in_the_order_of_the_design() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract for contract in tool["contracts"] if contract["type"] == "layers")
    names = [name.strip("() ") for line in layers["layers"] for name in line.split("|")]
    order = [
        "cli",
        "api",
        "pressure",
        "sessions",
        "engine",
        "cache",
        "native",
        "models",
        "telemetry",
        "errors",
    ]
    assert [name for name in names if name in order] == order
    assert layers["exhaustive"], "a new module must be given its place"


def test_an_import_upwards_breaks_the_contract(tmp_path: Path) -> None:
    package = tmp_path / "house"
    for name, source in {"above": "", "below": "from house.above import __name__"}.items():
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(source)
    (package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_package = "house"\n[[tool.importlinter.contracts]]\nname = "order"\n'
        'type = "layers"\ncontainers = ["house"]\nlayers = ["(above)", "(below)"]\n'
    )
    ended = lint_imports(tmp_path)
    assert ended.returncode == 1
    assert "house.below is not allowed to import house.above" in ended.stdout
