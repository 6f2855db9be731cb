"""What a type checker refuses: exactly the lines marked so. Not run, see `known_answers.py`."""

from __future__ import annotations

from typing import Any

from known_answers import Counter, Describe, Door, Get, Reset

import supervisors as sup


class Echo(sup.GenServer):
    pass


async def requests_for_another_server(echo: sup.Pid[Echo], door: sup.Pid[Door]) -> None:
    await sup.call(echo, Get())
    await sup.call(echo, Describe(1))  # refused
    await sup.call(door, Describe(1))  # refused
    sup.cast(echo, Reset())  # refused
    sup.send_request(echo, Reset())  # refused
    await sup.multi_call([echo], Reset())  # refused


async def answers_of_another_type(pid: sup.Pid[Counter], via: sup.Via) -> None:
    text: str = await sup.call(pid, Get())  # refused
    text = await sup.call(via, Get())  # refused
    text = await sup.send_request(pid, Get()).wait()  # refused
    text = await sup.call(pid, "anything")
    print(text)


async def servers_of_another_class(pid: sup.Pid[Counter], general: sup.Pid[sup.GenServer]) -> None:
    echo: sup.Pid[Echo] = pid  # refused
    special: sup.Pid[Counter] = general  # refused
    print(echo, special)


async def typed_request_to_what_may_be_any_target(target: sup.Target) -> None:
    await sup.call(target, Get())  # refused


async def arguments_that_fit(node: sup.Node, unknown: Any) -> None:
    pid: sup.Pid[Echo] = await node.start(Counter)  # refused
    print(pid, await sup.call(unknown, unknown))
