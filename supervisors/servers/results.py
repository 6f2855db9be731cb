"""What a callback may return to its server's loop. Plain values."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import attrs

from supervisors.reasons import NORMAL, Reason


@attrs.frozen
class Continue:
    """Have ``handle_continue(content)`` run before anything that is queued."""

    content: Any = None


@attrs.frozen
class Timeout:
    """Have ``handle_timeout()`` run after ``seconds`` of silence. Any message cancels it, a system message does not."""

    seconds: float


@attrs.frozen
class TimeoutAt:
    """Like `Timeout`, at a point of trio's clock."""

    deadline: float


Then: TypeAlias = Continue | Timeout | TimeoutAt | None


@attrs.frozen
class Started:
    """From ``init``: ready, with extra information, which whoever starts the server finds as ``pid.start_info``."""

    info: Any
    then: Then = None


@attrs.define(unsafe_hash=True)  # a frozen one would take three times as long to make, and each call makes one
class Reply:
    """Answer the call with ``value``, then go on with ``then``."""

    value: Any
    then: Then = None


@attrs.frozen
class NoReply:
    """Do not answer the call now; `reply` answers it later, from any task."""

    then: Then = None


NO_REPLY: Final = NoReply()

_NO_VALUE: Final = object()


@attrs.frozen
class Stop:
    """End the server with ``reason`` after its ``terminate``; in a call ``reply`` is given first, when there is one."""

    reason: Reason = NORMAL
    reply: Any = _NO_VALUE

    @property
    def has_reply(self) -> bool:
        """True when a reply was given, None included."""
        return self.reply is not _NO_VALUE
