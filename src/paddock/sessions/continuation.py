"""How the tokens of a conversation go on with a new turn: the stored tokens stay, and only what is new is tokenized.

Tokens are append-only because the cells that were computed for them, and the bits that follow from those, belong to
these tokens and no others: tokenizing the text of a reply need not give the tokens that were sampled. So the new turn
is rendered, and where it begins with the text that the conversation had, what follows is tokenized by itself.

    rendered before + reply | <|im_end|> ...user... <|im_start|>assistant
    stored tokens           | tokens of the rest, where those that were generated are not doubled

Functions here are pure but for :func:`plan_turn`, which asks the model for tokens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs

from paddock.sessions.conversation import Conversation
from paddock.sessions.turns import Continuation
from paddock.text.detokenizer import IncrementalDetokenizer
from paddock.text.pieces import PieceTable
from paddock.text.utf8 import IncrementalDecoder

__all__ = ["PlannedTurn", "Tokenizer", "kept_reply", "plan_turn", "spells"]

Tokenizer = Callable[[str, bool], Awaitable[list[int]]]
"""``await tokenize(text, beginning)``: special tokens in the text are read as such; ``beginning`` says that the text is
a whole prompt, which gets the tokens that every prompt begins with."""

_ANCHORS: Final = ("\n", "a", ".", "0")
"""Texts to put before one that must not be taken for the beginning of a prompt; see :func:`_tokens_in_mid_text`."""

_SPACES: Final = bytes.maketrans(b"\t\n\r\v\f", b"     ")


@attrs.frozen(repr=False)
class PlannedTurn:
    """The prompt of a new turn: ``tokens`` and ``flags`` as a request takes them, and how to record it."""

    tokens: tuple[int, ...]
    flags: bytes
    new_tokens: tuple[int, ...]
    kept_text: int
    new_text: str
    continuation: Continuation

    @property
    def kept_tokens(self) -> int:
        """Tokens of the conversation that the prompt begins with."""
        return self.continuation.kept_tokens

    def __repr__(self) -> str:
        return f"<PlannedTurn of {len(self.tokens)} tokens, {self.continuation.kind}>"


async def plan_turn(conversation: Conversation, rendering: str, table: PieceTable, tokenize: Tokenizer) -> PlannedTurn:
    """The tokens of ``rendering``, the whole conversation with the new messages at its end. Raises what ``tokenize``
    raises."""
    if not conversation.turns:
        tokens = await tokenize(rendering, True)
        return _planned(conversation, rendering, 0, tokens, Continuation("first", 0, 0))
    before = conversation.text
    if rendering.startswith(before):
        extended = await _extended(conversation, rendering[len(before) :], table, tokenize)
        if extended is not None:
            kept, new = extended
            dropped = len(conversation.tokens) - kept
            return _planned(conversation, rendering, len(before), new, Continuation("extends", kept, dropped))
        reason = "the tokenizer does not give the tokens of the new text by itself"
        shared = len(before)
    else:
        shared = _common(before, rendering)
        reason = f"the chat template renders the conversation differently from character {shared} on"
    tokens = await tokenize(rendering, True)
    kept = _common(conversation.tokens, tuple(tokens))
    continuation = Continuation("rewritten", kept, len(conversation.tokens) - kept, reason)
    return _planned(conversation, rendering, shared, tokens[kept:], continuation)


def _planned(
    conversation: Conversation, rendering: str, kept_text: int, new: Sequence[int], continuation: Continuation
) -> PlannedTurn:
    kept = continuation.kept_tokens
    return PlannedTurn(
        tokens=conversation.tokens[:kept] + tuple(new),
        flags=conversation.flags[:kept] + bytes(len(new)),
        new_tokens=tuple(new),
        kept_text=kept_text,
        new_text=rendering[kept_text:],
        continuation=continuation,
    )


async def _extended(
    conversation: Conversation, rest: str, table: PieceTable, tokenize: Tokenizer
) -> tuple[int, list[int]] | None:
    """How many tokens stay, and those of ``rest``, which follows the last reply; None where that cannot be told."""
    reply = conversation.reply_tokens
    prompt = conversation.tokens[: conversation.prompt_tokens]
    kept, missing = kept_reply(table, prompt, reply, conversation.reply)
    rest = missing + rest
    if not rest:
        return len(prompt) + kept, []
    tokens = await tokenize(rest, False)
    last = reply[kept - 1] if kept else prompt[-1]
    if last not in table.control and _begins_with_more_space(table, tokens, rest):
        in_mid_text = await _tokens_in_mid_text(rest, table, tokenize)
        if in_mid_text is None:
            return None
        tokens = in_mid_text
    if not spells(table, tokens, rest):
        return None
    # The ending token, which the template writes too, was generated; so were others that come out as they were.
    absorbed = _common(reply[kept:], tuple(tokens))
    return len(prompt) + kept + absorbed, tokens[absorbed:]


async def _tokens_in_mid_text(rest: str, table: PieceTable, tokenize: Tokenizer) -> list[int] | None:
    """The tokens of a text that follows other text.

    SentencePiece puts a space before whatever text begins a prompt or follows a special token. Text that goes on has
    none, so something else has to stand before it; what that is must not change the tokens of what follows.
    """
    for anchor in _ANCHORS:
        front, tokens = await tokenize(anchor, False), await tokenize(anchor + rest, False)
        behind = tokens[len(front) :]
        if tokens[: len(front)] == front and not _begins_with_more_space(table, behind, rest):
            return behind
    return None


def _begins_with_more_space(table: PieceTable, tokens: Sequence[int], text: str) -> bool:
    spelt = _bytes(table, tokens)
    return len(spelt) - len(spelt.lstrip(b" ")) > len(text) - len(text.lstrip(" "))


def kept_reply(table: PieceTable, prompt: Sequence[int], reply: Sequence[int], text: str) -> tuple[int, str]:
    """How many of a reply's tokens its text is made of, and the rest of the text, which they do not give.

    The rest is empty unless a stop string cut a token in two, or the reply ended within a character, of which the text
    has the replacement character. Tokens without text at the end, such as the one that ended the reply, do not count.
    """
    detokenizer, decoder = IncrementalDetokenizer(table, prompt=prompt), IncrementalDecoder()
    kept = at = position = 0
    for number, token in enumerate(reply, 1):
        piece = decoder.feed(detokenizer.feed(token))
        if not text.startswith(piece, position):
            break
        position += len(piece)
        if position > at and not decoder.pending and not detokenizer.held:
            kept, at = number, position
    else:
        # Spaces that are held back come out where nothing follows.
        held = detokenizer.finish().decode("utf-8", "replace")
        if held and not decoder.pending and text[position:] == held:
            kept, at = len(reply), len(text)
    return kept, text[at:]


def spells(table: PieceTable, tokens: Sequence[int], text: str) -> bool:
    """Whether the tokens stand for the text, but for white space, which special tokens may take off their sides."""
    return _squeezed(_bytes(table, tokens)) == _squeezed(text.encode())


def _bytes(table: PieceTable, tokens: Sequence[int]) -> bytes:
    return b"".join(table.piece(token) for token in tokens)


def _squeezed(text: bytes) -> bytes:
    return text.translate(_SPACES).replace(b" ", b"")


def _common(some: Sequence[int] | str, others: Sequence[int] | str) -> int:
    """How many tokens, or characters, two sequences of one type begin with together.

    It compares slices, as a conversation may be long and this runs between other tasks.
    """
    low, high = 0, min(len(some), len(others))
    while low < high:
        middle = (low + high + 1) // 2
        if some[low:middle] == others[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
