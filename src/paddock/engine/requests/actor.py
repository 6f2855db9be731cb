"""The request actor: one process per request, from its place in the queue to its last character.

It owns the request's lease (the machine ties it to this process's life), its tokens and text, its deadline and the
way to its consumer. It ends as soon as the outcome is known; what the consumer has not read yet waits in the
:class:`~paddock.engine.requests.delivery.Delivery`, not here, so a slow reader never holds a sequence.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import trio

import supervisors as sup
from paddock.cache.keys import Chain
from paddock.engine.caching.prefix import ChainRules
from paddock.engine.requests.delivery import Delivery
from paddock.engine.requests.logits_hook import LogitsProcessor, run_processor
from paddock.engine.requests.messages import (
    Admit,
    CancelRequest,
    DeadlinePassed,
    Enlist,
    Generated,
    GrammarReady,
    HookDone,
    HookLogits,
    Interrupted,
    Leased,
    Pause,
    PrefillProgress,
    PrefixRestored,
    Resume,
    RowFailed,
    SampleHooked,
    TextReady,
    Tokenized,
    UseWorker,
    WorkerLost,
)
from paddock.engine.requests.prompt import compile_grammar, name_blocks, tokenize_prompt
from paddock.engine.requests.results import Completion, Delta, TokenLogprob, Usage
from paddock.engine.served import ServedModel, admitted_max_tokens, shortest_possible
from paddock.engine.worker.messages import TokenizeText
from paddock.errors import (
    ContextOverflow,
    DeadlineExceeded,
    InvalidParameter,
    ModelNotLoaded,
    PaddockError,
    RequestCancelled,
    RequestProcessEnded,
    WorkerDied,
)
from paddock.native.batch import Sampled
from paddock.sampling.parameters import SamplingParameters, validate_for_vocabulary
from paddock.telemetry.discretion import Discreet
from paddock.text.stream import AssembledDelta, TextAssembler

__all__ = ["RequestActor", "RequestProgress", "RequestSpec"]

CANCELLED = sup.Shutdown("cancelled")
FAILED = sup.Shutdown("failed")
"""Exit reasons by which the machine counts outcomes; a completed request ends with Normal."""


@attrs.define(eq=False)
class RequestProgress:
    """Written by the actor, read by the handle and by observers."""

    phase: str = "queued"
    """queued, prefill, decode, recovering (from a worker's death to the next token), or ended."""
    prompt_tokens: int | None = None
    cached: int = 0
    """Prompt tokens that were restored from the cache; they count as prefilled."""
    prefilled: int = 0
    generated: int = 0
    recoveries: int = 0
    """How often the worker has died under it."""


@attrs.frozen(eq=False, kw_only=True)
class RequestSpec:
    """One request as it was submitted, checked and with its seed resolved."""

    request_id: str
    model: str
    prompt: bytes | tuple[int, ...] = attrs.field(repr=False)
    """Never in a repr: reports of a crash carry those."""
    add_special: bool
    parse_special: bool
    generated: bytes | None = attrs.field(default=None, repr=False)
    """For a prompt of token ids, one byte for each: 1 for a token that was generated in an earlier turn, else 0. None:
    all of them are prompt. A recipe under which that changes the bits computes such a token as it was computed then."""
    tenant: str = attrs.field(default="", repr=False)
    """Whose blocks the prefix cache may use, and keeps these for."""
    sampling: SamplingParameters = attrs.field(repr=False)
    seed: int
    priority: int
    deadline: float | None
    logits_processor: LogitsProcessor | None
    delivery: Delivery
    progress: RequestProgress


@attrs.define
class _Hook:
    """The request's own processor: it is called once for each token, also when the worker dies meanwhile."""

    step: int = -1
    """How long the reply was when it was called last."""
    row: bytes | None = None
    """What it gave; None while it runs."""
    wanted: bool = False
    """Whether the batch waits for it."""


class RequestActor(Discreet, sup.GenServer):
    """Messages are handled one at a time; everything slow runs in a linked one-shot process."""

    def __init__(self, machine: sup.Target, spec: RequestSpec) -> None:
        self._machine = machine
        self._spec = spec
        self._progress = spec.progress
        self._served: ServedModel | None = None
        self._batch: sup.Pid[Any] | None = None
        self._lease: Leased | None = None
        self._prompt: list[int] | None = None
        self._chain: Chain | None = None
        self._rules: ChainRules | None = None
        self._sampler_state = b""
        self._max_tokens = 0
        self._end_tokens: frozenset[int] = frozenset()
        self._generated: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._text: list[str] = []
        self._assembler: TextAssembler | None = None
        self._paused = False
        self._helpers: set[sup.Pid[Any]] = set()
        self._hook_limiter: trio.CapacityLimiter | None = None
        self._hook = _Hook()

    @classmethod
    async def run_behaviour(cls, pid: sup.Pid[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        spec: RequestSpec = args[1]
        try:
            await super().run_behaviour(pid, args, kwargs)
        finally:
            # Killed, or brought down by a process linked to it, it never came to ``terminate``: its consumer would
            # wait for ever.
            if not spec.delivery.closed:
                spec.delivery.fail(RequestProcessEnded("it was ended before it had an outcome"))
            spec.progress.phase = "ended"

    async def init(self) -> Any:
        return sup.Continue("enlist")

    async def handle_continue(self, content: object) -> Any:
        spec = self._spec
        if spec.delivery.closed:
            return sup.Stop(CANCELLED)  # the consumer went away before this process existed
        if spec.deadline is not None:
            self._helpers.add(sup.spawn_link(_alarm, sup.self(), spec.deadline, label="deadline"))
        try:
            await sup.call(self._machine, Enlist(sup.self(), spec.priority), timeout=math.inf)
        except PaddockError as error:
            return self._fail(error)
        except (sup.NoProc, sup.ServerExited):
            return self._fail(ModelNotLoaded(spec.model))
        return None

    async def handle_cast(self, message: object) -> Any:
        match message:
            case Generated(sampled, finish):
                return self._token(sampled, finish)
            case PrefillProgress(done, _):
                self._progress.prefilled = done
            case PrefixRestored(tokens):
                self._restored(tokens)
            case UseWorker(port, served):
                if self._prompt is None and self._spec.sampling.constraint is not None:
                    compiled = sup.spawn_link(
                        compile_grammar, sup.self(), message, self._spec.sampling.constraint, label="grammar"
                    )
                    self._helpers.add(compiled)
                    return None
                return self._use_worker(port, served)
            case GrammarReady(worker, error):
                return self._use_worker(worker.port, worker.served) if error is None else self._fail(error)
            case Tokenized(tokens, error, chain):
                return self._tokenized(tokens, error, chain)
            case Leased():
                self._admit(message)
            case Interrupted():
                self._progress.phase = "recovering"
                self._progress.recoveries += 1
                self._hook.wanted = False
            case HookLogits(logits):
                self._hook_logits(logits)
            case HookDone(logits, error):
                return self._hook_done(logits, error)
            case CancelRequest(origin):
                return self._cancel(origin)
            case DeadlinePassed():
                assert self._spec.deadline is not None
                return self._fail(DeadlineExceeded(self._spec.deadline, self._progress.phase))
            case RowFailed(error) | WorkerLost(error):
                return self._fail(error)
            case _:
                raise TypeError(f"unknown message {type(message).__name__}")
        return None

    async def terminate(self, reason: object) -> None:
        for helper in self._helpers:
            sup.exit(helper, sup.Killed())
        # Reached without an outcome only when somebody else ended this process.
        if isinstance(reason, sup.Crashed):
            self._spec.delivery.fail(RequestProcessEnded(type(reason.exception).__name__))
        else:
            self._spec.delivery.fail(RequestCancelled("shutdown"))

    def format_status(self) -> object:
        """No text and no tokens."""
        return {"id": self._spec.request_id, "phase": self._progress.phase, "generated": len(self._generated)}

    # --- before the batch ---------------------------------------------------------------------------------

    def _use_worker(self, port: sup.Pid[Any], served: ServedModel) -> Any:
        self._served = served
        rules = None if served.cache is None else served.cache.rules
        if self._prompt is not None:
            if rules != self._rules:
                self._chain = None  # its keys are those of a model that is not served any more
            return None
        self._rules = rules
        prompt = self._spec.prompt
        if isinstance(prompt, tuple):
            if rules is None:
                return self._tokenized(list(prompt), None)
            spec = self._spec
            named = sup.spawn_link(
                name_blocks, sup.self(), list(prompt), spec.generated, rules, spec.tenant, label="keys"
            )
            self._helpers.add(named)
            return None
        bound = shortest_possible(served, prompt)
        if bound > served.n_ctx:
            return self._fail(ContextOverflow(bound, self._spec.sampling.max_tokens, served.n_ctx, at_least=True))
        request = TokenizeText(prompt, self._spec.add_special, self._spec.parse_special)
        self._helpers.add(
            sup.spawn_link(tokenize_prompt, sup.self(), port, request, rules, self._spec.tenant, label="tokenize")
        )
        return None

    def _tokenized(self, tokens: list[int] | None, error: PaddockError | None, chain: Chain | None = None) -> Any:
        served = self._served
        if self._prompt is not None or served is None:
            return None
        if tokens is None:
            # Without its worker the machine is recovering, and sends UseWorker again.
            return None if isinstance(error, WorkerDied) or error is None else self._fail(error)
        sampling = self._spec.sampling
        try:
            if tokens and not (min(tokens) >= 0 and max(tokens) < served.n_vocab):
                stranger = next(token for token in tokens if not 0 <= token < served.n_vocab)
                raise InvalidParameter("prompt", stranger, f"token ids are 0 to {served.n_vocab - 1}")
            validate_for_vocabulary(sampling, served.n_vocab)
            self._max_tokens = admitted_max_tokens(served, len(tokens), sampling.max_tokens, sampling.min_tokens)
        except PaddockError as refusal:
            return self._fail(refusal)
        self._prompt = tokens
        self._chain = chain
        self._progress.prompt_tokens = len(tokens)
        eog = frozenset() if sampling.ignore_eos else served.table.eog
        self._end_tokens = eog | frozenset(sampling.stop_token_ids)
        self._assembler = TextAssembler(served.table, sampling.stop, prompt=tokens)
        self._spec.delivery.start()
        sup.cast(self._machine, TextReady(sup.self()))
        return None

    def _admit(self, leased: Leased) -> None:
        prompt, chain = self._prompt, self._chain
        assert prompt is not None
        self._lease = leased
        if self._progress.phase == "queued":
            self._progress.phase = "prefill"
        if chain is not None:
            # Who extended it before has ended with its worker, and knew no token that is not known here.
            chain.append_generated(self._generated[len(chain) - len(prompt) :])
        admit = Admit(
            request=sup.self(),
            lease=leased.lease,
            prompt=prompt,
            sampling=self._spec.sampling,
            max_tokens=self._max_tokens,
            end_tokens=self._end_tokens,
            priority=self._spec.priority,
            hooked=self._spec.logits_processor is not None,
            generated=self._spec.generated,
            reply=list(self._generated),
            sampler_state=self._sampler_state,
            chain=chain,
            watch=leased.watch,
        )
        sup.cast(leased.batch, admit)
        if self._paused:
            sup.cast(leased.batch, Pause(leased.lease))

    def _restored(self, tokens: int) -> None:
        """What is restored of a reply that goes on says nothing about what its prompt cost."""
        prompt = self._prompt
        if prompt is not None and not self._generated:
            self._progress.cached = self._progress.prefilled = min(tokens, len(prompt))

    # --- tokens and text ----------------------------------------------------------------------------------

    def _token(self, sampled: Sampled, finish: str | None) -> Any:
        assembler, token = self._assembler, sampled.token
        if assembler is None:
            return None
        self._progress.phase = "decode"
        self._generated.append(token)
        self._sampler_state = sampled.sampler_state
        self._progress.generated = len(self._generated)
        if finish == "stop":
            # The token that ends the reply has no text: an end-of-text token, or one the caller named.
            self._deliver(assembler.finish())
            self._end_delta(sampled)
            stop: str | int | None = token if token in self._spec.sampling.stop_token_ids else None
            return self._complete("stop", assembler.stopped if assembler.stopped is not None else stop)
        self._deliver(assembler.feed(token, sampled.logprob, sampled.top))
        if assembler.stopped is not None:
            return self._complete("stop", assembler.stopped)
        if finish == "length":
            self._deliver(assembler.finish())
            if assembler.stopped is not None:
                return self._complete("stop", assembler.stopped)
            return self._complete("length", None)
        self._pause_when_full()
        return None

    def _deliver(self, assembled: AssembledDelta | None) -> None:
        if assembled is None:
            return
        if assembled.logprobs:
            self._logprobs.extend(assembled.logprobs)
        self._text.append(assembled.text)
        self._spec.delivery.put(Delta(assembled.text, assembled.token_ids, assembled.logprobs))

    def _end_delta(self, sampled: Sampled) -> None:
        """Reports the ending token without text. It has no log-probability row: it is no part of the reply."""
        self._spec.delivery.put(Delta("", (sampled.token,)))

    def _pause_when_full(self) -> None:
        delivery, leased = self._spec.delivery, self._lease
        if self._paused or leased is None or not delivery.full:
            return
        self._paused = True
        sup.cast(leased.batch, Pause(leased.lease))

        def resume() -> None:
            self._paused = False
            if self._lease is not None:  # not the one of then: the worker may have died meanwhile
                sup.cast(self._lease.batch, Resume(self._lease.lease))

        delivery.on_drained = resume

    # --- logits processor ---------------------------------------------------------------------------------

    def _hook_logits(self, logits: bytes) -> None:
        hook, step = self._hook, len(self._generated)
        hook.wanted = True
        if hook.step != step:
            hook.step, hook.row = step, None
            self._start_hook(logits)
        elif hook.row is not None:
            self._send_hooked(hook.row)

    def _start_hook(self, logits: bytes) -> None:
        processor, prompt = self._spec.logits_processor, self._prompt
        assert processor is not None
        assert prompt is not None
        if self._hook_limiter is None:
            self._hook_limiter = trio.CapacityLimiter(1)
        tokens = (*prompt, *self._generated)
        self._helpers = {pid for pid in self._helpers if pid.alive}
        self._helpers.add(
            sup.spawn_link(
                run_processor,
                sup.self(),
                processor,
                tokens,
                logits,
                self._hook_limiter,
                label="logits_processor",
            )
        )

    def _hook_done(self, logits: bytes | None, error: PaddockError | None) -> Any:
        if logits is None:
            return self._fail(error or PaddockError("the logits processor gave nothing"))
        self._hook.row = logits
        if self._hook.wanted:
            self._send_hooked(logits)
        return None

    def _send_hooked(self, logits: bytes) -> None:
        assert self._lease is not None
        sup.cast(self._lease.batch, SampleHooked(self._lease.lease, logits))

    # --- outcomes -----------------------------------------------------------------------------------------

    def _complete(self, finish_reason: str, stop: str | int | None) -> sup.Stop:
        served, prompt = self._served, self._prompt
        assert served is not None
        assert prompt is not None
        self._spec.delivery.complete(
            Completion(
                model=self._spec.model,
                text="".join(self._text),
                token_ids=tuple(self._generated),
                finish_reason=finish_reason,
                stop=stop,
                seed=self._spec.seed,
                usage=Usage(len(prompt), self._progress.cached, len(self._generated)),
                exactness=served.recipe.name,
                logprobs=tuple(self._logprobs) if self._spec.sampling.logprobs is not None else None,
                recoveries=self._progress.recoveries,
            )
        )
        return sup.Stop(sup.Normal())

    def _fail(self, error: PaddockError) -> sup.Stop:
        self._spec.delivery.fail(error)
        return sup.Stop(FAILED)

    def _cancel(self, origin: str) -> sup.Stop:
        self._spec.delivery.fail(RequestCancelled(origin))
        return sup.Stop(CANCELLED)


async def _alarm(owner: sup.Pid[Any], seconds: float) -> None:
    await trio.sleep(seconds)
    sup.cast(owner, DeadlinePassed())
