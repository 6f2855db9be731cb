"""Process groups: row R07 of the conformance list."""

from __future__ import annotations

import pytest
from actors import wait_forever

import supervisors as sup


async def test_r07_joining_twice_counts_twice_and_the_dead_leave(node: sup.Node) -> None:
    groups = sup.ProcessGroups()
    one, two = node.spawn(wait_forever), node.spawn(wait_forever)
    groups.join("g", one)
    groups.join("g", one)
    groups.join("g", two)
    groups.join("h", two)
    assert repr(groups) == "<ProcessGroups: 2 groups>"
    assert groups.members("g") == [one, one, two]
    groups.leave("g", one)
    assert groups.members("g") == [one, two]
    groups.leave("g", one)
    with pytest.raises(sup.NotJoined):
        groups.leave("g", one)
    with pytest.raises(sup.NotJoined):
        groups.leave("unknown", one)
    groups.join("g", one)
    groups.join("g", one)
    sup.exit(two, sup.Killed())
    await sup.wait_down(two)
    assert groups.members("g") == [one, one]
    assert groups.groups() == ["g"]
    sup.exit(one, sup.Killed())
    await sup.wait_down(one)
    assert groups.groups() == []
    assert groups.members("g") == []
    with pytest.raises(sup.NoProc):
        groups.join("g", one)


async def test_r07_leaving_one_group_keeps_the_others(node: sup.Node) -> None:
    groups = sup.ProcessGroups()
    pid = node.spawn(wait_forever)
    groups.join("g", pid)
    groups.join("h", pid)
    groups.leave("g", pid)
    assert groups.groups() == ["h"]
    assert groups.members("h") == [pid]


async def test_r07_a_member_that_leaves_while_it_ends_is_no_error(node: sup.Node) -> None:
    groups = sup.ProcessGroups()

    async def member() -> None:
        groups.join("g")
        groups.join("g")
        groups.leave("g")
        groups.leave("g")

    assert await sup.wait_down(node.spawn(member)) == sup.Normal()
    assert groups.groups() == []


async def test_r07_names_of_groups_compare_strictly(node: sup.Node) -> None:
    pid = node.spawn(wait_forever)
    node.groups.join(1, pid)
    assert node.groups.members(1) == [pid]
    assert node.groups.members(True) == []
