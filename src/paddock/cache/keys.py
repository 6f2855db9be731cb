"""Keys of KV blocks: a chain of hashes over tokens and over how each of them was computed.

A block is ``block_tokens`` consecutive tokens of one sequence. Its key hashes the key before it, its token ids and one
*class* byte for each token, so that two sequences share a key exactly when they share everything up to the block's end.
The first block's parent is a root key, which hashes what else decides the bits: see :class:`Identity`.

The class of a token is 0 for a prompt token, 1 for a generated one. A prompt segment (a run of prompt tokens) that is
shorter than the recipe's minimum chunk cannot be computed as the recipe's other prompt rows are; its tokens have the
class 1 + its length, so that their blocks are never mistaken for those of a longer segment that begins alike. Where
logits depend on tokens alone (``minimum_chunk=1``, generated rows computed like prompt rows) all classes are 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

__all__ = [
    "CLASS_GENERATED",
    "CLASS_PROMPT",
    "HASH_BYTES",
    "MAX_MINIMUM_CHUNK",
    "BlockContent",
    "Chain",
    "Identity",
    "block_key",
    "root_key",
]

HASH_BYTES = 20
"""Bytes of a key: blake2b of 160 bits, 80 bits against collisions."""

CLASS_PROMPT = 0
CLASS_GENERATED = 1

MAX_MINIMUM_CHUNK = 254
"""A class is one byte, and 1 + a segment's length must fit into it."""

_IDENTITY = b"paddock-kv-id"
_ROOT = b"paddock-kv-root"
_BLOCK = b"paddock-kv-block"


