"""A conversation with fixed tokens, run on a context in a given way: what the probe compares.

The reply's tokens are fixed too, so that two runs compute the same positions even after their logits have parted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from paddock.errors import SequenceStateError
from paddock.native.batch import Chunk, SampleMode
from paddock.native.context import Context
from paddock.native.state.access import new_bytes
from paddock.native.state.blocks import cut
from paddock.native.state.layout import Bytes, parse_state
from paddock.sampling import SamplingParameters

__all__ = ["Computed", "Conversation", "Rules", "Runner", "random_sizes"]

_GENERATION = 1
_SAMPLING = SamplingParameters(temperature=0, seed=0)  # nothing is sampled, but a sequence needs a sampler
_NEIGHBOURS = 15
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


@attrs.frozen(eq=False)
class Computed:
    """``rows``: logits for the prompt's last token and for each of the reply. ``cells``: what the KV cache held at the
    end, without anything that tells of the sequence's id; None where its layout is not known."""

    rows: list[bytes]
    cells: Bytes | None


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

    ``before_call`` is called before each decode call and may raise. A run leaves the context without open sequences.
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
        self.row_seconds = 0.0
        """What a row of the last prompt took."""

    # --- steps --------------------------------------------------------------------------------------------

    def open(self, name: int) -> None:
        self.context.open_sequence(name, _GENERATION, _SAMPLING)

    def close(self) -> None:
        for name in range(self.n_seq_max):
            self.context.release_sequence(name, _GENERATION)

    def call(self, tokens: Mapping[int, Sequence[int]], sampled: set[int]) -> dict[int, bytes]:
        """One decode call; the last logits rows of the sequences ``sampled``."""
        self._before_call()
        context = self.context
        mode = {True: SampleMode.LOGITS, False: SampleMode.NONE}
        chunks = [
            Chunk(name, _GENERATION, context.position(name), list(row), mode[name in sampled])
            for name, row in tokens.items()
        ]
        return {row.sequence_id: row.logits or b"" for row in context.decode_and_sample_batch(chunks)}

    def _prompt(self, name: int, prompt: Sequence[int], sizes: Sequence[int]) -> bytes:
        """A prompt, each chunk in a call of its own; the row of its last token."""
        at, row, began = 0, b"", time.monotonic()
        for size in sizes:
            last = at + size == len(prompt)
            row = self.call({name: prompt[at : at + size]}, {name} if last else set()).get(name, b"")
            at += size
        self.row_seconds = (time.monotonic() - began) / len(prompt)
        return row

    def _reply(self, name: int, reply: Sequence[int]) -> list[bytes]:
        return [self.call({name: [token]}, {name})[name] for token in reply]

    def _end(self, name: int, rows: list[bytes]) -> Computed:
        cells: Bytes | None = None
        try:
            state = self.context.save_state(name, _GENERATION)
            saved = parse_state(state)
            cells = new_bytes(saved.layout.payload_bytes(saved.n_tokens))
            cut(saved.layout, name, saved.n_tokens, state, 0, saved.n_tokens, cells)
        except SequenceStateError:
            cells = None
        self.close()
        return Computed(rows, cells)

    # --- whole runs ---------------------------------------------------------------------------------------

    def whole_sizes(self, n_prompt: int) -> list[int]:
        """The prompt in chunks as long as a call can be, the last one no shorter than the rules have it."""
        sizes: list[int] = []
        while n_prompt > self.n_batch:
            sizes.append(min(self.n_batch, n_prompt - self.rules.minimum_chunk))
            n_prompt -= sizes[-1]
        return [*sizes, n_prompt]

    def alone(self, talk: Conversation, *, name: int = 0, sizes: Sequence[int] | None = None) -> Computed:
        """The prompt in chunks of ``sizes``, then the reply token by token, with no other sequence open."""
        self.open(name)
        row = self._prompt(name, talk.prompt, sizes or self.whole_sizes(len(talk.prompt)))
        return self._end(name, [row, *self._reply(name, talk.reply)])

    def moving(self, talk: Conversation, *, name: int) -> tuple[Computed, Computed]:
        """Alone; and once more from the middle of the reply on, in sequence ``name``, after its saved state was put
        there."""
        self.open(0)
        middle = len(talk.reply) // 2
        rows = [self._prompt(0, talk.prompt, self.whole_sizes(len(talk.prompt)))]
        rows += self._reply(0, talk.reply[:middle])
        state = self.context.save_state(0, _GENERATION)
        before = rows[:]
        stayed = self._end(0, rows + self._reply(0, talk.reply[middle:]))
        self.open(name)
        self.context.restore_state(name, _GENERATION, state, len(talk.prompt) + middle)
        return stayed, self._end(name, before + self._reply(name, talk.reply[middle:]))

    def as_prompt(self, talk: Conversation) -> Computed:
        """The row of the reply's last token, all of the reply computed as prompt."""
        self.open(0)
        tokens = (*talk.prompt, *talk.reply)
        return self._end(0, [self._prompt(0, tokens, self.whole_sizes(len(tokens)))])

    def beside_others(self, talk: Conversation, *, name: int, seed: int, most: int) -> Computed:
        """Other sequences join, compute prompts and replies, and leave: before, between and in its calls.

        The first token of the reply is computed beside as many as there may be, the second alone.
        """
        draw = random.Random(seed)
        others = _Neighbours(self, name, draw)
        self.open(name)
        at, row = 0, b""
        for size in random_sizes(draw, len(talk.prompt), self.rules.minimum_chunk, most):
            others.come_and_go()
            chunk = talk.prompt[at : at + size]
            at += size
            company = {} if self.rules.separate_prefill else others.some_rows(self.n_batch - size, prompts=True)
            row = self.call({name: chunk, **company}, {name}).get(name, b"")
        rows = [row]
        room = (self.rules.decode_row_cap or self.n_batch) - 1
        for index, token in enumerate(talk.reply):
            if index == 0:
                others.all_come()
                company = others.single_rows(room)
            elif index == 1:
                company = {}
            else:
                others.come_and_go()
                company = others.some_rows(room, prompts=not self.rules.separate_prefill)
            rows.append(self.call({name: [token], **company}, {name, *company})[name])
        return self._end(name, rows)


