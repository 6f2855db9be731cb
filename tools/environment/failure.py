"""The one way a set-up ends badly on purpose."""

from __future__ import annotations


class SetupFailed(Exception):
    """One line that names the fault and what to do; ``detail`` (a log's tail, say) is shown beneath it."""

    def __init__(self, line: str, detail: str = "") -> None:
        super().__init__(line)
        self.line = line
        self.detail = detail
