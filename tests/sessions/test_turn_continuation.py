"""How tokens go on with a new turn, against what the real tokenizer makes of the whole text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from chat_vocabularies import build
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from paddock.engine.requests.results import Usage
from paddock.native.model import ModelLoadParameters, NativeModel
from paddock.sessions.continuation import PlannedTurn, kept_reply, plan_turn
from paddock.sessions.conversation import Conversation, RecordedTurn, SessionFacts
from paddock.sessions.turns import Continuation, SessionKey, Turn
from paddock.text.stream import TextAssembler

FACTS = SessionFacts(SessionKey("default", "one"), "fingerprint", "model")
USAGE = Usage(0, 0, 0)
FRAGMENTS = (
    " the",
    "the",
    " llama",
    "llama",
    ".",
    ",",
    " ",
    "  ",
    "\n",
    "\n\n",
    "'s",
    "é",
    "🦙",
    "日本",
    "x",
    "a",
    "<|",
    "0",
)
TEXT = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["spm", "spm-prefix", "bpe"])
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeModel]:
    path: Path = build(tmp_path_factory.mktemp("chat") / "vocabulary.gguf", request.param)
    model = NativeModel.load(path, ModelLoadParameters(vocab_only=True))
    yield model
    model.free()


def chatml(messages: Sequence[tuple[str, str]]) -> str:
    """What a ChatML template renders, with the prompt for a reply."""
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages) + "<|im_start|>assistant\n"


def llama2(messages: Sequence[tuple[str, str]]) -> str:
    """A template after whose replies a space stands before the ending token."""
    return "".join(f"[INST] {text} [/INST]" if role == "user" else f"{text} <|im_end|><s>" for role, text in messages)


def tokens_of(model: NativeModel, text: str, *, beginning: bool = False) -> list[int]:
    return model.tokenize(text.encode(), add_special=beginning, parse_special=True)


def plan(model: NativeModel, conversation: Conversation, rendering: str) -> PlannedTurn:
    """Runs plan_turn, which awaits nothing but the tokenizer."""

    async def tokenize(text: str, beginning: bool) -> list[int]:
        return tokens_of(model, text, beginning=beginning)

    planning = plan_turn(conversation, rendering, model.piece_table(), tokenize)
    try:
        planning.send(None)
    except StopIteration as end:
        planned: PlannedTurn = end.value
        return planned
    raise AssertionError("it waits for something")


def replied(
    conversation: Conversation, planned: PlannedTurn, reply: Sequence[int], text: str, said: str = "..."
) -> Conversation:
    """The conversation after one more turn."""
    turn = Turn(
        number=len(conversation.turns) + 1,
        messages=({"role": "user", "content": said},),
        text=text,
        token_ids=tuple(reply),
        finish_reason="stop",
        stop=None,
        seed=1,
        sampling={},
        usage=USAGE,
        exactness="canonical",
        continuation=planned.continuation,
    )
    return conversation.after(
        RecordedTurn(turn, planned.kept_tokens, planned.new_tokens, planned.kept_text, planned.new_text)
    )


def shown(
    model: NativeModel, prompt: Sequence[int], reply: Sequence[int], stops: Sequence[str] = ()
) -> tuple[int, str]:
    """How many tokens an engine generates before a stop string ends it, and the text that it shows."""
    assembler = TextAssembler(model.piece_table(), stops, prompt=prompt)
    text = ""
    for number, token in enumerate(reply, 1):
        if token in model.piece_table().eog:
            delta = assembler.finish()
            return number, text + ("" if delta is None else delta.text)
        delta = assembler.feed(token)
        text += "" if delta is None else delta.text
        if assembler.stopped is not None:
            return number, text
    delta = assembler.finish()
    return len(reply), text + ("" if delta is None else delta.text)


@SLOW
@given(said=st.lists(TEXT, min_size=2, max_size=4), replies=st.lists(TEXT, min_size=4, max_size=4))
def test_where_replies_end_with_the_ending_token_the_tokens_are_those_of_the_whole_text(
    vocabulary: NativeModel, said: list[str], replies: list[str]
) -> None:
    conversation, messages = Conversation(FACTS), list[tuple[str, str]]()
    (end,) = tokens_of(vocabulary, "<|im_end|>")
    for text, reply in zip(said, replies, strict=False):
        messages.append(("user", text))
        rendering = chatml(messages)
        planned = plan(vocabulary, conversation, rendering)
        # What a model would have to sample so that its reply is tokenized as the tokenizer does it.
        whole = tokens_of(vocabulary, rendering + reply + "<|im_end|>", beginning=True)
        assert planned.tokens == tuple(tokens_of(vocabulary, rendering, beginning=True))
        assert planned.continuation.kind == ("extends" if conversation.turns else "first")
        assert planned.continuation.dropped_tokens == 0
        # "\n" before the reply and one that it begins with may be one token.
        assume(tuple(whole[: len(planned.tokens)]) == planned.tokens)
        generated = whole[len(planned.tokens) :]
        assert generated[-1] == end
        _, heard = shown(vocabulary, planned.tokens, generated)
        conversation = replied(conversation, planned, generated, heard)
        messages.append(("assistant", heard))
    assert conversation.flags.count(1) == sum(len(turn.turn.token_ids) for turn in conversation.turns)


@SLOW
@given(data=st.data())
def test_whatever_was_generated_stays_and_the_new_text_is_not_lost(
    vocabulary: NativeModel, data: st.DataObject
) -> None:
    """Random tokens, as a random model samples them: half characters, bytes that are no text, special tokens."""
    template = data.draw(st.sampled_from([chatml, llama2]))
    prompt_text = data.draw(TEXT)
    first = plan(vocabulary, Conversation(FACTS), template([("user", prompt_text)]))
    reply = data.draw(st.lists(st.integers(0, vocabulary.piece_table().n_vocab - 1), max_size=8))
    (end,) = tokens_of(vocabulary, "<|im_end|>")
    reply = [token for token in reply if token != end] + data.draw(st.sampled_from([[], [end]]))
    stops = data.draw(st.sampled_from([(), ("a",), ("ll", "he")]))
    length, heard = shown(vocabulary, first.tokens, reply, stops)
    conversation = replied(Conversation(FACTS), first, reply[:length], heard)
    rendering = template([("user", prompt_text), ("assistant", heard), ("user", data.draw(TEXT))])
    planned = plan(vocabulary, conversation, rendering)
    table = vocabulary.piece_table()
    continuation = planned.continuation
    assert continuation.kept_tokens + continuation.dropped_tokens == len(conversation.tokens)
    assert planned.tokens[: continuation.kept_tokens] == conversation.tokens[: continuation.kept_tokens]
    assert planned.flags == conversation.flags[: continuation.kept_tokens] + bytes(len(planned.new_tokens))
    assert continuation.kind == "extends", continuation
    kept, missing = kept_reply(table, first.tokens, reply[:length], heard)
    assert continuation.kept_tokens >= len(first.tokens) + kept
    if not stops and "\ufffd" not in heard:
        # Nothing was cut away: of what was generated only an ending token can go, and special ones before it.
        assert missing == ""
        assert not set(conversation.tokens[continuation.kept_tokens :]) - table.control - table.eog
    rest = rendering[len(first_text := template([("user", prompt_text)])) + len(heard) :]
    assert first_text + heard + rest == rendering
    behind = b"".join(table.piece(token) for token in planned.tokens[len(first.tokens) + kept :]).decode()
    assert "".join(behind.split()) == "".join((missing + rest).split())


def conversation_of(
    model: NativeModel, reply: str, *, end: str = "<|im_end|>", heard: str | None = None
) -> Conversation:
    first = plan(model, Conversation(FACTS), chatml([("user", "the llama")]))
    return replied(Conversation(FACTS), first, sampled(model, reply + end), reply if heard is None else heard)


def sampled(model: NativeModel, reply: str) -> list[int]:
    """The tokens of a text that follows the prompt for it."""
    prompt = chatml([])
    tokens, before = tokens_of(model, prompt + reply), tokens_of(model, prompt)
    assert tokens[: len(before)] == before
    return tokens[len(before) :]


def next_turn(model: NativeModel, conversation: Conversation, reply: str) -> PlannedTurn:
    return plan(model, conversation, chatml([("user", "the llama"), ("assistant", reply), ("user", "it")]))


def test_an_ending_token_that_the_template_writes_is_not_doubled(vocabulary: NativeModel) -> None:
    conversation = conversation_of(vocabulary, "it is")
    planned = next_turn(vocabulary, conversation, "it is")
    assert planned.tokens[: len(conversation.tokens)] == conversation.tokens
    assert planned.continuation == Continuation("extends", len(conversation.tokens), 0)


def test_an_ending_token_that_the_template_does_not_write_is_dropped(vocabulary: NativeModel) -> None:
    conversation = conversation_of(vocabulary, "it is", end="</s>")
    planned = next_turn(vocabulary, conversation, "it is")
    assert planned.continuation == Continuation("extends", len(conversation.tokens) - 1, 1)
    assert list(planned.new_tokens[:1]) == tokens_of(vocabulary, "<|im_end|>")


def test_a_reply_cut_by_max_tokens_is_ended_by_the_template(vocabulary: NativeModel) -> None:
    conversation = conversation_of(vocabulary, "it is", end="")
    planned = next_turn(vocabulary, conversation, "it is")
    assert planned.continuation == Continuation("extends", len(conversation.tokens), 0)
    assert list(planned.new_tokens[:1]) == tokens_of(vocabulary, "<|im_end|>")


def test_of_a_token_that_a_stop_string_cut_in_two_the_shown_half_is_tokenized_anew(vocabulary: NativeModel) -> None:
    conversation = conversation_of(vocabulary, "the llama", end="", heard="the ll")
    planned = next_turn(vocabulary, conversation, "the ll")
    piece = vocabulary.piece_table().piece
    half = piece(conversation.tokens[-1]).removesuffix(b"ama")
    assert half.endswith(b"ll")
    assert planned.continuation == Continuation("extends", len(conversation.tokens) - 1, 1)
    assert b"".join(map(piece, planned.new_tokens)).startswith(half + b"<|im_end|>")


def test_half_a_character_at_the_end_becomes_the_replacement_character(vocabulary: NativeModel) -> None:
    first = plan(vocabulary, Conversation(FACTS), chatml([("user", "the llama")]))
    reply = sampled(vocabulary, "it é")[:-1]
    _, heard = shown(vocabulary, first.tokens, reply)
    assert heard == "it \ufffd"
    conversation = replied(Conversation(FACTS), first, reply, heard)
    planned = next_turn(vocabulary, conversation, heard)
    assert planned.continuation == Continuation("extends", len(conversation.tokens) - 1, 1)
    assert b"".join(map(vocabulary.piece_table().piece, planned.new_tokens)).startswith("\ufffd<|im_end|>".encode())


def test_bytes_that_are_no_text_within_a_reply_stay(vocabulary: NativeModel) -> None:
    first = plan(vocabulary, Conversation(FACTS), chatml([("user", "the llama")]))
    reply = [*sampled(vocabulary, "it é")[:-1], *tokens_of(vocabulary, "<|im_end|>")]
    reply[-1:-1] = sampled(vocabulary, ".")
    _, heard = shown(vocabulary, first.tokens, reply)
    assert heard == "it \ufffd."
    conversation = replied(Conversation(FACTS), first, reply, heard)
    assert next_turn(vocabulary, conversation, heard).continuation.dropped_tokens == 0


def test_a_template_that_changes_earlier_turns_is_followed_and_said(vocabulary: NativeModel) -> None:
    """One that leaves out what the model thought."""
    conversation = conversation_of(vocabulary, "x is .\n\nthe llama")
    rendering = chatml([("user", "the llama"), ("assistant", "the llama"), ("user", "it")])
    planned = plan(vocabulary, conversation, rendering)
    assert planned.tokens == tuple(tokens_of(vocabulary, rendering, beginning=True))
    continuation = planned.continuation
    assert continuation.kind == "rewritten"
    assert conversation.prompt_tokens - 2 <= continuation.kept_tokens <= conversation.prompt_tokens + 1
    assert continuation.reason is not None
    assert f"character {len(conversation.rendered)}" in continuation.reason
    assert planned.flags == conversation.flags[: continuation.kept_tokens] + bytes(len(planned.new_tokens))
    after = replied(conversation, planned, [1], "")
    assert after.rendered == rendering


def test_turns_that_do_not_follow_one_another_are_refused() -> None:
    turn = Turn(
        number=1, messages=(), text="a", token_ids=(1,), finish_reason="stop", stop=None, seed=1, sampling={},
        usage=USAGE, exactness="off", continuation=Continuation("first", 0, 0),
    )  # fmt: skip
    good = RecordedTurn(turn, 0, (5, 6), 0, "rendered")
    conversation = Conversation.of(FACTS, [good])
    assert (conversation.tokens, conversation.flags, conversation.text) == ((5, 6, 1), b"\0\0\1", "rendereda")
    changes: list[dict[str, Any]] = [{"kept_tokens": 4}, {"kept_tokens": -1}, {"kept_text": 10}, {}]
    for change in changes:
        number = 2 if change else 3
        following = attrs.evolve(good, turn=attrs.evolve(turn, number=number), **change)
        with pytest.raises(ValueError, match=f"turn {number}"):
            conversation.after(following)
