"""The store's front: one process that answers look-ups and reservations, and lets go of what ended processes held."""

from __future__ import annotations

from typing import Any

import attrs
import trio

import supervisors as sup
from paddock.cache.block_store import BlockStore, ModelHandle
from paddock.cache.disk_tier import DiskTier
from paddock.cache.messages import (
    CloseModel,
    Condemn,
    Describe,
    FetchPrefix,
    FindPrefix,
    Flush,
    Forget,
    GiveBack,
    LeaveRam,
    OpenModelRequest,
    Publish,
    Release,
    RemoveFiles,
    Reserve,
    Statistics,
    ThreadsDone,
    Wake,
)
from paddock.cache.statistics import CacheStatistics
from paddock.errors import CacheError
from paddock.telemetry.discretion import Discreet

__all__ = ["CacheServer"]


class CacheServer(Discreet, sup.GenServer):
    """Holds no state but the monitors: what it works on is the :class:`BlockStore`, which outlives it."""

    def __init__(self, store: BlockStore, tier: DiskTier, writer: sup.Target, reader: sup.Target) -> None:
        self._store = store
        self._tier = tier
        self._writer = writer
        self._reader = reader
        self._monitors: dict[sup.Pid[Any], sup.MonitorRef] = {}
        self._closing: list[tuple[sup.From, ModelHandle]] = []

    async def init(self) -> None:
        for owner in self._store.owners:
            self._watch(owner)

    async def handle_call(self, request: object, from_: sup.From) -> sup.Reply | sup.NoReply:
        store = self._store
        if not from_.pending and not isinstance(request, CloseModel):
            return sup.NO_REPLY  # the caller gave up, and would hold what it never hears of
        try:
            match request:
                case FindPrefix():
                    return self._find(request, from_)
                case Reserve(handle, count):
                    offsets = store.reserve(handle, count, from_.caller)
                    if offsets:
                        self._watch(from_.caller)
                    return sup.Reply(offsets)
                case OpenModelRequest(identity, slots):
                    handle = store.open_model(identity, slots)
                    if self._tier.path is not None:
                        sup.cast(self._writer, Describe(identity))
                    return sup.Reply(handle)
                case CloseModel(handle):
                    store.begin_close(handle)
                    self._closing.append((from_, handle))
                    self._finish_closing()
                    return sup.NO_REPLY
                case Flush(handle):
                    self._tier.waiting.append((from_, None if handle is None else handle.number))
                    self._tier.answer_waiting()
                    return sup.NO_REPLY
                case Forget(keys):
                    store.forget(keys, trio.current_time())
                    if self._tier.folder is None:
                        return sup.Reply(None)
                    sup.cast(self._writer, RemoveFiles(from_, keys))
                    return sup.NO_REPLY
                case Statistics():
                    return sup.Reply(self._statistics())
                case _:
                    raise TypeError(f"unknown request {type(request).__name__}")
        except CacheError as error:
            sup.reply_error(from_, error)
            return sup.NO_REPLY

    async def handle_cast(self, message: object) -> None:
        store = self._store
        match message:
            case Publish(handle, saved):
                store.publish(handle, saved, now=trio.current_time())
                self._wake_writer()
            case Release(number):
                store.release(number)
            case GiveBack(handle, offsets):
                store.give_back(handle, offsets)
            case Condemn(keys):
                store.condemn(keys)
            case LeaveRam(handle, keys):
                store.leave_ram(handle, keys)
            case ThreadsDone():
                self._finish_closing()
            case _:
                raise TypeError(f"unknown message {type(message).__name__}")

    async def handle_info(self, message: object) -> None:
        if isinstance(message, sup.Down) and isinstance(message.pid, sup.Pid):
            self._monitors.pop(message.pid, None)
            self._store.drop_owner(message.pid)

    def _find(self, find: FindPrefix, from_: sup.From) -> sup.Reply | sup.NoReply:
        store = self._store
        lease = store.open_lease(find.handle, from_.caller)
        held = store.pin_run(lease, find.keys, find.most)
        self._watch(from_.caller)
        if held < min(find.most, len(find.keys)) and self._tier.readable:
            find = attrs.evolve(find, most=min(find.most, len(find.keys)))
            sup.cast(self._reader, FetchPrefix(from_, find, lease, from_.caller))
            return sup.NO_REPLY
        return sup.Reply(store.prefix_of(lease, find.handle.identity.block_tokens))

    def _watch(self, owner: sup.Pid[Any] | None) -> None:
        if owner is not None and owner not in self._monitors:
            self._monitors[owner] = sup.monitor(owner)

    def _wake_writer(self) -> None:
        if self._store.index.due_blocks:
            self._tier.wake(lambda: sup.cast(self._writer, Wake()))

    def _finish_closing(self) -> None:
        still: list[tuple[sup.From, ModelHandle]] = []
        for from_, handle in self._closing:
            if self._store.finish_close(handle):
                sup.reply(from_, None)
            else:
                still.append((from_, handle))
        self._closing = still

    def _statistics(self) -> CacheStatistics:
        index = self._store.index
        return CacheStatistics(
            **attrs.asdict(self._store.counters),
            ram_bytes=index.ram_bytes,
            ram_bytes_max=index.most_ram_bytes,
            ram_budget_bytes=index.ram_budget,
            ram_blocks=index.ram_blocks,
            disk_bytes=index.disk_bytes,
            disk_bytes_max=index.most_disk_bytes,
            disk_budget_bytes=0 if self._tier.path is None else index.disk_budget,
            disk_blocks=index.disk_blocks,
            due_blocks=index.due_blocks,
            pinned_blocks=self._store.pinned_blocks,
            disk=self._tier.state,
            disk_problem=self._tier.problem,
        )

    def format_status(self) -> object:
        """Figures alone: what the blocks hold is somebody's text."""
        return attrs.asdict(self._statistics())
