"""What the package offers is said in one place, and all of it is documented."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest

import supervisors
import supervisors.testing


def undocumented(module: ModuleType) -> Iterator[str]:
    """Public classes, functions, methods and properties without a docstring of their own or of a base class."""
    for name in module.__all__:
        thing = getattr(module, name)
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and not inspect.getdoc(thing):
            yield name
        if inspect.isclass(thing):
            for inner, member in vars(thing).items():
                if inner.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
                    continue
                if not inspect.getdoc(getattr(thing, inner)):
                    yield f"{name}.{inner}"


@pytest.mark.parametrize("module", [supervisors, supervisors.testing], ids=lambda module: module.__name__)
def test_every_public_name_exists_once_and_is_documented(module: ModuleType) -> None:
    assert len(set(module.__all__)) == len(module.__all__)
    assert list(undocumented(module)) == []


@pytest.mark.parametrize("module", [supervisors, supervisors.testing], ids=lambda module: module.__name__)
def test_nothing_public_is_left_out(module: ModuleType) -> None:
    names = {name for name, value in vars(module).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert names - {"annotations"} == set(module.__all__)
