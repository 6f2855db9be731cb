"""A conversation as it is kept: turns, and the tokens and the text that follow from them. Plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from paddock.sessions.turns import SessionKey, Turn
from paddock.text.messages import JsonValue, Message

__all__ = ["Conversation", "RecordedTurn", "SessionFacts"]


@attrs.frozen
class SessionFacts:
    """What a session is fixed to when it is made."""

    key: SessionKey
    fingerprint: str
    """Of the model's file: tokens of one model mean nothing to another."""
    model: str
    """The name that the model was served under, for people."""
    system: str | None = attrs.field(default=None, repr=False)
    tools: tuple[JsonValue, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(repr=False)
class RecordedTurn:
    """A turn with what it added to the conversation.

    After it the tokens are the first ``kept_tokens`` of those before it, ``new_tokens`` (prompt), and the reply's; the
    rendered prompt is the first ``kept_text`` characters of the one before it and its reply, and ``new_text``.
    """

    turn: Turn
    kept_tokens: int
    new_tokens: tuple[int, ...]
    kept_text: int
    new_text: str

    def __repr__(self) -> str:
        return f"<RecordedTurn {self.turn.number}: {self.kept_tokens} tokens and {len(self.new_tokens)} more>"


@attrs.frozen(repr=False)
class Conversation:
    """The state after some turns. ``flags`` has one byte for each token: 1 for a generated one."""

    facts: SessionFacts
    turns: tuple[RecordedTurn, ...] = ()
    tokens: tuple[int, ...] = ()
    flags: bytes = b""
    prompt_tokens: int = 0
    """How many of the tokens stand before the last reply."""
    rendered: str = ""
    """The last turn's rendered prompt."""

    @classmethod
    def of(cls, facts: SessionFacts, turns: Sequence[RecordedTurn]) -> Conversation:
        """Puts the turns together. Raises ValueError where they do not fit one another."""
        return cls(facts)._after(turns)

    def after(self, recorded: RecordedTurn) -> Conversation:
        """The state after one more turn. Raises ValueError for one that does not follow."""
        return self._after([recorded])

    def _after(self, turns: Sequence[RecordedTurn]) -> Conversation:
        tokens, flags = list(self.tokens), bytearray(self.flags)
        count, prompt_tokens, rendered, text = len(self.turns), self.prompt_tokens, self.rendered, self.text
        for recorded in turns:
            turn, kept = recorded.turn, recorded.kept_tokens
            if turn.number != count + 1:
                raise ValueError(f"turn {turn.number} does not follow turn {count}")
            if not 0 <= kept <= len(tokens) or not 0 <= recorded.kept_text <= len(text):
                raise ValueError(f"turn {turn.number} keeps more than there was before it")
            count += 1
            prompt_tokens = kept + len(recorded.new_tokens)
            tokens[kept:] = recorded.new_tokens + turn.token_ids
            flags[kept:] = bytes(len(recorded.new_tokens)) + b"\1" * len(turn.token_ids)
            rendered = text[: recorded.kept_text] + recorded.new_text
            text = rendered + turn.text
        return Conversation(
            facts=self.facts,
            turns=(*self.turns, *turns),
            tokens=tuple(tokens),
            flags=bytes(flags),
            prompt_tokens=prompt_tokens,
            rendered=rendered,
        )

    def states(self) -> Iterator[Conversation]:
        """The states whose tokens are not the beginning of a later one's, the last one among them."""
        for number, recorded in enumerate(self.turns[1:], 1):
            if recorded.turn.continuation.dropped_tokens:
                yield Conversation.of(self.facts, self.turns[:number])
        yield self

    @property
    def reply(self) -> str:
        """The last reply's text; empty before the first turn."""
        return self.turns[-1].turn.text if self.turns else ""

    @property
    def text(self) -> str:
        """The last rendered prompt and the reply to it."""
        return self.rendered + self.reply

    @property
    def reply_tokens(self) -> tuple[int, ...]:
        """The last reply's tokens."""
        return self.tokens[self.prompt_tokens :]

    def messages(self, new: Sequence[Message]) -> list[Message]:
        """All messages, with new ones at the end, for the chat template."""
        messages: list[Message] = []
        if self.facts.system is not None:
            messages.append({"role": "system", "content": self.facts.system})
        for recorded in self.turns:
            messages += [dict(message) for message in recorded.turn.messages]
            messages.append({"role": "assistant", "content": recorded.turn.text})
        return [*messages, *new]

    def __repr__(self) -> str:
        return f"<Conversation of {len(self.turns)} turns, {len(self.tokens)} tokens>"
