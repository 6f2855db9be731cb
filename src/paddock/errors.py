"""Every error that Paddock raises: one base class, typed attributes, a message that says what to do."""

from __future__ import annotations

import reprlib
from pathlib import Path

__all__ = [
    "AbsurdGguf",
    "BatchError",
    "BlockRefused",
    "CacheError",
    "CacheFolderUnusable",
    "CacheMemoryExhausted",
    "ChatTemplateError",
    "ChatTemplateMissing",
    "ContextOverflow",
    "CorruptGguf",
    "DeadlineExceeded",
    "DecodeAborted",
    "DecodeFailed",
    "DuplicateTokens",
    "ExactnessNotProven",
    "InvalidBatch",
    "InvalidConfiguration",
    "InvalidModelFile",
    "InvalidParameter",
    "LogitsProcessorError",
    "ModelAlreadyLoaded",
    "ModelError",
    "ModelLoadFailed",
    "ModelNotFound",
    "ModelNotLoaded",
    "ModelUnavailable",
    "NotGguf",
    "PaddockError",
    "PoisonRequest",
    "ProtocolError",
    "QuantizationFailed",
    "QueueFull",
    "RequestCancelled",
    "RequestError",
    "RequestProcessEnded",
    "RuntimeClosed",
    "SamplingFailed",
    "SequenceStateError",
    "SessionBusy",
    "SessionDamaged",
    "SessionError",
    "SessionExists",
    "SessionInterrupted",
    "SessionModelMismatch",
    "SessionNotFound",
    "SessionNotSaved",
    "SessionStoreUnusable",
    "TruncatedGguf",
    "UnsupportedArchitecture",
    "WorkerBusy",
    "WorkerDied",
]


class PaddockError(Exception):
    """The base class of every error that Paddock raises on purpose. Can be copied and pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        # An exception's own way calls the constructor with ``args``, which here is the message alone.
        return _rebuilt, (type(self), self.args), self.__dict__


def _rebuilt(kind: type[PaddockError], args: tuple[object, ...]) -> PaddockError:
    error = kind.__new__(kind, *args)
    error.args = args  # a TimeoutError takes them in its constructor alone
    return error


class InvalidConfiguration(PaddockError):
    """A configuration value or file that Paddock refuses; ``field`` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"configuration {field}: {problem}")
        self.field = field
        self.problem = problem


class RuntimeClosed(PaddockError):
    """The runtime has been closed; open a new one."""

    def __init__(self) -> None:
        super().__init__("the runtime is closed; open a new one with paddock.open_runtime()")


# --- requests -------------------------------------------------------------------------------------------


class RequestError(PaddockError):
    """A request was refused or ended early; it alone is affected."""


class InvalidParameter(RequestError, ValueError):
    """A request parameter outside its documented range. Nothing was rewritten, nothing was started."""

    def __init__(self, parameter: str, value: object, allowed: str) -> None:
        shown = _shown(value)
        super().__init__(f"{parameter}={shown} is not allowed: {allowed}")
        self.parameter = parameter
        self.value = value
        self.allowed = allowed


def _shown(value: object) -> str:
    """At most 80 characters, in time that does not grow with the value; a ``repr`` that raises does not get out."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 20
    shown = short.repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


class QueueFull(RequestError):
    """The model's admission queue is full; retry later or raise ``ModelConfig.queue_limit``."""

    def __init__(self, model: str, limit: int) -> None:
        super().__init__(f"model {model!r} already has {limit} queued requests; retry later or raise queue_limit")
        self.model = model
        self.limit = limit


class PoisonRequest(RequestError):
    """The worker died each time it computed this request, alone as well: do not send it again. ``how`` and
    ``last_words`` are those of the last death. Other requests go on."""

    def __init__(self, how: str, last_words: str = "") -> None:
        said = f": {last_words}" if last_words else ""
        super().__init__(f"this request brings the model's worker down ({how}){said}; do not send it again")
        self.how = how
        self.last_words = last_words


class DeadlineExceeded(RequestError, TimeoutError):
    """The request's deadline passed; ``phase`` says where it was: queued, prefill, decode or recovering."""

    def __init__(self, seconds: float, phase: str) -> None:
        super().__init__(f"the deadline of {seconds:g} s passed while the request was in phase {phase!r}")
        self.seconds = seconds
        self.phase = phase


class ContextOverflow(RequestError):
    """Prompt and requested output do not fit into the context of one sequence; refused at admission.

    ``prompt_tokens`` is a lower bound when ``at_least`` is true (the prompt was too long to be worth tokenizing).
    """

    def __init__(self, prompt_tokens: int, max_tokens: int | None, n_ctx: int, *, at_least: bool = False) -> None:
        wanted = f"{'at least ' if at_least else ''}{prompt_tokens} prompt tokens"
        if max_tokens is not None:
            wanted += f" and max_tokens={max_tokens}"
        super().__init__(f"{wanted} do not fit into n_ctx={n_ctx} tokens a sequence; shorten the prompt or raise n_ctx")
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.n_ctx = n_ctx
        self.at_least = at_least


