"""Real llama.cpp on the tiny random model, one thread (the machine may have few cores, and is shared)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.native.context import Context, ContextParameters
from paddock.native.model import NativeModel


@pytest.fixture(scope="session")
def model(tiny_model_path: Path) -> Iterator[NativeModel]:
    loaded = NativeModel.load(tiny_model_path)
    yield loaded
    loaded.free()


@pytest.fixture(scope="module")
def contexts(model: NativeModel) -> Iterator[tuple[Context, Context]]:
    """Two of different shape, to break off in one and go on in the other."""
    one, other = (
        Context.create(model, ContextParameters(n_ctx=512, n_seq_max=n_seq_max, n_threads=1, n_threads_batch=1))
        for n_seq_max in (1, 4)
    )
    yield one, other
    one.free()
    other.free()


@pytest.fixture
def make_context(model: NativeModel) -> Iterator[Callable[..., Context]]:
    """``make_context(**parameters)``: 512 cells for each of 8 sequences unless told otherwise."""
    made: list[Context] = []

    def make(of: NativeModel = model, **parameters: Any) -> Context:
        defaults: dict[str, Any] = {"n_ctx": 512, "n_seq_max": 8, "n_threads": 1, "n_threads_batch": 1}
        context = Context.create(of, ContextParameters(**(defaults | parameters)))
        made.append(context)
        return context

    yield make
    for context in made:
        context.free()


@pytest.fixture
def context(make_context: Callable[..., Context]) -> Context:
    return make_context()
