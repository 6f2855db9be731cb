"""The queue of a process: order, bounds, the one reader, the counter."""

from __future__ import annotations

from actors import Echo

import supervisors as sup
from supervisors.testing import settle


async def test_messages_taken_are_counted_system_messages_included(node: sup.Node) -> None:
    pid = await node.start(Echo)
    assert pid.mailbox.handled == 0
    for _ in range(3):
        sup.cast(pid, 1)
    assert pid.mailbox.handled == 0, "queued is not handled"
    await sup.call(pid, 1)
    await sup.suspend(pid)
    assert pid.mailbox.handled == 5
    sup.cast(pid, 1)
    await sup.resume(pid)
    await settle()
    assert pid.mailbox.handled == 7