def _positive(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{attribute.name}={value!r} is not a positive number")


@attrs.frozen(kw_only=True)
class Identity:
    """All that decides a KV cell's bits beside the tokens. Two that differ in anything share no block and no folder.

    The texts are opaque here: whoever makes them puts into each what its name says, in a form that does not change
    from one start to the next.
    """

    model: str
    """Fingerprint of the model file's content."""
    build: str
    """Fingerprint of the llama.cpp build and of the CPU features that it uses."""
    context: str
    """Shape of the context: cells for each sequence, sequences, unified or not, flash attention, K and V types."""
    recipe: str
    """Name of the exactness recipe and those of its parameters that change bits."""
    adapters: tuple[str, ...] = ()
    """Fingerprint and scale of each LoRA adapter, in order."""
    block_tokens: int = attrs.field(validator=_positive)
    """Tokens in a block."""
    payload_bytes: int = attrs.field(validator=_positive)
    """Bytes of one block's payload."""

    def digest(self) -> bytes:
        """The identity as 20 bytes; the folder of its blocks has their hexadecimal form as its name."""
        digest = hashlib.blake2b(digest_size=HASH_BYTES, person=_IDENTITY)
        texts = (self.model, self.build, self.context, self.recipe, *self.adapters)
        for number in (self.block_tokens, self.payload_bytes, len(self.adapters)):
            digest.update(number.to_bytes(8, "little"))
        for text in texts:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        return digest.digest()

    def root(self, tenant: str = "") -> bytes:
        """The parent of every first block of ``tenant``. Tenants share no key, whatever their tokens."""
        return root_key(self.digest(), tenant)


def root_key(identity: bytes, tenant: str) -> bytes:
    """The root key under an identity's digest."""
    return hashlib.blake2b(identity + tenant.encode(), digest_size=HASH_BYTES, person=_ROOT).digest()


def block_key(parent: bytes, tokens: bytes, classes: bytes) -> bytes:
    """The key of one block: ``tokens`` are its ids as little-endian int32, ``classes`` one byte for each."""
    return hashlib.blake2b(parent + tokens + classes, digest_size=HASH_BYTES, person=_BLOCK).digest()


@attrs.frozen
class BlockContent:
    """What a key stands for; enough to make the key again, and so kept with the block on disk."""

    key: bytes
    parent: bytes
    tokens: bytes
    """Token ids, little-endian int32."""
    classes: bytes
    """One byte for each token."""


class Chain:
    """The keys of one sequence, which grow as tokens are appended; nothing is hashed twice.

    ``minimum_chunk`` is the recipe's; 1 where there is none. With ``by_tokens_alone`` all classes are 0 (the recipe of
    invariant kernels). A Chain belongs to one task. Appending and reading keys never checkpoint; hashing takes about
    2 µs a block of 64 tokens, see :meth:`hash_some` for long prompts.
    """

    __slots__ = (
        "_block_tokens", "_by_tokens_alone", "_classes", "_keys", "_minimum", "_open", "_sealed", "_tokens",
        "root",
    )  # fmt: skip

    def __init__(
        self, root: bytes, block_tokens: int, *, minimum_chunk: int = 1, by_tokens_alone: bool = False
    ) -> None:
        if not 1 <= minimum_chunk <= MAX_MINIMUM_CHUNK:
            raise ValueError(f"minimum_chunk={minimum_chunk} is not from 1 to {MAX_MINIMUM_CHUNK}")
        self.root = root
        self._block_tokens = block_tokens
        self._minimum = 1 if by_tokens_alone else minimum_chunk
        self._by_tokens_alone = by_tokens_alone
        self._tokens = bytearray()  # int32, little-endian
        self._classes = bytearray()
        self._keys: list[bytes] = []
        self._open = 0
        """Where the prompt segment begins that a further prompt token would join; the length when there is none."""
        self._sealed = 0
        """Tokens whose classes are final unless a prompt token joins their segment."""

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"<Chain of {len(self)} tokens, {len(self._keys)} keys>"

    @property
    def block_tokens(self) -> int:
        """Tokens in a block."""
        return self._block_tokens

    def append_prompt(self, tokens: Sequence[int] | npt.NDArray[np.int32]) -> None:
        """Appends prompt tokens. Those of calls that follow one another directly make one segment."""
        if len(tokens) == 0:
            return
        start = self._open
        if 0 < len(self) - start < self._minimum and not self._by_tokens_alone:
            # A short segment grows: if it was sealed as short, what was hashed of it stands for another schedule.
            self._sealed = min(self._sealed, start)
            self._classes[start:] = bytes(len(self) - start)
            del self._keys[self._sealed // self._block_tokens :]
        self._tokens += np.asarray(tokens, dtype="<i4").tobytes()
        self._classes += bytes(len(tokens))
        if len(self) - start >= self._minimum:
            self._sealed = len(self)

    def append_generated(self, tokens: Sequence[int] | npt.NDArray[np.int32]) -> None:
        """Appends generated tokens, which were sampled one after another and enter the cache as single rows."""
        if len(tokens) == 0:
            return
        self.seal()
        self._tokens += np.asarray(tokens, dtype="<i4").tobytes()
        if self._by_tokens_alone:
            self._classes += bytes(len(tokens))
        else:
            self._classes += bytes((CLASS_GENERATED,)) * len(tokens)
            self._open = len(self)
        self._sealed = len(self)

    def seal(self) -> None:
        """Says that what stands here is computed as it stands: a short last segment is final. Idempotent.

        To be called when a prompt is complete, before its keys are read.
        """
        length = len(self) - self._open
        if 0 < length < self._minimum and self._sealed < len(self):
            self._classes[self._open :] = bytes((1 + length,)) * length
        self._sealed = len(self)

    def hash_some(self, blocks: int) -> bool:
        """Hashes at most ``blocks`` blocks that are due; True while there are more. For callers that must not block."""
        return self._hash(blocks)

    @property
    def keys(self) -> Sequence[bytes]:
        """The keys of all full blocks whose classes are final. Not to be changed."""
        self._hash(None)
        return self._keys

    def _hash(self, most: int | None) -> bool:
        size, keys = self._block_tokens, self._keys
        due = self._sealed // size
        stop = due if most is None else min(due, len(keys) + most)
        if len(keys) < stop:
            tokens, classes = memoryview(self._tokens), memoryview(self._classes)
            parent = keys[-1] if keys else self.root
            for block in range(len(keys), stop):
                start, end = block * size, (block + 1) * size
                parent = block_key(parent, bytes(tokens[4 * start : 4 * end]), bytes(classes[start:end]))
                keys.append(parent)
        return len(keys) < due

    def content(self, block: int) -> BlockContent:
        """What the key of ``block`` (0 is the first) stands for. Raises IndexError for a block that is not full."""
        keys = self.keys
        key = keys[block]
        start, end = block * self._block_tokens, (block + 1) * self._block_tokens
        parent = keys[block - 1] if block else self.root
        return BlockContent(key, parent, bytes(self._tokens[4 * start : 4 * end]), bytes(self._classes[start:end]))

    @property
    def generated(self) -> npt.NDArray[np.bool_]:
        """For each token whether it was generated; all False with ``by_tokens_alone``. A copy."""
        classes: npt.NDArray[np.uint8] = np.frombuffer(bytes(self._classes), np.uint8)
        return np.equal(classes, CLASS_GENERATED)

    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        """The token ids. A copy."""
        return np.frombuffer(bytes(self._tokens), "<i4")

    def prefix(self, length: int) -> Chain:
        """A chain of the first ``length`` tokens, for a fork or a rewind; keys that stay valid are kept.

        A segment that the cut makes shorter than the minimum chunk has the classes of a short one.
        """
        if not 0 <= length <= len(self):
            raise ValueError(f"{length} is not from 0 to {len(self)}")
        cut = Chain(
            self.root, self._block_tokens, minimum_chunk=self._minimum, by_tokens_alone=self._by_tokens_alone
        )  # fmt: skip
        cut._tokens = self._tokens[: 4 * length]
        cut._classes = self._classes[:length]
        start = 0 if self._by_tokens_alone else cut._classes.rfind(CLASS_GENERATED) + 1
        cut._open = start
        kept = length // self._block_tokens
        if start < length and length - start < self._minimum:
            cut._classes[start:] = bytes(length - start)
            kept = start // self._block_tokens
            cut._sealed = start
        else:
            cut._sealed = length
        cut._keys = self._keys[:kept]
        return cut
