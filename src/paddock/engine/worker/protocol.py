"""What a port and its worker say to each other.

Every message is a tagged :class:`msgspec.Struct`; on the wire it is one MessagePack document behind a length
prefix (see ``framing.py``). MessagePack with typed decoding is used instead of pickle because a worker runs
C++ over files of unknown origin: whatever it sends is checked against these types before the parent acts.

``request_id`` pairs an answer with its question; it is unique within one worker's life.
"""

from __future__ import annotations

import msgspec

from paddock.native.batch import Chunk, Sampled
from paddock.native.exactness.certificate import Certificate, ProbeOrder

__all__ = [
    "Abort",
    "BlockRef",
    "BlocksRestored",
    "BlocksSaved",
    "CompileGrammar",
    "Fault",
    "FromWorker",
    "GrammarCompiled",
    "Load",
    "LoadFailed",
    "LoadProgress",
    "Loaded",
    "Log",
    "LogitsSampled",
    "OpenSequence",
    "Ping",
    "Pong",
    "RestoreBlocks",
    "SampleLogits",
    "SaveBlocks",
    "SequenceRef",
    "Step",
    "Stepped",
    "Stop",
    "ToWorker",
    "Tokenize",
    "Tokenized",
]


class SequenceRef(msgspec.Struct, frozen=True, array_like=True):
    """A sequence as leased to one request: a stale generation names nobody."""

    sequence_id: int
    generation: int


class OpenSequence(msgspec.Struct, frozen=True, array_like=True):
    """Clears a sequence's cells and gives it a sampler.

    ``sampling`` are the fields of :class:`paddock.sampling.SamplingParameters` (seed resolved), ``history``
    the tokens that its penalties and DRY have seen already, ``generated`` the number of draws made so far,
    ``sampler_state`` the last ``Sampled.sampler_state`` (mirostat, adaptive-p), empty for a new sequence, and
    ``choice`` the number of this completion among those of one request with one seed.
    """

    sequence_id: int
    generation: int
    sampling: dict[str, object]
    history: list[int] = []
    generated: int = 0
    sampler_state: bytes = b""
    choice: int = 0


# --- to the worker --------------------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True, tag=True):
    """Loads a model and makes its context; answered by LoadProgress ... Loaded | LoadFailed."""

    path: str
    model: dict[str, object]
    """Keyword arguments of :class:`paddock.native.model.ModelLoadParameters`."""
    context: dict[str, object]
    """Keyword arguments of :class:`paddock.native.context.ContextParameters`."""
    raw_path: bytes = b""
    """The path as :func:`os.fsencode` gives it, for a file name that is no Unicode; ``path`` then shows it."""
    probe: ProbeOrder | None = None
    """What is to be found out about exactness before the model serves; None for nothing."""
    block_tokens: int = 0
    """Tokens of one block of saved state; 0 where no state is to be saved."""


class Tokenize(msgspec.Struct, frozen=True, tag=True):
    """Answered by Tokenized, from a thread that never waits for a decode."""

    request_id: int
    text: bytes
    add_special: bool
    parse_special: bool


class CompileGrammar(msgspec.Struct, frozen=True, tag=True):
    """Answered by GrammarCompiled, from a thread that never waits for a decode.

    The worker keeps what it compiles: a sequence that is opened with the grammar soon after takes no time for it.
    """

    request_id: int
    parameter: str
    """json_schema, regex or grammar, as in :class:`paddock.sampling.SamplingParameters`."""
    text: str


class Step(msgspec.Struct, frozen=True, tag=True):
    """One ``decode_and_sample_batch`` call; in this order: releases, opens, the batch. Answered by Stepped.

    ``chunks`` may be empty (a step that only opens or releases).
    """

    request_id: int
    releases: list[SequenceRef]
    opens: list[OpenSequence]
    chunks: list[Chunk]


class SampleLogits(msgspec.Struct, frozen=True, tag=True):
    """Samples from a logits row (float32, little endian, n_vocab) that a Python hook has changed."""

    request_id: int
    sequence_id: int
    generation: int
    logits: bytes


class BlockRef(msgspec.Struct, frozen=True, array_like=True):
    """A block in the arena: where its slot begins, and the XXH3-128 of its payload (16 bytes)."""

    offset: int
    checksum: bytes


class SaveBlocks(msgspec.Struct, frozen=True, tag=True):
    """Saves whole blocks of a sequence into slots of the arena; answered by BlocksSaved.

    Block i holds the tokens from ``i * block_tokens`` on. ``slots[k]`` is the offset of the slot for block
    ``first_block + k``; the parent leaves all of them alone until the answer. The state is read between the steps
    sent before and those sent after, so that a step behind may release the sequence.
    """

    request_id: int
    sequence_id: int
    generation: int
    first_block: int
    slots: list[int]


