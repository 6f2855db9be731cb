"""The sampler of one sequence.

Its state is (parameters, seed, token history, number of tokens generated) and nothing else, so that a
sequence can be taken up anywhere: draw t comes from a generator seeded for that draw alone (``step_seed``),
and penalties and DRY are rebuilt from the history. Only mirostat and adaptive-p remember more, what
probabilities they met; those one or two numbers are kept in :attr:`SequenceSampler.state`.

The samplers are llama.cpp's own, applied to the row's candidates in the configured order. Differences:

* penalties are computed here (see ``penalties.py``), with the same arithmetic;
* XTC and the last draw are made anew for each step, with the step's seeds;
* before typical_p, candidates of a probability below e**-80 are dropped: llama.cpp takes the logarithm of their
  probability 0 and then keeps an arbitrary choice;
* with mirostat on, penalties and DRY act too (llama.cpp ignores them in silence);
* temperature 0 takes the highest logit left, without a draw.

The history is the prompt and what was generated, as in llama.cpp's server. A grammar stands before all samplers: what
it forbids is taken out of the row (see ``grammar.py``).
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from paddock.errors import InvalidParameter
from paddock.native.candidates import Candidates
from paddock.native.grammar import GrammarLibrary, GrammarMatcher, Mask, MatchFailed
from paddock.native.penalties import Penalties
from paddock.sampling import STREAM_DRAW, STREAM_XTC, SamplingParameters, step_seed
from paddock.sampling.logprobs import log_probabilities

__all__ = ["Draw", "SamplerLibrary", "SequenceSampler"]

_DISTINCT_DRY = 16  # breaker tables kept for reuse
_NEGLIGIBLE = np.float32(80.0)
_MIROSTAT = struct.Struct("<f")
_ADAPTIVE = struct.Struct("<ff")

Stage = Callable[[int], None]
Row = npt.NDArray[np.float32]


@attrs.define(slots=True)
class Draw:
    """The outcome for one row; ``error`` says why there is no token (then ``token`` is -1)."""

    token: int
    logprob: float | None = None
    top: list[tuple[int, float]] = attrs.Factory(list)
    error: str | None = None


class _Vocabulary(Protocol):
    n_vocab: int
    vocabulary: Any
    suppressed_tokens: tuple[int, ...]
    grammars: GrammarLibrary

    @property
    def eog_ids(self) -> npt.NDArray[np.int64]: ...


class SamplerLibrary:
    """What the samplers of one context share: the candidate buffer and DRY's tables. One thread."""

    def __init__(self, lib: Any, model: _Vocabulary, n_ctx: int) -> None:
        self.lib = lib
        self.n_vocab = model.n_vocab
        self.n_ctx = n_ctx
        self.eog_ids = model.eog_ids
        self.suppressed = np.array(model.suppressed_tokens, np.int64)
        self.candidates = Candidates(lib, model.n_vocab)
        self.scratch = np.empty(model.n_vocab, np.float32)
        self.grammars = model.grammars
        self._vocabulary = model.vocabulary
        self._dry: dict[tuple[object, ...], Any] = {}

    def window(self, last_n: int) -> int:
        """How many tokens a sampler looks back: -1 is the whole context."""
        return self.n_ctx if last_n < 0 else min(last_n, self.n_ctx)

    def dry(self, parameters: SamplingParameters) -> Any:
        """A DRY sampler with an empty history. Its table of breakers takes a walk over the whole
        vocabulary, so one is kept for each set of parameters and copied.
        """
        key = (
            parameters.dry_multiplier,
            parameters.dry_base,
            parameters.dry_allowed_length,
            self.window(parameters.dry_last_n),
            parameters.dry_sequence_breakers,
        )
        if key not in self._dry:
            if len(self._dry) >= _DISTINCT_DRY:
                self.lib.llama_sampler_free(self._dry.pop(next(iter(self._dry))))
            breakers = [text.encode() for text in parameters.dry_sequence_breakers]
            array = (ctypes.c_char_p * max(len(breakers), 1))(*breakers)
            self._dry[key] = self.lib.llama_sampler_init_dry(self._vocabulary, *key[:4], array, len(breakers))
        return self.lib.llama_sampler_clone(self._dry[key])

    def free(self) -> None:
        for sampler in self._dry.values():
            self.lib.llama_sampler_free(sampler)
        self._dry.clear()


