"""A conversation with fixed tokens, run on a context in a given way: what the probe compares.

The reply's tokens are fixed too, so that two runs compute the same positions even after their logits have parted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np

from paddock.native.batch import Chunk, SampleMode
from paddock.native.context import Context
from paddock.native.exactness.saved_sequence import restore_sequence, save_sequence
from paddock.sampling import SamplingParameters

__all__ = ["Conversation", "Rules", "Runner", "largest_difference", "random_sizes"]

_GENERATION = 1
_SAMPLING = SamplingParameters(temperature=0, seed=0)  # nothing is sampled, but a sequence needs a sampler
_NEIGHBOUR_ROWS = 20


@attrs.frozen(kw_only=True)
class Rules:
    """The schedule under which a context is used, as far as the probe has to keep to it.

    ``tokens_alone``: the recipe claims that logits depend on the tokens alone, not on which of them were prompt.
    """

    separate_prefill: bool
    minimum_chunk: int
    decode_row_cap: int | None
    tokens_alone: bool


@attrs.frozen
class Conversation:
    prompt: tuple[int, ...]
    reply: tuple[int, ...]

    @classmethod
    def drawn(cls, seed: int, n_vocab: int, n_prompt: int, n_reply: int) -> Conversation:
        draw = random.Random(seed)
        tokens = [draw.randrange(n_vocab) for _ in range(n_prompt + n_reply)]
        return cls(tuple(tokens[:n_prompt]), tuple(tokens[n_prompt:]))

    def __len__(self) -> int:
        return len(self.prompt) + len(self.reply)


def random_sizes(draw: random.Random, total: int, least: int, most: int) -> list[int]:
    """``total`` rows cut into chunks of ``least`` to about ``most``; a total below ``least`` is one chunk."""
    sizes: list[int] = []
    while total:
        size = min(total, draw.randint(least, max(least, most)))
        if 0 < total - size < least:
            size = total - least if total >= 2 * least else total
        sizes.append(size)
        total -= size
    return sizes


class Runner:
    """Runs conversations on ``context``, which serves nobody else meanwhile.

    ``before_call`` is called before each decode call and may raise. A run gives one logits row for the prompt and one
    for each token of the reply, as bytes, and leaves the context without open sequences.
    """

    def __init__(self, context: Context, n_vocab: int, rules: Rules, before_call: Callable[[], None]) -> None:
        self.context = context
        self.n_vocab = n_vocab
        self.rules = rules
        self._before_call = before_call
        sizes = context.sizes()
        self.n_seq_max = sizes.n_seq_max
        self.n_batch = sizes.n_batch
        self.cells = sizes.n_ctx_seq

    # --- steps --------------------------------------------------------------------------------------------

    def open(self, name: int) -> None:
        self.context.open_sequence(name, _GENERATION, _SAMPLING)

    def close(self) -> None:
        for name in range(self.n_seq_max):
            self.context.release_sequence(name, _GENERATION)

    def prefill(self, name: int, tokens: Sequence[int], *, sample: bool) -> bytes:
        """One prompt chunk in a call of its own; its last logits row if ``sample``."""
        return self._call({name: tokens}, {name} if sample else set()).get(name, b"")

    def decode(self, tokens: Mapping[int, int]) -> dict[int, bytes]:
        """One generated token for each of these sequences, in one call."""
        return self._call({name: [token] for name, token in tokens.items()}, set(tokens))

    def mixed(self, tokens: Mapping[int, Sequence[int]], sampled: set[int]) -> dict[int, bytes]:
        """Rows of any kind in one call, as only a free schedule has them."""
        return self._call(tokens, sampled)

    def _call(self, tokens: Mapping[int, Sequence[int]], sampled: set[int]) -> dict[int, bytes]:
        self._before_call()
        context = self.context
        mode = {True: SampleMode.LOGITS, False: SampleMode.NONE}
        chunks = [
            Chunk(name, _GENERATION, context.position(name), list(row), mode[name in sampled])
            for name, row in tokens.items()
        ]
        return {row.sequence_id: row.logits or b"" for row in context.decode_and_sample_batch(chunks)}

    # --- whole runs ---------------------------------------------------------------------------------------

    def whole_sizes(self, n_prompt: int) -> list[int]:
        """The prompt in chunks as long as a call can be, the last one no shorter than the rules have it."""
        sizes: list[int] = []
        while n_prompt > self.n_batch:
            sizes.append(min(self.n_batch, n_prompt - self.rules.minimum_chunk))
            n_prompt -= sizes[-1]
        return [*sizes, n_prompt]

    def alone(self, talk: Conversation, *, name: int = 0, sizes: Sequence[int] | None = None) -> list[bytes]:
        """The prompt in chunks of ``sizes``, then the reply token by token, with no other sequence open."""
        self.open(name)
        rows = [self._prompt(name, talk.prompt, sizes or self.whole_sizes(len(talk.prompt)))]
        rows += [self.decode({name: token})[name] for token in talk.reply]
        self.close()
        return rows

    def _prompt(self, name: int, prompt: Sequence[int], sizes: Sequence[int]) -> bytes:
        at, row = 0, b""
        for size in sizes:
            row = self.prefill(name, prompt[at : at + size], sample=at + size == len(prompt))
            at += size
        return row

    def moved(self, talk: Conversation, *, name: int) -> list[bytes]:
        """In the middle of the reply its state is saved, its cells are cleared, and it goes on in sequence ``name``."""
        self.open(0)
        rows = [self._prompt(0, talk.prompt, self.whole_sizes(len(talk.prompt)))]
        middle = len(talk.reply) // 2
        rows += [self.decode({0: token})[0] for token in talk.reply[:middle]]
        saved = save_sequence(self.context, 0)
        self.close()
        self.open(name)
        restore_sequence(self.context, name, saved)
        rows += [self.decode({name: token})[name] for token in talk.reply[middle:]]
        self.close()
        return rows

    def as_prompt(self, talk: Conversation) -> list[bytes]:
        """The row of the reply's last token, all of the reply computed as prompt."""
        self.open(0)
        tokens = (*talk.prompt, *talk.reply)
        row = self._prompt(0, tokens, self.whole_sizes(len(tokens)))
        self.close()
        return [row]

    def beside_others(self, talk: Conversation, *, name: int, seed: int, most: int) -> list[bytes]:
        """Other sequences join, compute prompts and replies, and leave: before, between and in its calls."""
        draw = random.Random(seed)
        others = _Neighbours(self, name, draw)
        others.before()
        self.open(name)
        at, row = 0, b""
        for size in random_sizes(draw, len(talk.prompt), self.rules.minimum_chunk, most):
            others.between()
            chunk = talk.prompt[at : at + size]
            at += size
            company = {} if self.rules.separate_prefill else others.rows(self.n_batch - size, prompts=True)
            row = self.mixed({name: chunk, **company}, {name}).get(name, b"")
        rows = [row]
        for token in talk.reply:
            others.between()
            cap = self.rules.decode_row_cap or self.n_seq_max
            company = others.rows(cap - 1, prompts=not self.rules.separate_prefill)
            rows.append(self.mixed({name: [token], **company}, {name, *company})[name])
        self.close()
        return rows