class _Neighbours:
    """The other sequences of a run, half of them there already; what they compute is thrown away."""

    def __init__(self, runner: Runner, name: int, draw: random.Random) -> None:
        self._runner = runner
        self._draw = draw
        nearest = sorted((other for other in range(runner.n_seq_max) if other != name), key=lambda id_: abs(id_ - name))
        self._idle = nearest[:_NEIGHBOURS]
        self._open: list[int] = []
        draw.shuffle(self._idle)
        for _ in range((len(self._idle) + 1) // 2):
            self._join()

    def come_and_go(self) -> None:
        """One may join or leave."""
        event = self._draw.random()
        if event < 0.3 and self._idle:
            self._join()
        elif event < 0.5 and self._open:
            other = self._open.pop(self._draw.randrange(len(self._open)))
            self._runner.context.release_sequence(other, _GENERATION)
            self._idle.append(other)

    def all_come(self) -> None:
        while self._idle:
            self._join()

    def _join(self) -> None:
        other = self._idle.pop()
        self._runner.open(other)
        least = self._runner.rules.minimum_chunk
        length = min(self._draw.randint(least, least + _NEIGHBOUR_ROWS), self._runner.n_batch, self._runner.cells // 2)
        self._runner.call({other: self._tokens(length)}, {other})
        self._open.append(other)

    def single_rows(self, room: int) -> dict[int, list[int]]:
        """One row for each, ``room`` in all."""
        free = [other for other in sorted(self._open) if self._left(other)]
        return {other: self._tokens(1) for other in free[:room]}

    def some_rows(self, room: int, *, prompts: bool) -> dict[int, list[int]]:
        """Rows for some of them: single ones, or with ``prompts`` any number, ``room`` in all."""
        rows: dict[int, list[int]] = {}
        for other in sorted(self._draw.sample(self._open, self._draw.randint(0, len(self._open)))):
            wanted = self._draw.choice([1, 1, 1, 5, 70]) if prompts else 1
            size = min(wanted, room, self._left(other))
            if size > 0:
                rows[other] = self._tokens(size)
                room -= size
        return rows

    def _left(self, other: int) -> int:
        return self._runner.cells - self._runner.context.position(other)

    def _tokens(self, count: int) -> list[int]:
        return [self._draw.randrange(self._runner.n_vocab) for _ in range(count)]
