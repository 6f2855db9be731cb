"""The generic server: state on ``self``, one message at a time."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import trio

from supervisors.calls.call import ANSWERED, From
from supervisors.errors import BadReturnValue
from supervisors.introspection.system import answer_system
from supervisors.processes.mailbox import CALL, CAST, INFO, STOP, SYSTEM, Item
from supervisors.processes.pid import AnyPid, Ignore, self_
from supervisors.processes.process import mark_ready
from supervisors.processes.reports import limited_repr, logger
from supervisors.processes.signals import ExitSignal
from supervisors.reasons import Reason

from .behaviour import IGNORE, Behaviour
from .results import Continue, NoReply, Reply, Started, Stop, Then, Timeout, TimeoutAt
from .server_loop import ServerLoop, Stopping, run_init

InitResult: TypeAlias = Continue | Timeout | TimeoutAt | Started | Stop | Ignore | None
CallResult: TypeAlias = Reply | NoReply | Stop
Result: TypeAlias = Continue | Timeout | TimeoutAt | NoReply | Stop | None


class GenServer(Behaviour):
    """Subclass it and override the callbacks; all state lives on ``self``.

    An instance is built inside its process, so ``__init__`` must be cheap and synchronous; what takes time belongs in
    `init`. A restart builds a new instance: what must outlive a crash lives elsewhere.
    """

    async def init(self) -> InitResult:
        """The server is ready when this returns. IGNORE or Stop(reason) end it; an exception makes the start fail."""
        return None

    async def handle_call(self, request: Any, from_: From) -> CallResult:
        """Answer a `call`: Reply(value), NO_REPLY (then `reply` later), or Stop(reason, reply=...)."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_call; called with {request!r}")

    async def handle_cast(self, message: Any) -> Result:
        """Handle a `cast`."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_cast; sent {message!r}")

    async def handle_info(self, message: Any) -> Result:
        """Handle any other message: `send`, Down, ExitSignal. By default it is logged and dropped."""
        logger.warning("%r: unexpected message %s", self_(), limited_repr(self.format_message(message), 3))
        return None

    async def handle_continue(self, content: Any) -> Result:
        """Run what ``Continue(content)`` asked for, before anything that is queued."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_continue; given {content!r}")

    async def handle_timeout(self) -> Result:
        """Called after the silence that ``Timeout(seconds)`` asked for."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_timeout")

    async def terminate(self, reason: Reason) -> None:
        """Clean up: on a stop, after a handler crashed, on the supervisor's shutdown; not on a kill or exit signal.

        An exception in it becomes the exit reason.
        """

    def format_status(self) -> Any:
        """What status and crash reports show as the state; override it to hide secrets."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def format_message(self, message: Any) -> Any:
        """What status, log and crash reports show in the place of a message, a request or an answer; override it to
        hide secrets."""
        return message

    def format_reason(self, reason: Reason) -> Any:
        """What a crash report shows as the reason. The process ends with the reason itself, which its callers, links
        and supervisor see. An exception that is not shown takes its traceback with it."""
        return reason

    @classmethod
    async def run_behaviour(cls, pid: AnyPid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The body of the process."""
        server = cls(*args, **kwargs)
        result = await run_init(pid, server)
        if result is IGNORE:
            return
        if isinstance(result, Started):
            pid.start_info = result.info
            result = result.then
        if result is not None and not isinstance(result, (Continue, Timeout, TimeoutAt)):
            raise BadReturnValue(f"{cls.__name__}.init", result)
        mark_ready(pid)
        await _ServerLoop(pid, server).run(result)


class _ServerLoop(ServerLoop):
    __slots__ = ("deadline",)

    server: GenServer

    def __init__(self, pid: AnyPid, server: GenServer) -> None:
        super().__init__(pid, server)
        self.deadline = math.inf

    async def serve(self, first: Then) -> None:
        if first is not None:
            await self.follow(first, "init")
        server = self.server
        get = self.pid.mailbox.get
        while True:
            if self.deadline != math.inf or self.suspended:
                item = await self.next_timed()
                if item is None:
                    self.took_up("timeout", "timeout")
                    await self.follow(await server.handle_timeout(), "handle_timeout")
                    continue
            else:
                item = await get()
            kind, payload, from_ = item
            debug = self.debug
            if debug is not None:
                debug.received(kind, payload, from_)
            if kind == CALL:
                self.deadline = math.inf
                self.last = payload
                self.client = from_.caller
                answer = await server.handle_call(payload, from_)
                if isinstance(answer, Reply):
                    from_.resolve_with(ANSWERED, answer.value)
                    if answer.then is not None:
                        await self.follow(answer.then, "handle_call")
                else:
                    await self.follow_call(answer, from_)
                self.client = None
            elif kind == CAST:
                self.deadline = math.inf
                self.last = payload
                result = await server.handle_cast(payload)
                if debug is not None:
                    debug.no_reply()
                if result is not None:
                    await self.follow(result, "handle_cast")
            elif kind == INFO:
                self.deadline = math.inf
                self.last = payload
                if isinstance(payload, ExitSignal) and payload.pid is not None and payload.pid is self.pid._parent:
                    raise Stopping(payload.reason)
                result = await server.handle_info(payload)
                if debug is not None:
                    debug.no_reply()
                if result is not None:
                    await self.follow(result, "handle_info")
            elif kind == STOP:
                raise Stopping(payload)
            else:
                assert kind == SYSTEM
                answer_system(self, payload, from_)
                server = self.server  # it may have been replaced

    def took_up(self, kind: str, message: Any) -> None:
        """Something that came through no mailbox is about to be handled."""
        self.last = message
        if self.debug is not None:
            self.debug.took_up(kind, message)

    async def next_timed(self) -> Item | None:
        """The next item; None when the timeout struck first. Suspended, system messages only and no timeout."""
        mailbox = self.pid.mailbox
        if self.suspended:
            return await mailbox.get_system()
        if self.deadline <= trio.current_time() and not mailbox.system:
            # an explicit timeout of zero comes before what is queued
            self.deadline = math.inf
            await trio.lowlevel.checkpoint()
            return None
        with trio.CancelScope(deadline=self.deadline):
            return await mailbox.get()
        self.deadline = math.inf
        return None

    async def follow_call(self, answer: CallResult, from_: From) -> None:
        if isinstance(answer, NoReply):
            from_.deferred = True
            if self.debug is not None and from_.pending:
                self.debug.no_reply()
            await self.follow(answer.then, "handle_call")
        elif isinstance(answer, Stop):
            if answer.has_reply:
                from_.resolve_with(ANSWERED, answer.reply)
            raise Stopping(answer.reason)
        else:
            raise BadReturnValue(f"{type(self.server).__name__}.handle_call", answer)

    async def follow(self, result: object, where: str) -> None:
        """Do what a callback asked for; continues run here, one after another, before anything queued."""
        while result is not None:
            if isinstance(result, NoReply):
                result = result.then
            elif isinstance(result, Continue):
                if where == "handle_continue":
                    await trio.lowlevel.checkpoint()  # work in pieces: others run between them
                self.took_up("continue", result.content)
                where = "handle_continue"
                result = await self.server.handle_continue(result.content)
            elif isinstance(result, Timeout):
                self.deadline = trio.current_time() + result.seconds
                return
            elif isinstance(result, TimeoutAt):
                self.deadline = result.deadline
                return
            elif isinstance(result, Stop):
                raise Stopping(result.reason)
            else:
                raise BadReturnValue(f"{type(self.server).__name__}.{where}", result)

    async def terminate(self, reason: Reason) -> None:
        await self.server.terminate(reason)

    # -- what others see

    def state(self) -> object:
        return self.server

    def replace(self, new: object) -> object:
        if not isinstance(new, GenServer):
            raise TypeError(f"the state of a GenServer is the server object, not {type(new).__name__}")
        self.server = new
        return new

    def show_state(self) -> dict[str, object]:
        return {"state": self.guarded("format_status")}

    def reported_state(self) -> object:
        return self.guarded("format_status")
