"""Frames survive every cut, garbage is refused before it costs anything, and errors arrive as they left."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock import errors
from paddock.engine.worker import protocol
from paddock.engine.worker.framing import (
    MAX_FRAME_BYTES,
    FrameParser,
    decode_from_worker,
    decode_to_worker,
    encode_frame,
    error_of,
    fault_of,
)
from paddock.errors import PaddockError, ProtocolError
from paddock.native.batch import Chunk, Sampled, SampleMode

small = st.integers(0, 2**31 - 1)
tokens = st.lists(small, max_size=6)
request_ids = st.integers(0, 2**63 - 1)
real = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
arguments = st.lists(st.none() | st.booleans() | small | real | texts, max_size=4)
faults = st.builds(protocol.Fault, texts, arguments)

to_worker = st.one_of(
    st.builds(
        protocol.Load,
        texts,
        st.dictionaries(texts, small | texts),
        st.dictionaries(texts, small | st.booleans()),
    ),
    st.builds(protocol.Tokenize, request_ids, st.binary(max_size=300), st.booleans(), st.booleans()),
    st.builds(
        protocol.Step,
        request_ids,
        st.lists(st.builds(protocol.SequenceRef, small, small), max_size=3),
        st.lists(
            st.builds(
                protocol.OpenSequence,
                small,
                small,
                st.dictionaries(texts, real | small),
                tokens,
                small,
                st.binary(),
            ),
            max_size=3,
        ),
        st.lists(st.builds(Chunk, small, small, small, tokens, st.sampled_from(SampleMode)), max_size=3),
    ),
    st.builds(protocol.SampleLogits, request_ids, small, small, st.binary(max_size=64)),
    st.builds(protocol.Abort),
    st.builds(protocol.Ping, request_ids),
    st.builds(protocol.Stop),
)
sampled = st.builds(
    Sampled,
    small,
    small,
    st.integers(-1, 2**31 - 1),
    st.none() | real,
    st.lists(st.tuples(small, real), max_size=2),
    st.none() | st.binary(max_size=64),
    st.binary(max_size=8),
    st.none() | texts,
)
from_worker = st.one_of(
    st.builds(protocol.LoadProgress, st.floats(0, 1)),
    st.builds(protocol.LoadFailed, faults),
    st.builds(protocol.Tokenized, request_ids, tokens, st.none() | faults),
    st.builds(
        protocol.Stepped,
        request_ids,
        st.lists(sampled, max_size=3),
        st.floats(0, 1e6),
        st.none() | faults,
        st.dictionaries(small, small, max_size=3),
    ),
    st.builds(protocol.LogitsSampled, request_ids, st.none() | sampled, st.none() | faults),
    st.builds(protocol.Pong, request_ids, st.floats(0, 1e6)),
    st.builds(protocol.Log, texts, texts),
)


@given(st.lists(to_worker, max_size=6), st.data())
def test_messages_to_the_worker_survive_every_cut_of_the_stream(
    messages: list[protocol.ToWorker], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser = FrameParser()
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += [decode_to_worker(body) for body in parser.feed(stream[start:end])]
    assert received == messages
    assert parser.buffered == 0


@given(st.lists(from_worker, min_size=1, max_size=3))
def test_messages_from_the_worker_survive_a_stream_of_single_bytes(
    messages: list[protocol.FromWorker],
) -> None:
    stream = b"".join(encode_frame(message) for message in messages)
    parser = FrameParser()
    received = [decode_from_worker(body) for at in range(len(stream)) for body in parser.feed(stream[at : at + 1])]
    assert received == messages


def test_every_message_type_of_both_directions_has_its_tag_and_decodes_to_itself_only_there() -> None:
    for message in (protocol.Ping(3), protocol.Stop(), protocol.Abort()):
        body = bytes(encode_frame(message)[4:])
        assert decode_to_worker(body) == message
        with pytest.raises(ProtocolError):
            decode_from_worker(body)


def test_an_incomplete_frame_stays_in_the_parser() -> None:
    frame = encode_frame(protocol.Ping(1))
    parser = FrameParser()
    assert parser.feed(bytes(frame[:-1])) == []
    assert parser.buffered == len(frame) - 1


@given(st.integers(MAX_FRAME_BYTES + 1, 2**32 - 1), st.binary(max_size=32))
def test_a_length_beyond_the_maximum_is_refused_at_once_and_for_ever(length: int, rest: bytes) -> None:
    parser = FrameParser()
    with pytest.raises(ProtocolError, match=str(length)):
        parser.feed(struct.pack("<I", length) + rest)
    with pytest.raises(ProtocolError):
        parser.feed(bytes(encode_frame(protocol.Ping(1))))
    assert parser.buffered == 0


@given(st.binary(max_size=200))
def test_a_body_of_arbitrary_bytes_gives_a_message_or_a_protocol_error(body: bytes) -> None:
    for decode in (decode_to_worker, decode_from_worker):
        try:
            message = decode(body)
        except ProtocolError:
            continue
        # Bytes that happen to be a message are one that can be sent on.
        assert len(encode_frame(message)) > 4


@pytest.mark.parametrize(
    "message",
    [
        protocol.Ping(1 << 64),
        protocol.Load("model.gguf", {"foreign": object()}, {}),
        protocol.Load("bad-\udc80-name.gguf", {}, {}),
    ],
    ids=["an integer beyond 64 bits", "a foreign type", "a lone surrogate"],
)
def test_what_cannot_be_encoded_is_a_protocol_error(message: protocol.ToWorker) -> None:
    with pytest.raises(ProtocolError, match="cannot be encoded"):
        encode_frame(message)


EXAMPLES: list[PaddockError] = [
    errors.InvalidParameter("temperature", 3.5, "a number from 0 to 2"),
    errors.ContextOverflow(10, 20, 16),
    errors.ContextOverflow(10, None, 16, at_least=True),
    errors.ModelNotFound("nowhere.gguf"),
    errors.TruncatedGguf("short.gguf", "ends in the middle"),
    errors.DuplicateTokens("twice.gguf", "token 7 is token 9"),
    errors.ModelLoadFailed("m", "no memory"),
    errors.DecodeFailed(-3, "compute failed"),
    errors.DecodeAborted("aborted"),
    errors.InvalidBatch("too many rows"),
    errors.InvalidConfiguration("n_ctx", "too large"),
    errors.WorkerBusy("steps", 64),
    errors.WorkerDied("signal SIGKILL", "last\nwords"),
    errors.ChatTemplateMissing(),
    errors.RuntimeClosed(),
    errors.ProtocolError("defect"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_typed_error_arrives_with_its_class_its_message_and_its_attributes(error: PaddockError) -> None:
    message = protocol.Stepped(1, [], 0.0, fault_of(error))
    arrived = decode_from_worker(bytes(encode_frame(message)[4:]))
    assert isinstance(arrived, protocol.Stepped)
    assert arrived.fault is not None
    rebuilt = error_of(arrived.fault)
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    assert vars(rebuilt) == vars(error)


def test_every_error_class_of_paddock_can_travel() -> None:
    """A new error class whose attributes are not its constructor's parameters would fail here."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        fault = fault_of(_an_instance_of(kind))
        rebuilt = error_of(fault)
        assert type(rebuilt) is kind, (name, rebuilt)