class _Neighbours:
    """The other sequences of a run; what they compute is thrown away."""

    def __init__(self, runner: Runner, name: int, draw: random.Random) -> None:
        self._runner = runner
        self._draw = draw
        self._idle = [other for other in range(runner.n_seq_max) if other != name]
        self._open: list[int] = []
        self._n_vocab = runner.n_vocab

    def before(self) -> None:
        """Some are there already; their ids have gaps."""
        self._draw.shuffle(self._idle)
        for _ in range((len(self._idle) + 1) // 2):
            self._join()

    def between(self) -> None:
        """One may join or leave."""
        event = self._draw.random()
        if event < 0.3 and self._idle:
            self._join()
        elif event < 0.5 and self._open:
            other = self._open.pop(self._draw.randrange(len(self._open)))
            self._runner.context.release_sequence(other, _GENERATION)
            self._idle.append(other)

    def _join(self) -> None:
        other = self._idle.pop()
        self._runner.open(other)
        least = self._runner.rules.minimum_chunk
        self._runner.prefill(other, self._tokens(self._draw.randint(least, least + _NEIGHBOUR_ROWS)), sample=True)
        self._open.append(other)

    def rows(self, room: int, *, prompts: bool) -> dict[int, list[int]]:
        """Rows for some of the open ones: single ones, or with ``prompts`` any number, ``room`` in all."""
        count = self._draw.randint(0, len(self._open))
        rows: dict[int, list[int]] = {}
        for other in sorted(self._draw.sample(self._open, count)):
            wanted = self._draw.choice([1, 1, 1, 5, 70]) if prompts else 1
            left = self._runner.cells - self._runner.context.position(other)
            size = min(wanted, room, left)
            if size > 0:
                rows[other] = self._tokens(size)
                room -= size
        return rows

    def _tokens(self, count: int) -> list[int]:
        return [self._draw.randrange(self._n_vocab) for _ in range(count)]


def largest_difference(left: bytes, right: bytes) -> float:
    """Of two logits rows; NaN where one of them holds it."""
    return float(np.abs(np.frombuffer(left, np.float32) - np.frombuffer(right, np.float32)).max())
