"""An exception without its words and variables, which may be those of a prompt or a reply."""

from __future__ import annotations

from pathlib import Path

__all__ = ["OutlinedError", "outline"]

_FRAMES = 12
"""The innermost ones; the rest is how any process is run."""


class OutlinedError(Exception):
    """Stands for an exception whose words are withheld.

    ``kind`` is its type, ``frames`` are the innermost functions it went through, the one that raised it last.
    """

    def __init__(self, kind: str, frames: tuple[str, ...]) -> None:
        super().__init__(f"{kind} raised at {frames[-1] if frames else 'an unknown place'}")
        self.kind = kind
        self.frames = frames


def outline(exception: BaseException) -> OutlinedError:
    """The exception without its words. Without its frames too, whose variables are the words of requests."""
    if isinstance(exception, OutlinedError):
        return exception
    kind = type(exception).__name__
    if isinstance(exception, BaseExceptionGroup):
        kind += f" of {', '.join(outline(part).kind for part in exception.exceptions)}"
    frames: list[str] = []
    trace = exception.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} in {name}")
        trace = trace.tb_next
    return OutlinedError(kind, tuple(frames[-_FRAMES:]))
