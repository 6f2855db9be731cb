"""The llama.cpp shared library: loaded once per process, its log caught, its build identified.

Importing this module loads nothing; :func:`load` does.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from paddock.errors import InvalidConfiguration
from paddock.telemetry.loggers import get_logger

__all__ = ["Build", "build", "failure_expected", "forget_last_words", "last_words", "load", "overheard"]

_LOG = get_logger("paddock.llama")

_LEVEL_NONE, _LEVEL_CONTINUE = 0, 5
_METHODS = {1: "debug", 2: "info", 3: "warning", 4: "error"}  # enum ggml_log_level
_WARNINGS = (3, 4)
_LAST_WORDS = 40
_LONGEST_LINE = 4096

_lock = threading.Lock()
_forever: list[Any] = []  # llama.cpp holds pointers to these


@attrs.frozen
class Build:
    """What computes: ``fingerprint`` changes with the library's files, its version and the CPU features it
    uses.
    """

    version: str
    library: str
    system_info: str
    fingerprint: str


class _LogCatcher:
    """Joins llama.cpp's fragments into lines and hands each to structlog with its level.

    A fragment of level "continue" belongs to the line before; a line ends with its newline. llama.cpp logs
    from its loader threads too, hence the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fragments: list[str] = []
        self._size = 0
        self._level = 2
        self.warnings: deque[str] = deque(maxlen=_LAST_WORDS)
        self.listener: Callable[[str], None] | None = None

    def __call__(self, level: int, text: bytes | None, _: object) -> None:
        finished: list[tuple[int, str]] = []
        with self._lock:
            if level != _LEVEL_CONTINUE:
                if self._fragments and level != self._level:
                    finished.append(self._flush())
                self._level = level
            for part in (text or b"").decode("utf-8", "replace").splitlines(keepends=True):
                self._fragments.append(part)
                self._size += len(part)
                if part.endswith("\n") or self._size > _LONGEST_LINE:
                    finished.append(self._flush())
            self.warnings.extend(line for at, line in finished if at in _WARNINGS)
        expected = _expected.failure is not None and _expected.failure()
        for at, line in finished:
            if line and at in _METHODS:
                getattr(_LOG, "debug" if expected else _METHODS[at])(line)
            if line and self.listener is not None:
                self.listener(line)

    def _flush(self) -> tuple[int, str]:
        line = "".join(self._fragments).rstrip()
        self._fragments.clear()
        self._size = 0
        return self._level, line


class _Expected(threading.local):
    """Asked on the thread that logs: whether it is in a call that fails because it was told to."""

    failure: Callable[[], bool] | None = None


_expected = _Expected()
_catcher = _LogCatcher()


@contextmanager
def failure_expected(asked: Callable[[], bool]) -> Iterator[None]:
    """While it lasts, what this thread has llama.cpp log is of level debug whenever ``asked()``: an aborted call is
    reported as an error there, and is none."""
    _expected.failure = asked
    try:
        yield
    finally:
        _expected.failure = None


@contextmanager
def overheard(listener: Callable[[str], None]) -> Iterator[None]:
    """While it lasts, ``listener`` is given each line that llama.cpp logs, on the thread that logs. One at a time."""
    _catcher.listener = listener
    try:
        yield
    finally:
        _catcher.listener = None


def load() -> ModuleType:
    """The module ``llama_cpp.llama_cpp``, its library initialised and its log redirected. Idempotent, any
    thread.

    Raises :class:`paddock.errors.InvalidConfiguration` where the library cannot be loaded. Environment
    variables that llama.cpp reads (``GGML_CPU_TILED_MM``) must be set before the first call.
    """
    with _lock:
        return _load()


@cache
def _load() -> ModuleType:
    # Without it an abort of llama.cpp runs a debugger over the process first: 1.1 s instead of 0.4 s.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    try:
        from llama_cpp import llama_cpp as library
    except Exception as error:
        raise InvalidConfiguration(
            "llama-cpp-python", f"its library could not be loaded ({error}); install it again"
        ) from error
    callback = library.llama_log_callback(_catcher)
    _forever.append(callback)
    library.llama_log_set(callback, ctypes.c_void_p(0))
    library.llama_backend_init()
    # llama.cpp may log while the interpreter is being torn down, when the callback cannot run any more:
    # abs() takes any argument and does nothing.
    silent = ctypes.cast(ctypes.CDLL(None).abs, library.llama_log_callback)
    atexit.register(library.llama_log_set, silent, ctypes.c_void_p(0))
    return library


def last_words() -> str:
    """The last warnings and errors that llama.cpp logged, newest last; empty if there were none."""
    return "\n".join(line for line in tuple(_catcher.warnings) if line)


def forget_last_words() -> None:
    """Empties :func:`last_words`, so that what follows can be told from what was before."""
    _catcher.warnings.clear()


def build() -> Build:
    """Identifies the loaded library: a hash over its files, its version and its CPU features. Any thread."""
    library = load()
    with _lock:
        return _identify(library)


@cache
def _identify(library: ModuleType) -> Build:
    import llama_cpp

    hasher = blake2b(digest_size=16)
    folder = Path(llama_cpp.__file__).parent / "lib"
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        hasher.update(path.name.encode() + b"\0" + path.read_bytes())
    system_info = library.llama_print_system_info().decode("utf-8", "replace").strip()
    hasher.update(system_info.encode() + b"\0" + llama_cpp.__version__.encode())
    name = library.llama_version().decode("utf-8", "replace")
    return Build(llama_cpp.__version__, name, system_info, hasher.hexdigest())
