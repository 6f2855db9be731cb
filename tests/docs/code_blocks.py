"""Find the Python blocks of a Markdown page and run them in order, as one program, as a reader would."""

from __future__ import annotations

from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).resolve().parents[2]


def pages(root: Path = ROOT) -> list[Path]:
    """The pages that are promised to run: the README and all of ``docs``."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def has_python(page: Path) -> bool:
    return "```python" in page.read_text(encoding="utf-8")


def run_page(page: Path) -> int:
    """Run every ```python block of ``page``; blocks share one namespace. Returns how many ran.

    A block is run as it stands: what is asynchronous calls ``trio.run`` itself. A failing block raises, its
    traceback pointing at the line of the page.
    """
    sybil = Sybil(parsers=[PythonCodeBlockParser()], path=str(page.parent), patterns=[page.name])
    examples = list(sybil.parse(page).examples())
    for example in examples:
        example.evaluate()
    return len(examples)