class RequestCancelled(RequestError):
    """The request was cancelled; ``origin`` says by whom: handle, consumer, drain, unload or shutdown."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"the request was cancelled (origin: {origin})")
        self.origin = origin


class RequestProcessEnded(RequestError):
    """The process that ran the request ended before it had an outcome; a defect. Others are not affected, try again."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the request's own process ended: {problem}; try again")
        self.problem = problem


class LogitsProcessorError(RequestError):
    """The request's own ``logits_processor`` raised or returned something that is no logits row."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"logits_processor failed: {problem}")
        self.problem = problem


class SamplingFailed(RequestError):
    """No token could be sampled for this request alone: no candidate was left, or the logits were not numbers."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"no token could be sampled: {problem}")
        self.problem = problem


class ChatTemplateError(RequestError):
    """The model's chat template could not render these messages, or was refused."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"chat template: {problem}")
        self.problem = problem


class ChatTemplateMissing(ChatTemplateError):
    """The model file holds no chat template; use ``complete`` or ``stream`` with a rendered prompt."""

    def __init__(self) -> None:
        super().__init__("the model file holds none; use complete() or stream() with a prompt of your own")


# --- models ---------------------------------------------------------------------------------------------


class ModelError(PaddockError):
    """Something is wrong with one model; others serve on."""


class ModelNotFound(ModelError):
    """No model file stands behind this reference."""

    def __init__(self, source: str | Path, problem: str = "no such file or model name") -> None:
        super().__init__(f"model {str(source)!r}: {problem}")
        self.source = str(source)
        self.problem = problem


class ModelNotLoaded(ModelError):
    """No model of this name is loaded (it never was, or it has been unloaded)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name!r} is not loaded; call load_model() first")
        self.name = name


class ModelAlreadyLoaded(ModelError):
    """A model of this name is loaded, or loading, already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a model named {name!r} is loaded already; unload it first or choose another name")
        self.name = name


class ModelLoadFailed(ModelError):
    """llama.cpp refused the model or its context; ``reason`` holds its last words."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"model {name!r} could not be loaded: {reason}")
        self.name = name
        self.reason = reason


class ModelUnavailable(ModelError):
    """The model gave up (its worker kept dying); ``reason`` says why. Unload it and load it again."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"model {name!r} is out of service: {reason}; unload it and load it again")
        self.name = name
        self.reason = reason


class ExactnessNotProven(ModelError):
    """``exactness="required"``, and the probe did not show it; ``check`` is the one that failed or was not run."""

    def __init__(self, name: str, recipe: str, check: str, problem: str) -> None:
        super().__init__(
            f"model {name!r} is not exact under the recipe {recipe!r}: check {check!r} {problem}; "
            "try the other exactness_recipe, give the probe more probe_seconds, or load it with exactness='preferred'"
        )
        self.name = name
        self.recipe = recipe
        self.check = check
        self.problem = problem


class QuantizationFailed(ModelError):
    """A model file could not be quantized; ``reason`` holds llama.cpp's last words. Nothing was written."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source} could not be quantized: {reason}")
        self.source = source
        self.reason = reason


