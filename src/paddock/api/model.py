"""A loaded model: complete, stream, chat, tokenize, statistics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import trio

import supervisors as sup
from paddock.api.request import Request
from paddock.api.session import Session
from paddock.cache.client import KvStore
from paddock.config import ModelConfig
from paddock.engine.caching.fingerprint import fingerprint_of
from paddock.engine.requests.actor import RequestActor, RequestProgress, RequestSpec
from paddock.engine.requests.delivery import Delivery
from paddock.engine.requests.logits_hook import LogitsProcessor
from paddock.engine.requests.messages import AwaitServing, MachineStatistics
from paddock.engine.requests.results import Completion
from paddock.engine.served import ServedModel
from paddock.engine.statistics import ModelStatistics
from paddock.engine.tree import RESTART_SECONDS, machine_key, port_of, requests_key
from paddock.engine.worker.messages import TokenizeText, WorkerInfo, WorkerStatus
from paddock.errors import ChatTemplateMissing, InvalidParameter, ModelNotFound, ModelNotLoaded, WorkerDied
from paddock.models.facts import ModelFacts
from paddock.native.exactness.certificate import Certificate
from paddock.sampling.parameters import SamplingParameters
from paddock.sessions.cached import CachedSessions
from paddock.sessions.conversation import SessionFacts
from paddock.sessions.host import SessionHost
from paddock.sessions.turns import checked_key
from paddock.text.chat import ChatTemplate
from paddock.text.detokenizer import detokenize
from paddock.text.messages import validate_tools

__all__ = ["Model"]

_request_numbers = itertools.count(1)

Prompt = str | bytes | Sequence[int]
Message = Mapping[str, Any]


class Model:
    """One model that is loaded in a runtime; made by ``runtime.load_model``. Usable by any number of tasks at once.

    The keyword arguments ``**parameters`` of every request method are the fields of
    :class:`paddock.SamplingParameters`; an unknown name or a value outside its range raises InvalidParameter.
    Further arguments of all of them:

    ``priority``: -100 to 100; a higher one is admitted and prefilled before a lower one.
    ``deadline``: seconds from now after which the request ends with DeadlineExceeded, wherever it is.
    ``logits_processor``: a function ``(token_ids, logits) -> logits | None``, see
    :mod:`paddock.engine.requests.logits_hook`.
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        served: ServedModel,
        registry: sup.Registry,
        supervisor: sup.Pid[Any],
        sessions: SessionHost,
        store: KvStore | None,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._fingerprint: str | None = None
        self._name = name
        self._config = config
        self._served = served
        self._machine = registry.via(machine_key(name))
        self._requests = registry.via(requests_key(name))
        self._supervisor = supervisor
        self._template: ChatTemplate | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def facts(self) -> ModelFacts:
        """What the file's header says: architecture, weight types, sizes, chat template, memory class."""
        return self._served.facts

    @property
    def n_ctx(self) -> int:
        """Tokens per sequence: prompt and reply together."""
        return self._served.n_ctx

    @property
    def exactness(self) -> str:
        """The recipe that this model runs under, "canonical" or "invariant", where its certificate holds; "unproven"
        where it does not; "off" where none was wanted."""
        return self._served.recipe.name

    @property
    def certificate(self) -> Certificate | None:
        """What the probe of exactness found when the model was loaded (last); None with ``exactness="off"``."""
        return self._served.certificate

    @property
    def supervisor(self) -> sup.Pid[Any]:
        """The process at the top of this model's subtree."""
        return self._supervisor

    # --- requests -----------------------------------------------------------------------------------------

    async def complete(self, prompt: Prompt, **arguments: Any) -> Completion:
        """Completes a prompt (text, UTF-8 bytes, or token ids) and returns the whole reply.

        A checkpoint; cancelling it cancels the request. Raises the typed errors of :class:`paddock.RequestError`
        and :class:`paddock.ModelError`.
        """
        request = self._request(prompt, arguments, streaming=False)
        async with request:
            return await request.result()

    def stream(self, prompt: Prompt, **arguments: Any) -> Request:
        """The same as an async context manager that yields deltas:

            async with model.stream("A llama", max_tokens=200) as request:
                async for delta in request: ...

        Entering it waits until the request is admitted to the queue, and raises why it is not. Leaving the block
        cancels what still runs. Not a checkpoint itself; raises InvalidParameter at once.
        """
        return self._request(prompt, arguments, streaming=True)

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> Completion:
        """Renders the messages with the model's own chat template and returns the whole reply.

        Raises ChatTemplateMissing and ChatTemplateError beside the errors of :meth:`complete`.
        """
        prompt = await self.render_chat(messages, tools=tools)
        request = self._request(prompt, arguments, streaming=False, rendered=True)
        async with request:
            return await request.result()

    async def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> Request:
        """Renders the messages; the returned request is used as that of :meth:`stream`."""
        prompt = await self.render_chat(messages, tools=tools)
        return self._request(prompt, arguments, streaming=True, rendered=True)

    async def render_chat(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None, **variables: Any
    ) -> str:
        """The prompt that the model's chat template makes of these messages.

        ``variables`` are further variables that the template knows, such as ``enable_thinking``. Runs in a thread,
        sandboxed and bounded. A checkpoint; cancelling it abandons the rendering.
        Raises ChatTemplateMissing, ChatTemplateError, InvalidParameter (for malformed messages or tools).
        """
        return await self._chat_template().render_in_thread(messages, tools, **variables)

    async def tokenize(self, text: str | bytes, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The token ids of a text. A checkpoint. Raises InvalidParameter, ModelNotLoaded, WorkerDied, WorkerBusy."""
        prompt = _checked_text("text", text)
        _check_flags(add_special=add_special, parse_special=parse_special)
        await self._serving()
        tokens: list[int] = await self._call_port(TokenizeText(prompt, add_special, parse_special))
        return tokens

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of these tokens, special ones left out; undecodable bytes come out as U+FFFD.

        Raises InvalidParameter for what is no token id of this model.
        """
        ids = _checked_tokens("tokens", tokens)
        n_vocab = self._served.n_vocab
        if ids and max(ids) >= n_vocab:
            raise InvalidParameter("tokens", max(ids), f"token ids are 0 to {n_vocab - 1}")
        return detokenize(self._served.table, ids).decode("utf-8", "replace")

    # --- sessions -----------------------------------------------------------------------------------------

    async def session(
        self,
        id: str,
        *,
        tenant: str = "default",
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        wait: bool = True,
    ) -> Session:
        """The conversation of this name: a new one, or that which was held before, in this process or another.

        ``tenant`` says whose it is: another tenant's sessions, and what is cached of them, are out of reach.
        ``system`` and ``tools`` are fixed when the session is made; later they may be left out. ``wait=False``: a turn
        that is asked for while another is under way raises SessionBusy at once.

        A checkpoint. Raises InvalidParameter, ChatTemplateMissing, SessionModelMismatch for a session that was held
        with another model file, SessionDamaged, SessionStoreUnusable.
        """
        key = checked_key(tenant, id)
        if system is not None:
            if not isinstance(system, str):
                raise InvalidParameter("system", system, "a text")
            _checked_text("system", system)
        _check_flags(wait=wait)
        definitions = tuple(validate_tools(tools) or ())
        self._chat_template()
        if self._fingerprint is None:
            self._fingerprint = await _fingerprint(self._served.facts.path)
        facts = SessionFacts(key, self._fingerprint, self._name, system, definitions)
        found = await self._sessions.open(facts)
        for name, given, kept in (("system", system, found.system), ("tools", definitions, found.tools)):
            if given and given != kept:
                raise InvalidParameter(name, given, "what the session was made with; leave it out")
        return Session(self, self._sessions, found, wait=wait)

    def _cached_sessions(self) -> CachedSessions | None:
        """The KV store's part of this model's sessions; None where it has no part in the cache."""
        cache, store = self._served.cache, self._store
        return None if store is None or cache is None else CachedSessions(store, cache)

    # --- state --------------------------------------------------------------------------------------------

    async def statistics(self) -> ModelStatistics:
        """Counters and state of this model. A checkpoint. Raises ModelNotLoaded."""
        statistics: ModelStatistics = await self._call(MachineStatistics())
        try:
            status: WorkerStatus = await self._call_port(WorkerInfo())
        except (ModelNotLoaded, WorkerDied):
            return statistics
        return attrs.evolve(statistics, worker_pid=status.os_pid)

    async def wait_serving(self) -> None:
        """Until the model serves (again). A checkpoint. Raises why it never will."""
        await self._serving()

    async def _serving(self) -> ServedModel:
        served: ServedModel = await self._call(AwaitServing())
        self._served = served
        return served

    async def _call(self, message: object) -> Any:
        """Asks the machine; one that crashed is asked again once its supervisor has restarted it.

        The supervisor is looked at first: under the same name there may be another model by now.
        """
        while self._supervisor.alive:
            try:
                return await sup.call(self._machine, message, timeout=math.inf)
            except (sup.NoProc, sup.ServerExited):
                await trio.sleep(RESTART_SECONDS)
        raise ModelNotLoaded(self._name)

    async def _call_port(self, message: object) -> Any:
        try:
            return await sup.call(await port_of(self._supervisor), message, timeout=math.inf)
        except (sup.NoProc, sup.ServerExited):
            if self._supervisor.alive:
                raise WorkerDied("its port ended", "wait until the model serves again") from None
            raise ModelNotLoaded(self._name) from None

    def _chat_template(self) -> ChatTemplate:
        if self._template is None:
            facts = self._served.facts
            if facts.chat_template is None:
                raise ChatTemplateMissing
            self._template = ChatTemplate(facts.chat_template, self._special_text("bos"), self._special_text("eos"))
        return self._template

    def _special_text(self, name: str) -> str:
        token = self._served.special.get(name)
        return "" if token is None else self._served.table.piece(token).decode("utf-8", "replace")

    def _request(
        self,
        prompt: Prompt,
        arguments: dict[str, Any],
        *,
        streaming: bool,
        rendered: bool = False,
        generated: bytes | None = None,
    ) -> Request:
        """A request that has been checked and not started, see :meth:`_spec`."""
        spec = self._spec(prompt, arguments, streaming=streaming, rendered=rendered, generated=generated)
        return Request(spec, self._child(spec), self._requests, self._supervisor)

    def _spec(
        self,
        prompt: Prompt,
        arguments: dict[str, Any],
        *,
        streaming: bool,
        rendered: bool = False,
        generated: bytes | None = None,
    ) -> RequestSpec:
        """Checks everything that can be checked without the model.

        ``generated`` says which tokens of a prompt of token ids were generated in earlier turns, see RequestSpec.
        """
        arguments = dict(arguments)
        priority = _checked_priority(arguments.pop("priority", 0))
        deadline = _checked_deadline(arguments.pop("deadline", None))
        processor = _checked_processor(arguments.pop("logits_processor", None))
        add_special, parse_special = arguments.pop("add_special", True), arguments.pop("parse_special", False)
        _check_flags(add_special=add_special, parse_special=parse_special)
        sampling = SamplingParameters.from_mapping(arguments).resolved()
        checked = _checked_prompt(prompt)
        if rendered:
            # A template writes its own special tokens, and most write the first one too.
            bos = self._special_text("bos").encode()
            assert isinstance(checked, bytes)
            add_special, parse_special = not (bos and checked.startswith(bos)), True
        if generated is not None:
            generated = _checked_generated(generated, checked)
        number = next(_request_numbers)
        assert sampling.seed is not None
        return RequestSpec(
            request_id=f"{self._name}-{number}",
            model=self._name,
            prompt=checked,
            add_special=add_special,
            parse_special=parse_special,
            generated=generated,
            sampling=sampling,
            seed=sampling.seed,
            priority=priority,
            deadline=deadline,
            logits_processor=processor,
            delivery=Delivery(self._config.delta_buffer, streaming=streaming),
            progress=RequestProgress(),
        )

    def _child(self, spec: RequestSpec) -> sup.ChildSpec:
        return sup.child(RequestActor, self._machine, spec, id=spec.request_id, restart="temporary", shutdown=1.0)

    def __repr__(self) -> str:
        return f"<paddock.Model {self._name!r} n_ctx={self.n_ctx} exactness={self.exactness!r}>"


async def _fingerprint(path: Path) -> str:
    """Only reads: a file system that hangs must not hold up who gives up."""
    try:
        return await trio.to_thread.run_sync(fingerprint_of, path, abandon_on_cancel=True)
    except OSError as error:
        raise ModelNotFound(path, f"it cannot be read: {error}") from error


def _checked_prompt(prompt: object) -> bytes | tuple[int, ...]:
    checked: bytes | tuple[int, ...]
    if isinstance(prompt, str | bytes | bytearray):
        checked = _checked_text("prompt", prompt)
    elif isinstance(prompt, Sequence) and not isinstance(prompt, memoryview):
        checked = _checked_tokens("prompt", prompt)
    else:
        raise InvalidParameter("prompt", prompt, "text, UTF-8 bytes, or a sequence of token ids")
    if not checked:
        raise InvalidParameter("prompt", prompt, "it must not be empty")
    return checked


def _checked_text(parameter: str, text: object) -> bytes:
    """A copy of the text as UTF-8."""
    if isinstance(text, str):
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidParameter(parameter, text[error.start : error.end], "text without lone surrogates") from None
    if isinstance(text, bytes | bytearray):
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidParameter(parameter, bytes(text[error.start : error.end]), "valid UTF-8") from None
        return bytes(text)
    raise InvalidParameter(parameter, text, "text or UTF-8 bytes")


def _checked_tokens(parameter: str, tokens: object) -> tuple[int, ...]:
    """A copy of plain ints: the caller may change its own, and what derives from int cannot be sent to a worker."""
    ids = tuple(tokens) if isinstance(tokens, Iterable) and not isinstance(tokens, str | bytes | bytearray) else None
    if ids is None or not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise InvalidParameter(parameter, tokens, "text, UTF-8 bytes, or a sequence of token ids")
    if ids and min(ids) < 0:
        raise InvalidParameter(parameter, min(ids), "token ids are not negative")
    return tuple(map(int, ids))


def _checked_generated(generated: bytes, prompt: bytes | tuple[int, ...]) -> bytes:
    if not isinstance(prompt, tuple) or len(generated) != len(prompt) or generated.strip(b"\0\1"):
        raise InvalidParameter("generated", len(generated), "one byte of 0 or 1 for each token id of the prompt")
    return bytes(generated)


def _check_flags(**flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidParameter(name, value, "True or False")


def _checked_priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -100 <= value <= 100:
        raise InvalidParameter("priority", value, "a whole number from -100 to 100")
    return value


def _checked_deadline(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidParameter("deadline", value, "a number of seconds above 0, or None")
    try:
        return float(value)
    except OverflowError:  # a whole number beyond every float
        raise InvalidParameter("deadline", value, "a number of seconds above 0, or None") from None


def _checked_processor(value: object) -> LogitsProcessor | None:
    if value is None:
        return None
    if not callable(value):
        raise InvalidParameter("logits_processor", value, "a function (token_ids, logits), or None")
    return cast(LogitsProcessor, value)
