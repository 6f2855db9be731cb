"""The random stream of a completion: one seed, and from it an independent seed for every draw.

Draw t depends on (seed, choice, t, stream) and nothing else, so that it is the same whether the draws
before it were made here, in another process, or before a crash. The hash is part of the format of saved
conversations: it never changes.
"""

from __future__ import annotations

import secrets
import struct
from hashlib import blake2b

__all__ = ["MAX_SEED", "STREAM_DRAW", "STREAM_XTC", "resolve_seed", "step_seed"]

MAX_SEED = 2**64 - 1

STREAM_DRAW = 0  # the draw of the token: dist, mirostat, adaptive-p
STREAM_XTC = 1  # whether XTC acts

_RANDOM_DEVICE = 0xFFFFFFFF  # llama.cpp takes this seed for "use the random device"
_INPUT = struct.Struct("<QQQQ")
_OUTPUT = struct.Struct("<II")


def resolve_seed(seed: int | None) -> int:
    """``seed`` itself, or one drawn from the operating system: 32 bits, so that it is easy to type again."""
    return secrets.randbits(32) if seed is None else seed


def step_seed(seed: int, choice: int, t: int, stream: int) -> int:
    """The 32-bit seed of draw ``t`` (0 for the first generated token) of a completion's ``choice``.

    The first little-endian word of BLAKE2b-64 over the four numbers as little-endian 64-bit words,
    personalised with ``paddock draw``; the second word where the first is 0xFFFFFFFF, which llama.cpp reads
    as "random"; 0 where both are. Stable for ever.
    """
    digest = blake2b(_INPUT.pack(seed, choice, t, stream), digest_size=8, person=b"paddock draw").digest()
    first, second = _OUTPUT.unpack(digest)
    if first != _RANDOM_DEVICE:
        return int(first)
    return int(second) if second != _RANDOM_DEVICE else 0