class SequenceSampler:
    """Draws the tokens of one sequence. One thread; ``free`` when done.

    ``history``: prompt and generated tokens so far; ``generated``: how many of them were drawn; ``state``:
    the :attr:`state` of the sampler that drew them, needed for mirostat and adaptive-p. Raises
    :class:`paddock.errors.InvalidParameter`.
    """

    def __init__(
        self,
        shared: SamplerLibrary,
        parameters: SamplingParameters,
        *,
        choice: int = 0,
        history: Sequence[int] = (),
        generated: int = 0,
        state: bytes = b"",
    ) -> None:
        if parameters.seed is None:
            raise InvalidParameter("seed", None, "a concrete seed; resolve an absent one at admission")
        self.parameters = parameters
        self.generated = generated
        self._shared = shared
        self._lib = shared.lib
        self._seed = parameters.seed
        self._choice = choice
        self._penalties: Penalties | None = None
        self._dry: Any = None
        self._owned: list[Any] = []
        self._memory = self._restore(state)
        bias = dict(parameters.logit_bias)
        self._bias_ids = np.fromiter(bias.keys(), np.int64, len(bias))
        self._bias_values = np.fromiter(bias.values(), np.float32, len(bias))
        never = [shared.suppressed, shared.eog_ids if parameters.ignore_eos else shared.eog_ids[:0]]
        self._never = np.unique(np.concatenate(never))
        stops = np.array(parameters.stop_token_ids, np.int64)
        self._not_yet = np.unique(np.concatenate([shared.eog_ids, stops]))
        self._takes_highest = parameters.temperature == 0.0 and not parameters.mirostat
        self._grammar: GrammarMatcher | None = None
        self._stages = self._build_stages()
        self._replay(history)
        self._begin_grammar(history)

    # --- building -----------------------------------------------------------------------------------------

    def _restore(self, state: bytes) -> tuple[np.float32, ...]:
        """mirostat: mu, at first 2 tau. adaptive-p: the two weighted sums that llama.cpp begins with."""
        parameters = self.parameters
        layout: struct.Struct | None = None
        fresh: tuple[np.float32, ...] = ()
        one = np.float32(1.0)
        if parameters.mirostat:
            layout, fresh = _MIROSTAT, (np.float32(2.0) * np.float32(parameters.mirostat_tau),)
        elif parameters.adaptive_target >= 0.0:
            forgotten = one - np.float32(parameters.adaptive_decay)
            layout, fresh = _ADAPTIVE, (np.float32(parameters.adaptive_target) / forgotten, one / forgotten)
        if layout is None:
            if state:
                raise InvalidParameter("sampler_state", state, "empty for these samplers")
            return ()
        if not state and self.generated == 0:
            return fresh
        if len(state) != layout.size or not all(map(math.isfinite, layout.unpack(state))):
            raise InvalidParameter("sampler_state", state, f"the {layout.size} bytes reported with the last token")
        return tuple(np.float32(value) for value in layout.unpack(state))

    @property
    def state(self) -> bytes:
        """What the history does not tell; empty but for mirostat and adaptive-p."""
        if not self._memory:
            return b""
        return (_MIROSTAT if self.parameters.mirostat else _ADAPTIVE).pack(*self._memory)

    def _build_stages(self) -> list[Stage]:
        p, lib = self.parameters, self._lib
        names = list(p.sampler_order)
        if p.mirostat:
            names = [name for name in names if name in ("penalties", "dry", "temperature")]
        elif self._takes_highest:
            # top_k, top_p, min_p and top_n_sigma never remove the highest logit; what they leave matters to
            # typical_p and xtc alone
            if p.typical_p == 1.0 and p.xtc_probability == 0.0:
                names = [name for name in names if name in ("penalties", "dry")]
            names = [name for name in names if name != "temperature"]
        makers: dict[str, Callable[[], Any]] = {
            "dry": self._make_dry,
            "top_n_sigma": lambda: lib.llama_sampler_init_top_n_sigma(p.top_n_sigma),
            "top_k": lambda: lib.llama_sampler_init_top_k(p.top_k),
            "typical_p": lambda: lib.llama_sampler_init_typical(p.typical_p, p.min_keep),
            "top_p": lambda: lib.llama_sampler_init_top_p(p.top_p, p.min_keep),
            "min_p": lambda: lib.llama_sampler_init_min_p(p.min_p, p.min_keep),
            "temperature": lambda: lib.llama_sampler_init_temp(p.temperature),
        }
        off = {
            "penalties": not p.penalizes,
            "dry": p.dry_multiplier == 0.0 or self._shared.window(p.dry_last_n) == 0,
            "top_n_sigma": p.top_n_sigma <= 0.0,
            "top_k": p.top_k == 0,
            "typical_p": p.typical_p >= 1.0,
            "top_p": p.top_p >= 1.0,
            "min_p": p.min_p <= 0.0,
            "xtc": p.xtc_probability <= 0.0 or p.xtc_threshold > 0.5,
            "temperature": p.temperature == 1.0,
        }
        stages: list[Stage] = []
        chain: Any = None  # neighbours that need nothing from the step share one call
        for name in names:
            if off[name]:
                continue
            if name in ("penalties", "xtc", "typical_p"):
                chain = None
            if name == "penalties":
                self._penalties = Penalties(p, self._shared.window(p.repeat_last_n), self._shared.n_vocab)
                stages.append(self._penalize)
                continue
            if name == "xtc":
                stages.append(self._xtc)
                continue
            if name == "typical_p":
                stages.append(self._drop_negligible)
            if chain is None:
                chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
                self._owned.append(chain)
                stages.append(self._applier(chain))
            lib.llama_sampler_chain_add(chain, makers[name]())
        return stages

    def _make_dry(self) -> Any:
        self._dry = self._shared.dry(self.parameters)  # owned by the chain that it is added to
        return self._dry

    def _applier(self, sampler: Any) -> Stage:
        apply, pointer = self._lib.llama_sampler_apply, self._shared.candidates.pointer

        def stage(_: int) -> None:
            apply(sampler, pointer)

        return stage

    def _replay(self, history: Sequence[int]) -> None:
        if self._penalties is not None:
            window = self._shared.window(self.parameters.repeat_last_n)
            self._penalties.replay(islice(history, max(len(history) - window, 0), None))
        if self._dry is not None:
            accept, sampler = self._lib.llama_sampler_accept, self._dry
            window = self._shared.window(self.parameters.dry_last_n)
            for token in islice(history, max(len(history) - window, 0), None):
                accept(sampler, token)

    def _begin_grammar(self, history: Sequence[int]) -> None:
        grammar = self.parameters.constraint
        if grammar is None:
            return
        if len(history) < self.generated:
            self.free()
            raise InvalidParameter("history", len(history), f"all {self.generated} generated tokens, for the grammar")
        drawn = [int(token) for token in islice(history, len(history) - self.generated, None)]
        self._grammar = GrammarMatcher(
            self._shared.grammars, grammar, self._shared.n_vocab, [token for token in drawn if not self._ends(token)]
        )

    def _ends(self, token: int) -> bool:
        """Whether ``token`` ends a generation: a grammar is not asked about what comes after."""
        return bool((self._shared.eog_ids == token).any())

    # --- drawing ------------------------------------------------------------------------------------------

    def sample(self, row: Row) -> Draw:
        """Draws the next token from ``row``: float32, shape (n_vocab,), raw logits, not changed.

        A row that holds NaN or +inf, or leaves no token, gives a :class:`Draw` with an error and changes
        nothing; so does a grammar that cannot go on. With a grammar it waits for the grammar's mask.
        """
        p = self.parameters
        highest = float(row.max())  # NaN if there is one
        if not math.isfinite(highest):
            return Draw(-1, error="the logits hold NaN or infinity, or ban every token")
        allowed: Mask | None = None
        if self._grammar is not None:
            try:
                allowed = self._grammar.allowed()
            except MatchFailed as failure:
                return Draw(-1, error=str(failure))
        suppressed = self._not_yet if self.generated < p.min_tokens else self._never[:0]
        biased = len(self._bias_ids) or len(self._never) or len(suppressed) or allowed is not None
        logits = row
        if biased:
            logits = self._shared.scratch
            logits[:] = row
            logits[self._bias_ids] += self._bias_values
            logits[self._never] = -np.inf
            if allowed is None:
                logits[suppressed] = -np.inf
            else:
                logits[~allowed] = -np.inf
                _suppress_unless_alone(logits, suppressed)
        if self._takes_highest and not self._stages:
            token = int(logits.argmax())
            memory, left = self._memory, float(logits[token])
        else:
            token, left, memory = self._draw(logits)
        if token < 0 or not math.isfinite(left):
            return Draw(-1, error="biases, penalties and suppressed tokens leave no token to draw")
        draw = Draw(token)
        if p.logprobs is not None:
            draw.logprob, draw.top = log_probabilities(row, token, p.logprobs)
        self._memory = memory
        self.accept(token)
        return draw

    def accept(self, token: int) -> None:
        """Enters a generated token into the history."""
        self.generated += 1
        if self._penalties is not None:
            self._penalties.accept(token)
        if self._dry is not None:
            self._lib.llama_sampler_accept(self._dry, token)
        if self._grammar is not None and not self._ends(token):
            self._grammar.consume(token)

    def _draw(self, logits: Row) -> tuple[int, float, tuple[np.float32, ...]]:
        candidates, t = self._shared.candidates, self.generated
        candidates.fill(logits)
        if self._grammar is not None:
            left = logits > -np.inf
            if not left.any():
                return -1, -math.inf, self._memory
            candidates.keep(left)
        for stage in self._stages:
            stage(t)
        if self._takes_highest:
            at = int(candidates.logits.argmax())
            return int(candidates.ids[at]), float(candidates.logits[at]), self._memory
        if not math.isfinite(float(candidates.logits.max())):
            return -1, -math.inf, self._memory
        if self.parameters.mirostat:
            return self._draw_mirostat(t)
        if self.parameters.adaptive_target >= 0.0:
            return self._draw_adaptive(t)
        token, logit, _ = self._apply_once(self._lib.llama_sampler_init_dist(self._step_seed(t)))
        return token, logit, self._memory

    def _draw_mirostat(self, t: int) -> tuple[int, float, tuple[np.float32, ...]]:
        """A fresh sampler begins with mu = 2 tau and, with eta 0, keeps it; the update is made here."""
        (mu,) = self._memory
        half = float(mu / np.float32(2.0))
        sampler = self._lib.llama_sampler_init_mirostat_v2(self._step_seed(t), half, 0.0)
        token, logit, probability = self._apply_once(sampler)
        if token < 0 or not 0.0 < probability <= 1.0:
            return -1, logit, self._memory
        error = np.float32(-math.log2(probability)) - np.float32(self.parameters.mirostat_tau)
        return token, logit, (mu - np.float32(self.parameters.mirostat_eta) * error,)

    def _draw_adaptive(self, t: int) -> tuple[int, float, tuple[np.float32, ...]]:
        """llama.cpp's sampler aims at 2 target - mean: a fresh one with decay 0 aims at its target itself,
        so the adapted target is handed to it. With a negative target it only computes probabilities, which
        the update needs.
        """
        weighted, total = self._memory
        candidates, init = self._shared.candidates, self._lib.llama_sampler_init_adaptive_p
        self._apply_once(init(-1.0, 0.0, 0))
        before = candidates.probabilities.copy()
        target = np.float32(self.parameters.adaptive_target)
        aim = target if total == 0 else np.float32(2.0) * target - weighted / total
        token, logit, _ = self._apply_once(init(min(max(float(aim), 0.0), 1.0), 0.0, self._step_seed(t)))
        if token < 0:
            return -1, logit, self._memory
        decay = np.float32(self.parameters.adaptive_decay)
        met = np.float32(before[candidates.array.selected])
        return token, logit, (np.float32(met + decay * weighted), np.float32(1.0) + decay * total)

    def _apply_once(self, sampler: Any) -> tuple[int, float, float]:
        candidates = self._shared.candidates
        self._lib.llama_sampler_apply(sampler, candidates.pointer)
        self._lib.llama_sampler_free(sampler)
        return candidates.selected()

    def _step_seed(self, t: int, stream: int = STREAM_DRAW) -> int:
        return step_seed(self._seed, self._choice, t, stream)

    # --- stages -------------------------------------------------------------------------------------------

    def _penalize(self, _: int) -> None:
        assert self._penalties is not None
        candidates = self._shared.candidates
        self._penalties.apply(candidates.ids, candidates.logits)
        candidates.array.sorted = False

    def _xtc(self, t: int) -> None:
        p = self.parameters
        seed = self._step_seed(t, STREAM_XTC)
        self._apply_once(self._lib.llama_sampler_init_xtc(p.xtc_probability, p.xtc_threshold, p.min_keep, seed))

    def _drop_negligible(self, _: int) -> None:
        candidates = self._shared.candidates
        logits = candidates.logits
        kept = logits >= logits.max() - _NEGLIGIBLE
        if not kept.all():
            candidates.keep(kept)

    def free(self) -> None:
        """Frees the native samplers. Idempotent."""
        for sampler in self._owned:
            self._lib.llama_sampler_free(sampler)
        self._owned.clear()
        self._dry = None
        if self._grammar is not None:
            self._grammar.free()


def _suppress_unless_alone(logits: Row, tokens: npt.NDArray[np.int64]) -> None:
    """Bans ``tokens`` where the grammar leaves others: at its end there are none."""
    before = logits[tokens]
    logits[tokens] = -np.inf
    if len(tokens) and not np.isfinite(logits.max()):
        logits[tokens] = before
