"""The corpus generator: deterministic, without the held-out questions, and true."""

from __future__ import annotations

import ast
import hashlib
import json
import operator
import random
import re
from pathlib import Path

import pytest

from tools.cria import corpus
from tools.cria.corpus import MAKERS, SEED, document, documents, held_out_exchanges
from tools.cria.documents import END_OF_TEXT, FIM_PREFIX, TURN_END, held_out
from tools.cria.stories import make_story

DIGEST_OF_300_DOCUMENTS = "e729b655c458ca708aa4a6369012ae574f87354d7f1b56fa0bbf6d186c82d677"
OPERATORS = {"+": operator.add, "-": operator.sub, "x": operator.mul}


def text_of(index: int, seed: int = SEED) -> str:
    return "".join(text for text, _ in document(seed, index))


def test_the_corpus_is_the_one_that_the_shipped_model_was_trained_on() -> None:
    drawn = [document(SEED, index) for index in range(300)]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest() == DIGEST_OF_300_DOCUMENTS


def test_a_document_depends_on_its_seed_and_index_alone() -> None:
    assert list(documents(SEED, 40, 50)) == [document(SEED, index) for index in range(40, 50)]
    assert document(SEED, 7) != document(SEED + 1, 7)


def test_every_document_ends_where_the_model_must_stop() -> None:
    for segments in documents(SEED, 0, 300):
        last_trained = [text for text, trained in segments if trained][-1]
        assert last_trained.endswith((END_OF_TEXT, TURN_END))


@pytest.mark.parametrize("category", sorted(MAKERS))
def test_held_out_questions_are_stable_different_and_held_out(category: str) -> None:
    first, again = held_out_exchanges(category, 30), held_out_exchanges(category, 30)
    assert first == again
    assert len({exchange.key for exchange in first}) == 30
    assert all(held_out(exchange.key) for exchange in first)


def test_no_held_out_sum_is_in_the_training_text() -> None:
    for index in range(600):
        text = text_of(index)
        if "tools:" in text:
            continue  # the sums of the tools are worked out by the tool
        for a, b in re.findall(r"(?<!\d)(\d+) \+ (\d+) = ", text):
            low, top = sorted((int(a), int(b)))
            assert not held_out(f"add/{low}/{top}"), text


def test_every_equation_in_the_corpus_is_true() -> None:
    found = 0
    for index in range(600):
        text = text_of(index)
        if FIM_PREFIX in text:
            continue  # cut anywhere, also within numbers
        for a, sign, b, result in re.findall(r"(?<![\d^])(\d+) ([+x-]) (\d+) = (\d+)", text):
            found += 1
            assert OPERATORS[sign](int(a), int(b)) == int(result)
    assert found > 90


def test_every_tool_call_in_the_corpus_is_json_for_an_offered_tool() -> None:
    found = 0
    for index in range(500):
        text = text_of(index)
        for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text):
            call = json.loads(body)
            found += 1
            offered = re.search(rf"^{call['name']}\((.*?)\) - ", text, re.MULTILINE)
            assert offered is not None
            assert list(call["arguments"]) == [part.split(":")[0] for part in offered.group(1).split(", ")]
    assert found > 50


def test_reversed_lists_are_reversed() -> None:
    for exchange in held_out_exchanges("reversing", 100):
        if exchange.key.startswith("reverse/"):
            given = exchange.key.removeprefix("reverse/")
            separator = ", " if ", " in given else " "
            assert exchange.answer.split(separator) == given.split(separator)[::-1]


def test_stories_keep_to_the_hero_that_was_asked_for() -> None:
    for seed in range(50):
        story = make_story(random.Random(seed), animal="owl", name="Greta", thing="lamp")
        assert "owl" in story.text
        assert story.text.count("Greta") >= 3
        assert "{" not in story.text
        assert "[" not in story.text


def test_stories_are_varied() -> None:
    texts = [make_story(random.Random(seed)).text for seed in range(300)]
    sentences = {sentence for text in texts for sentence in re.split(r"(?<=[.!?]) ", text)}
    assert len(set(texts)) == 300
    assert len(sentences) > 2_500


def test_the_generator_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(corpus.__file__).read_text(encoding="utf-8"))
    imported = {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    assert imported <= {"__future__", "collections", "tools"}
