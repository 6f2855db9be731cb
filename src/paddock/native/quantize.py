"""Quantizing a model file with llama.cpp's own ``llama_model_quantize``."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paddock.errors import InvalidParameter, QuantizationFailed
from paddock.native import library

__all__ = ["FILE_TYPES", "quantize_model"]

FILE_TYPES: dict[str, int] = {
    "F32": 0, "F16": 1, "BF16": 32,
    "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9,
    "Q2_K": 10, "Q2_K_S": 21, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15,
    "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18,
    "IQ4_NL": 25, "IQ4_XS": 30, "IQ3_XXS": 23, "IQ3_XS": 22, "IQ3_S": 26, "IQ3_M": 27,
    "TQ1_0": 36, "TQ2_0": 37,
}  # fmt: skip
"""``enum llama_ftype`` by the names that files are published under, but for those that need an importance matrix."""


def quantize_model(
    source: Path,
    target: Path,
    file_type: str,
    *,
    n_threads: int = 0,
    requantize: bool = False,
    pure: bool = False,
    log: Callable[[str], None] | None = None,
) -> None:
    """Writes ``source`` with its matrices in ``file_type`` to ``target``, which is not complete until this returns.

    ``n_threads``: 0 is all CPUs. ``requantize`` allows a source that is quantized already. ``pure``: every matrix in
    that one type, where a mixture would be used. ``log`` is given llama.cpp's lines, among them one for each tensor
    that begins with "[ 12/ 39]". Blocks for as long as it takes. llama.cpp may end the process on a file it does not
    expect. Raises :class:`paddock.errors.InvalidParameter` for an unknown type and
    :class:`paddock.errors.QuantizationFailed`.
    """
    if file_type not in FILE_TYPES:
        raise InvalidParameter("file_type", file_type, f"one of {', '.join(FILE_TYPES)}")
    lib = library.load()
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[file_type]
    parameters.nthread = n_threads or os.cpu_count() or 1
    parameters.allow_requantize = requantize
    parameters.pure = pure
    library.forget_last_words()
    with _listening(log):
        code = int(lib.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters)))
    if code != 0:
        raise QuantizationFailed(str(source), library.last_words() or f"llama.cpp returned {code}")


@contextmanager
def _listening(log: Callable[[str], None] | None) -> Iterator[None]:
    if log is None:
        yield
        return
    with library.overheard(log):
        yield
