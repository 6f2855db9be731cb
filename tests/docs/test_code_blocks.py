"""The Python in the README and the docs runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from code_blocks import ROOT, has_python, pages, run_page


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages may write files and caches; not into the repository, and not into the user's own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder / name.lower()))


@pytest.mark.parametrize("page", list(filter(has_python, pages())), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_of_the_page_runs(page: Path) -> None:
    assert run_page(page) == page.read_text(encoding="utf-8").count("```python")


def test_blocks_of_a_page_share_what_they_define(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 40\n```\n\nthen\n\n```python\nassert x + 2 == 42\n```\n\n```text\nno code\n```\n")
    assert run_page(page) == 2


def test_a_block_may_run_trio(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nimport trio\n\nasync def main() -> int:\n    await trio.lowlevel.checkpoint()\n"
        "    return 7\n\nassert trio.run(main) == 7\n```\n"
    )
    assert run_page(page) == 1


def test_a_failing_block_fails_and_its_traceback_names_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\nraise LookupError('gone')\n```\n")
    with pytest.raises(LookupError, match="gone") as caught:
        run_page(page)
    last = caught.traceback[-1]
    assert (Path(last.path), last.lineno + 1) == (page, 5)