def _an_instance_of(kind: type[PaddockError]) -> PaddockError:
    for arity in range(6):
        try:
            return kind(*([1] * arity))
        except (TypeError, IndexError):
            continue
    raise AssertionError(f"no instance of {kind}")


def test_a_foreign_exception_arrives_as_a_protocol_error_that_says_where_it_was_raised_and_not_its_words() -> None:
    try:
        {}["secret"]
    except KeyError as error:
        rebuilt = error_of(fault_of(error))
    assert type(rebuilt) is ProtocolError
    assert str(rebuilt).startswith("KeyError raised at test_framing.py:")
    assert "secret" not in str(rebuilt)


def test_an_error_of_the_system_arrives_with_its_words() -> None:
    assert str(error_of(fault_of(FileNotFoundError(2, "No such file", "/a/b")))) == (
        "FileNotFoundError: [Errno 2] No such file: '/a/b'"
    )


def test_values_that_cannot_travel_do_so_as_text() -> None:
    error = errors.InvalidParameter("seed", 1 << 70, "an integer below 2**64")
    rebuilt = error_of(fault_of(error))
    assert isinstance(rebuilt, errors.InvalidParameter)
    assert rebuilt.value == repr(1 << 70)
    bad_name = error_of(fault_of(errors.ModelNotFound("bad-\udc80-name.gguf")))
    assert encode_frame(protocol.LoadFailed(fault_of(bad_name)))


@given(texts, arguments)
def test_any_fault_becomes_some_paddock_error(kind: str, values: list[object]) -> None:
    assert isinstance(error_of(protocol.Fault(kind, values)), PaddockError)


@given(st.sampled_from(list(errors.__all__)), arguments)
def test_a_fault_with_unfit_arguments_never_raises(kind: str, values: list[object]) -> None:
    assert isinstance(error_of(protocol.Fault(kind, values)), PaddockError)
