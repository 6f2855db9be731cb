"""The mailbox of a process: an ordinary queue, a system lane that overtakes it, one reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import trio

Item: TypeAlias = tuple[int, Any, Any]
"""(kind, payload, the From of a call, the sender of a cast or message, or None)."""

INFO: Final = 0
CAST: Final = 1
CALL: Final = 2
STOP: Final = 3
SYSTEM: Final = 4
CHILD_READY: Final = 5
CHILD_EXIT: Final = 6
RETRY: Final = 7

BATCH: Final = 32
"""Messages taken without a yield before the reader lets other tasks run."""


TWO_READERS: Final = "another task of this process is reading its mailbox already"


class Mailbox:
    """Not a memory channel: system messages overtake and ignore the bound, and an observer can look inside.

    Parameters
    ----------
    limit: most ordinary messages queued by `cast` and `call`; None means unbounded. Signals and messages sent
        by the runtime itself ignore it, since losing one would break a promise.
    """

    __slots__ = ("_batch", "_reader", "_reader_wants_all", "_room", "closed", "handled", "limit", "queue", "system")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.queue: deque[Item] = deque()
        # most processes never see a system message: an empty deque costs 0.7 KB, so there is none until needed
        self.system: deque[Item] | None = None
        self.closed = False
        self.handled = 0
        """Messages taken so far, system messages included."""
        self._reader: trio.lowlevel.Task | None = None
        self._reader_wants_all = True
        self._room: list[Callable[[], None]] | None = None
        self._batch = BATCH

    def __len__(self) -> int:
        return len(self.queue)

    def is_full(self) -> bool:
        """True when a bounded mailbox has no room."""
        return self.limit is not None and len(self.queue) >= self.limit

    def put(self, item: Item) -> None:
        """Append to the ordinary queue, whatever its bound. Dropped when the mailbox is closed."""
        if self.closed:
            return
        reader = self._reader
        if reader is not None and self._reader_wants_all:
            trio.lowlevel.reschedule(reader)  # first: outside trio's thread this raises, and nothing has happened
            self._reader = None
        self.queue.append(item)

    def put_system(self, item: Item) -> None:
        """Append to the system lane, which is read before the ordinary queue."""
        if self.closed:
            return
        reader = self._reader
        if reader is not None:
            trio.lowlevel.reschedule(reader)
            self._reader = None
        if self.system is None:
            self.system = deque()
        self.system.append(item)

    async def get(self) -> Item:
        """The next item, system lane first. A checkpoint at least once in every `BATCH` messages.

        Cancellation never loses an item: nothing is taken before the task runs again.
        """
        batch = self._batch - 1
        if batch <= 0:
            self._batch = BATCH
            await trio.lowlevel.checkpoint()
        else:
            self._batch = batch
        while True:
            if self.system:
                self.handled += 1
                return self.system.popleft()
            if self.queue:
                self.handled += 1
                item = self.queue.popleft()
                if self._room:
                    self._room.pop(0)()
                return item
            # like _wait_system, written out: a coroutine less on the way of each message
            if self._reader is not None:
                raise trio.BusyResourceError(TWO_READERS)
            self._reader = trio.lowlevel.current_task()
            self._reader_wants_all = True
            self._batch = BATCH
            await trio.lowlevel.wait_task_rescheduled(self._abort)

    async def get_system(self) -> Item:
        """The next item of the system lane only, for a process that is suspended. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while not self.system:
            await self._wait_system()
        self.handled += 1
        return self.system.popleft()

    async def _wait_system(self) -> None:
        if self._reader is not None:
            raise trio.BusyResourceError(TWO_READERS)
        self._reader = trio.lowlevel.current_task()
        self._reader_wants_all = False
        self._batch = BATCH
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait_room(self) -> None:
        """Wait until a bounded mailbox has room or is closed. A checkpoint only when it has to wait."""
        while self.is_full() and not self.closed:
            event = trio.Event()
            if self._room is None:
                self._room = []
            self._room.append(event.set)
            try:
                await event.wait()
            except BaseException:
                if not event.is_set():
                    self._room.remove(event.set)
                elif self._room:
                    # told of room after it was cancelled and before it ran: the room must not be lost with it
                    self._room.pop(0)()
                raise

    def remove(self, unwanted: Callable[[Item], bool]) -> None:
        """Take items out of the ordinary queue; whoever waits for room is told of it."""
        kept = [item for item in self.queue if not unwanted(item)]
        removed = len(self.queue) - len(kept)
        if not removed:
            return
        self.queue.clear()
        self.queue.extend(kept)
        waiting = self._room or []
        for wake in waiting[:removed]:
            wake()
        del waiting[:removed]

    def close(self) -> None:
        """Drop what is queued and refuse what comes; those waiting for room go on (and find a dead process)."""
        self.closed = True
        self.queue.clear()
        self.system = None
        waiting, self._room = self._room, None
        for wake in waiting or ():
            wake()
