"""Length-prefixed MessagePack frames, and how errors travel in them.

A frame is the body's length (4 bytes, little endian) and the body: one MessagePack document that decodes to
one of the types of ``protocol.py``. Nothing here does any I/O: :class:`FrameParser` is fed whatever a socket
gave.
"""

from __future__ import annotations

import functools
import inspect
import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from paddock import errors
from paddock.engine.worker.protocol import Fault, FromWorker, ToWorker
from paddock.errors import PaddockError, ProtocolError
from paddock.telemetry.outline import outline

__all__ = [
    "MAX_FRAME_BYTES",
    "FrameParser",
    "decode_from_worker",
    "decode_to_worker",
    "encode_frame",
    "error_of",
    "fault_of",
]

MAX_FRAME_BYTES: Final = 256 << 20
"""The longest body. Room for a full logits row (150,000 floats) from each of 400 rows; a length beyond it is
garbage, and is refused before anything is allocated for it."""

_LENGTH = struct.Struct("<I")

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode_frame(message: ToWorker | FromWorker) -> bytearray:
    """One message as a frame. ProtocolError when it cannot be encoded or is longer than MAX_FRAME_BYTES."""
    frame = bytearray(64)
    try:
        _encoder.encode_into(message, frame, _LENGTH.size)
    except (OverflowError, TypeError, ValueError, msgspec.EncodeError) as problem:
        # An integer beyond 64 bits, a value of a foreign type, text with lone surrogates.
        raise ProtocolError(f"{type(message).__name__} cannot be encoded: {problem}") from problem
    length = len(frame) - _LENGTH.size
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"{type(message).__name__} of {length} bytes exceeds a frame's {MAX_FRAME_BYTES}")
    _LENGTH.pack_into(frame, 0, length)
    return frame


def decode_to_worker(body: bytes) -> ToWorker:
    """The message in a frame's body; ProtocolError when it is none."""
    try:
        return _to_worker.decode(body)
    except msgspec.DecodeError as problem:
        raise ProtocolError(f"the worker received something that is no message: {problem}") from problem


def decode_from_worker(body: bytes) -> FromWorker:
    """The message in a frame's body; ProtocolError when it is none."""
    try:
        return _from_worker.decode(body)
    except msgspec.DecodeError as problem:
        raise ProtocolError(f"the worker sent something that is no message: {problem}") from problem


class FrameParser:
    """Cuts a byte stream into frame bodies, however the stream was cut in transit.

    Holds at most one incomplete frame. After a ProtocolError the stream has no known frame border any more:
    the parser raises again at every further feed.
    """

    __slots__ = ("_broken", "_buffer")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._broken = False

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete frame held; not 0 at the end of a stream means that it was cut off."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that ``data`` completes, in order. ProtocolError for a length beyond MAX_FRAME_BYTES."""
        if self._broken:
            raise ProtocolError("the stream lost its frame borders")
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        position = 0
        while len(buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, position)
            if length > MAX_FRAME_BYTES:
                self._broken = True
                buffer.clear()
                raise ProtocolError(f"a frame claims {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
            end = position + _LENGTH.size + length
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[position + _LENGTH.size : end]))
            position = end
        if position:
            del buffer[:position]
        return bodies


# --- errors -------------------------------------------------------------------------------------------------

_KINDS: Final[Mapping[str, type[PaddockError]]] = {
    name: value
    for name in errors.__all__
    if isinstance(value := getattr(errors, name), type) and issubclass(value, PaddockError)
}


def fault_of(error: BaseException) -> Fault:
    """An error as it travels. A typed error of :mod:`paddock.errors` keeps its class and its attributes
    (values of foreign types as their repr); any other exception becomes a ProtocolError that says what it is and where
    it was raised, an OSError one with its words."""
    kind = type(error).__name__
    if _KINDS.get(kind) is not type(error):
        # The words of a defect may be a request's, and all requests of a step are told why it failed.
        text = f"{kind}: {error}" if isinstance(error, OSError) else str(outline(error))
        return Fault("ProtocolError", [_plain(text)])
    parameters = _parameters(kind)
    if parameters is None:
        return Fault(kind, [_plain(argument) for argument in error.args])
    return Fault(kind, [_plain(getattr(error, parameter.name)) for parameter in parameters])


def error_of(fault: Fault) -> PaddockError:
    """The error that :func:`fault_of` was given, built anew; ProtocolError for a fault that names none."""
    kind = _KINDS.get(fault.kind)
    if kind is None:
        return ProtocolError(f"unknown fault {fault.kind}: {fault.arguments!r}"[:1000])
    parameters = _parameters(fault.kind)
    try:
        if parameters is None:
            return kind(*fault.arguments)
        positional: list[object] = []
        named: dict[str, object] = {}
        for parameter, argument in zip(parameters, fault.arguments, strict=True):
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                named[parameter.name] = argument
            else:
                positional.append(argument)
        return kind(*positional, **named)
    except (TypeError, ValueError, AttributeError) as problem:
        return ProtocolError(f"fault {fault.kind} with unfit arguments {fault.arguments!r}: {problem}"[:1000])


@functools.cache
def _parameters(kind: str) -> tuple[inspect.Parameter, ...] | None:
    """The constructor's parameters, which are also the error's attributes; None for a plain message."""
    if _KINDS[kind].__init__ is Exception.__init__:
        return None
    return tuple(inspect.signature(_KINDS[kind]).parameters.values())


def _plain(value: object) -> object:
    match value:
        case None | bool() | float() | bytes():
            return value
        case int():
            return value if -(1 << 63) <= value < 1 << 64 else repr(value)
        case str():
            # A path may hold lone surrogates (undecodable file names), which MessagePack refuses.
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return _plain(repr(value))