class InvalidModelFile(ModelError):
    """A model file that is refused before llama.cpp sees it; ``path`` and ``fault`` say which and why."""

    def __init__(self, path: str | Path, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
        self.path = str(path)
        self.fault = fault


class NotGguf(InvalidModelFile):
    """The file does not begin as a GGUF file does."""


class TruncatedGguf(InvalidModelFile):
    """The file ends before its header or its tensor data does."""


class CorruptGguf(InvalidModelFile):
    """The header contradicts itself or the format."""


class AbsurdGguf(CorruptGguf):
    """A count or size in the header that no real model has."""


class DuplicateTokens(InvalidModelFile):
    """Two entries of the vocabulary have the same string; llama.cpp would abort the process."""


class UnsupportedArchitecture(InvalidModelFile):
    """The pinned llama.cpp does not know this architecture."""


# --- worker ---------------------------------------------------------------------------------------------


class WorkerDied(ModelError):
    """The worker process that held the model's context died; the model restarts by itself, and requests go on."""

    def __init__(self, how: str, last_words: str = "") -> None:
        super().__init__(f"the model's worker died ({how})" + (f": {last_words}" if last_words else ""))
        self.how = how
        self.last_words = last_words


class WorkerBusy(ModelError):
    """More is queued at the model's worker than it may hold; wait for answers before sending more."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"the model's worker already holds {limit} {what}; wait for answers before sending more")
        self.what = what
        self.limit = limit


class ProtocolError(ModelError):
    """Port and worker disagree about the protocol; a defect, not a matter of input."""


class BatchError(ModelError):
    """A batch could not be computed."""


class InvalidBatch(BatchError):
    """A batch that would abort llama.cpp or corrupt a sequence; refused before it, nothing changed."""


class DecodeFailed(BatchError):
    """llama_decode returned an error ``code``; see the llama.cpp documentation of llama_decode."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(f"llama_decode returned {code}: {problem}")
        self.code = code
        self.problem = problem


class DecodeAborted(BatchError):
    """The abort flag ended a decode call; positions were read again."""


class SequenceStateError(ModelError):
    """A sequence's state could not be saved or restored; the sequence can be computed from its tokens."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the state of a sequence: {problem}; compute it from its tokens instead")
        self.problem = problem


# --- cache ----------------------------------------------------------------------------------------------


class CacheError(PaddockError):
    """The store of KV blocks cannot do what was asked; requests compute what it does not give."""


class CacheMemoryExhausted(CacheError):
    """There is no room in memory for another block; lower ``ram_cache_bytes`` or free memory."""

    def __init__(self, n_bytes: int, problem: str) -> None:
        super().__init__(
            f"no memory for {n_bytes} bytes of the KV cache: {problem}; lower ram_cache_bytes or free memory"
        )
        self.n_bytes = n_bytes
        self.problem = problem


class CacheFolderUnusable(CacheError):
    """The folder of the disk tier cannot be used; serving goes on without it. Free it, or choose another one."""

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"cache folder {str(path)!r} cannot be used: {problem}; free it or choose another cache_dir")
        self.path = str(path)
        self.problem = problem


class BlockRefused(CacheError):
    """A stored block that failed its verification; ``fault`` says which check. It is dropped and computed again."""

    def __init__(self, fault: str, problem: str) -> None:
        super().__init__(f"stored block refused ({fault}): {problem}; it is computed again")
        self.fault = fault
        self.problem = problem


# --- sessions -------------------------------------------------------------------------------------------


class SessionError(PaddockError):
    """A session cannot do what was asked; it is as it was before. Other sessions are not affected."""


class SessionBusy(SessionError):
    """Another turn of the session is under way, in process ``pid``. Try again, or use ``wait=True``."""

    def __init__(self, session_id: str, pid: int | None) -> None:
        where = "" if pid is None else f" in process {pid}"
        super().__init__(f"session {session_id!r} has a turn under way{where}; try again when it has ended")
        self.session_id = session_id
        self.pid = pid


class SessionNotFound(SessionError):
    """The session was deleted; ``model.session()`` makes one of that name anew."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} does not exist any more; open it anew with model.session()")
        self.session_id = session_id


class SessionExists(SessionError):
    """A fork was to be given the name of a session that there is; choose another, or delete that one first."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} exists already; choose another id, or delete it first")
        self.session_id = session_id


class SessionModelMismatch(SessionError):
    """The session was held with another model file, whose tokens mean nothing to this one."""

    def __init__(self, session_id: str, held_with: str, model: str) -> None:
        super().__init__(
            f"session {session_id!r} was held with another model (then served as {held_with!r}), not with the file "
            f"behind {model!r}; load that one, or choose another id"
        )
        self.session_id = session_id
        self.held_with = held_with
        self.model = model


class SessionDamaged(SessionError):
    """What is stored of the session contradicts itself. Nothing was changed; rewind does not help, delete it."""

    def __init__(self, session_id: str, problem: str) -> None:
        super().__init__(f"session {session_id!r} is damaged: {problem}; restore the file from a copy, or delete it")
        self.session_id = session_id
        self.problem = problem


class SessionInterrupted(SessionError):
    """The session's own process ended during the turn; a defect. Nothing was recorded, say it again."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"the process of session {session_id!r} ended during the turn; it was not recorded, try again")
        self.session_id = session_id


class SessionNotSaved(SessionError):
    """A reply was complete but could not be recorded, so the session is as before; ``reply`` is its text."""

    def __init__(self, session_id: str, problem: str, reply: str) -> None:
        super().__init__(f"the turn of session {session_id!r} could not be recorded: {problem}; the reply is in .reply")
        self.session_id = session_id
        self.problem = problem
        self.reply = reply


class SessionStoreUnusable(SessionError):
    """The file with the sessions cannot be used; it was left as it is. Free it, or choose another ``state_dir``."""

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"session store {str(path)!r} cannot be used: {problem}; choose another state_dir, or mend it")
        self.path = str(path)
        self.problem = problem
