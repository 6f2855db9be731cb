from __future__ import annotations

from typing import Any

import pytest
import trio

import supervisors as sup
from supervisors.processes.process import request_shutdown


class _StopsItsParent(sup.GenServer):
    """Tells its supervisor to stop from its own init, and then is ready before the supervisor hears of either."""

    def __init__(self, started: list[sup.Pid[Any]]) -> None:
        self._started = started

    async def init(self) -> None:
        me = sup.self()
        self._started.append(me)
        parent = me.parent
        assert parent is not None
        request_shutdown(parent, sup.Shutdown(), trio.current_time() + 5)


async def test_a_child_that_becomes_ready_as_its_supervisor_is_stopped_is_stopped_with_it() -> None:
    started: list[sup.Pid[Any]] = []
    with trio.fail_after(5):
        async with sup.open_node() as node:
            with pytest.raises(sup.SupervisorsError):
                await node.start(
                    sup.Supervisor, sup.SupervisorFlags(), [sup.child(_StopsItsParent, started, id="child")]
                )
            assert [pid.alive for pid in started] == [False]
