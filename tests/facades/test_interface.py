"""The public surface of the three interfaces is the same: names, signatures, first lines of the docstrings."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

import paddock
import paddock.aio
import paddock.blocking

CLASSES = ("Model", "Request", "Runtime", "Session", "SessionReply")
ONLY_ON_TRIO = {"Model": {"supervisor"}}
"""A pid is for the trio thread; elsewhere ``runtime.tree()`` shows what it leads to."""
PROTOCOL = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}


def public_names(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def methods(owner: type) -> dict[str, Any]:
    """The public functions, and those of the protocols, by their asyncio names."""
    found = {name: getattr(owner, name) for name in public_names(owner)}
    for asynchronous, synchronous in PROTOCOL.items():
        for name in (asynchronous, synchronous):
            if hasattr(owner, name):
                found[asynchronous] = getattr(owner, name)
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (parameter.name, parameter.kind, str(parameter.annotation))
        for parameter in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize("facade", [paddock.aio, paddock.blocking], ids=["aio", "blocking"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_facade_has_the_names_and_signatures_of_the_trio_interface(facade: ModuleType, name: str) -> None:
    original, copy = getattr(paddock, name), getattr(facade, name)
    assert public_names(copy) == public_names(original) - ONLY_ON_TRIO.get(name, set())
    ours, theirs = methods(copy), methods(original)
    assert set(ours) == set(theirs)
    for method, function in theirs.items():
        assert parameters(ours[method]) == parameters(function), method
        defaults = [value.default for value in inspect.signature(function).parameters.values()]
        assert [value.default for value in inspect.signature(ours[method]).parameters.values()] == defaults


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_a_coroutine_on_trio_is_one_on_asyncio_and_none_in_threads(name: str) -> None:
    theirs = methods(getattr(paddock, name))
    asynchronous, plain = methods(getattr(paddock.aio, name)), methods(getattr(paddock.blocking, name))
    for method, function in theirs.items():
        assert inspect.iscoroutinefunction(asynchronous[method]) == inspect.iscoroutinefunction(function), method
        assert not inspect.iscoroutinefunction(plain[method]), method


@pytest.mark.parametrize("facade", [paddock.aio, paddock.blocking], ids=["aio", "blocking"])
def test_open_runtime_takes_the_same(facade: ModuleType) -> None:
    ours, theirs = inspect.signature(facade.open_runtime), inspect.signature(paddock.open_runtime)
    assert list(ours.parameters) == list(theirs.parameters)
    assert set(facade.__all__) == {*CLASSES, "open_runtime"}


@pytest.mark.parametrize("facade", [paddock.aio, paddock.blocking], ids=["aio", "blocking"])
@pytest.mark.parametrize("name", CLASSES)
def test_every_public_name_is_documented_as_on_trio(facade: ModuleType, name: str) -> None:
    for method, function in methods(getattr(facade, name)).items():
        if method.startswith("_"):
            continue
        original = inspect.getdoc(getattr(getattr(paddock, name), method))
        ours = inspect.getdoc(function)
        assert original is not None, method
        assert ours is not None, method
        assert first_line(ours) == first_line(original), method
    for public in public_names(getattr(facade, name)):
        assert inspect.getdoc(getattr(getattr(facade, name), public)), public


def first_line(doc: str) -> str:
    """The first sentence, without how it is waited for."""
    first = doc.partition("\n\n")[0].partition(". ")[0].replace("an async context manager", "a context manager")
    return " ".join(first.split()).rstrip(".")
