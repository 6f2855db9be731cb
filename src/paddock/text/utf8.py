"""UTF-8 as it arrives: bytes in any cut, whole characters out."""

from __future__ import annotations

import codecs

__all__ = ["IncrementalDecoder"]


class IncrementalDecoder:
    """Decodes a stream of bytes without ever emitting half a character.

    However the bytes are cut, the concatenated results of ``feed`` and the final ``finish`` equal
    ``whole.decode("utf-8", "replace")``. At most 3 bytes are held back, and only while they can still become
    a character; what cannot becomes U+FFFD as soon as that is known.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Ends the stream: an unfinished character becomes one U+FFFD. The decoder is then as new."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest

    @property
    def pending(self) -> bytes:
        """The bytes held back: the beginning of one character, which will come out as exactly one."""
        return self._decoder.getstate()[0]
