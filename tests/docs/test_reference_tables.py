"""The tables in the docs that are made from the code are what the code says."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from reference_tables import DOCS, TABLES, pages, with_tables

import paddock
import paddock.errors
from paddock.sampling.parameters import PARAMETERS


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(DOCS)))
def test_the_tables_of_the_page_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == with_tables(text), "run: python tools/reference_tables.py"


def test_every_table_stands_in_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    assert {name for name in TABLES if f"<!-- table: {name} -->" in text} == set(TABLES)


def test_the_tables_are_complete_and_leave_nothing_unsaid() -> None:
    tables = {name: write() for name, write in TABLES.items()}
    for info in PARAMETERS:
        assert f"| `{info.name}` |" in tables["parameters"]
    for config in (paddock.ModelConfig, paddock.RuntimeConfig):
        for field in attrs.fields(config):
            assert f"| `{field.name}` |" in tables[config.__name__]
    for name in paddock.errors.__all__:
        assert f"| `{name}` |" in tables["errors"]
    for name, text in tables.items():
        assert "|  |\n" not in text, name