class RestoreBlocks(msgspec.Struct, frozen=True, tag=True):
    """Fills an open, empty sequence with its first ``n_tokens`` tokens; answered by BlocksRestored.

    ``blocks`` hold them from the first block on; the last one may hold more. All are verified before llama.cpp sees
    any. The slots are left alone, and no step touches the sequence, until the answer.
    """

    request_id: int
    sequence_id: int
    generation: int
    blocks: list[BlockRef]
    n_tokens: int


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Ends the decode call in progress, if there is one, and those of the steps that are still queued: each
    answers with the fault DecodeAborted. Their releases and opens are applied all the same."""


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Answered by Pong without waiting for the decode thread."""

    request_id: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Frees the context and ends the worker with exit code 0."""


ToWorker = Load | Tokenize | CompileGrammar | Step | SampleLogits | SaveBlocks | RestoreBlocks | Abort | Ping | Stop


# --- from the worker ------------------------------------------------------------------------------------


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """An error as it travels: the class name in :mod:`paddock.errors` and its constructor's arguments."""

    kind: str
    arguments: list[object]


class LoadProgress(msgspec.Struct, frozen=True, tag=True):
    fraction: float


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The model serves. ``pieces`` and ``offsets`` are the token pieces back to back and where each begins
    (uint32, little endian, n_vocab + 1 entries); ``control`` and ``eog`` are token ids."""

    n_vocab: int
    n_ctx: int
    """Cells per sequence."""
    n_seq_max: int
    n_batch: int
    pieces: bytes
    offsets: bytes
    control: list[int]
    eog: list[int]
    special: dict[str, int]
    """Named special tokens that the vocabulary has: bos, eos, eot, nl, fim_pre, fim_suf, fim_mid, ..."""
    add_bos: bool
    add_space_prefix: bool
    clean_spaces: bool
    memory: dict[str, int]
    """Bytes: model, kv."""
    build: str
    """The build fingerprint of the llama.cpp library."""
    seconds: float
    certificate: Certificate | None = None
    """What the probe found; None where none was asked for."""
    state: str = "none"
    """How sequences can be saved: "blocks", "snapshot" (only whole, which the protocol does not do) or "none"."""
    state_problem: str = ""
    """Why it is not "blocks"."""
    block_bytes: int = 0
    """Bytes of a block's payload; 0 unless ``state`` is "blocks"."""
    token_bytes: int = 0
    """Bytes of one token in it."""


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    fault: Fault


class Tokenized(msgspec.Struct, frozen=True, tag=True):
    request_id: int
    tokens: list[int]
    fault: Fault | None = None


class GrammarCompiled(msgspec.Struct, frozen=True, tag=True):
    request_id: int
    fault: Fault | None = None


class Stepped(msgspec.Struct, frozen=True, tag=True):
    """``fault`` is None when the batch was computed; InvalidBatch leaves every sequence as it was.

    ``seconds`` is the time that the decode thread spent on the step. ``positions`` is filled when ``fault``
    is not None: the tokens that each sequence of the batch holds now (an aborted decode call loses some).
    """

    request_id: int
    sampled: list[Sampled]
    seconds: float
    fault: Fault | None = None
    positions: dict[int, int] = {}


class LogitsSampled(msgspec.Struct, frozen=True, tag=True):
    request_id: int
    sampled: Sampled | None
    fault: Fault | None = None


class BlocksSaved(msgspec.Struct, frozen=True, tag=True):
    """``checksums``: one for each slot, in their order; with a fault, of those slots that were filled before it.

    ``seconds`` from the begin of the read to the answer, of which ``decode_seconds`` on the decode thread.
    """

    request_id: int
    checksums: list[bytes]
    seconds: float
    decode_seconds: float
    fault: Fault | None = None


class BlocksRestored(msgspec.Struct, frozen=True, tag=True):
    """``n_tokens`` is what the sequence holds now: as many as were asked for, or 0.

    ``bad``: the indexes of blocks that are not what their checksums say; any of them, or a fault, and nothing was
    applied. ``seconds`` from the begin of verifying to the answer, of which ``decode_seconds`` on the decode thread.
    """

    request_id: int
    n_tokens: int
    bad: list[int]
    seconds: float
    decode_seconds: float
    fault: Fault | None = None


class Pong(msgspec.Struct, frozen=True, tag=True):
    request_id: int
    decoding_seconds: float
    """How long the decode thread has been in its present call; 0.0 when it is idle."""


class Log(msgspec.Struct, frozen=True, tag=True):
    """One line of llama.cpp's log: level is debug, info, warning or error."""

    level: str
    text: str


FromWorker = (
    LoadProgress
    | Loaded
    | LoadFailed
    | Tokenized
    | GrammarCompiled
    | Stepped
    | LogitsSampled
    | BlocksSaved
    | BlocksRestored
    | Pong
    | Log
)
