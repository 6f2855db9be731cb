"""Requests that a type checker knows the answer of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import TypeVar  # type checkers bring it along; it is not needed to run

    R_co = TypeVar("R_co", covariant=True, default=Any)
    S_contra = TypeVar("S_contra", contravariant=True, default=Any)

    class Request(Generic[R_co, S_contra]):
        __dir__: None  # type: ignore[assignment]
        # What every other object has, see `UntypedRequest`. Only type checkers are told so.

else:

    class Request:
        """Base of requests whose answer is known: ``class Get(Request[int])`` makes ``await call(pid, Get())`` an int.

        With a second parameter, ``class Get(Request[int, "Counter"])``, a type checker also refuses it where the pid is
        not that of a Counter. Requests need no base: those without are answered with ``Any``. Nothing of this costs or
        checks anything at run time.
        """

        __slots__ = ()

        def __class_getitem__(cls, parameters: object) -> type[Request]:
            return cls


class UntypedRequest(Protocol):
    """Any object but a `Request`: without this a call that is refused for its types would pass as an untyped one."""

    def __dir__(self) -> Iterable[str]: ...
