"""Every test of this suite runs in virtual time, most inside a node."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from actors import World

import supervisors as sup
from supervisors.testing import virtual_clock


def run_in_virtual_time(*args: Any, clock: trio.abc.Clock | None = None, **kwargs: Any) -> Any:
    return trio.run(*args, clock=virtual_clock() if clock is None else clock, **kwargs)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run_in_virtual_time), append=False)


@pytest.fixture
async def node() -> AsyncIterator[sup.Node]:
    # a busy machine may well stand still for a while, and some tests look at every line of the log
    async with sup.open_node("test", stall_seconds=math.inf) as opened:
        yield opened


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def reports(node: sup.Node) -> list[object]:
    seen: list[object] = []
    sup.on_report(node, seen.append)
    return seen
