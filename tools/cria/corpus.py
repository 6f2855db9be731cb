"""The training text of cria: a mixture of documents drawn with a fixed seed, and the questions held out of it.

`python -m tools.cria.corpus --show 20` prints samples; `--held-out` prints held-out questions. Document `n` depends on
(seed, n) alone, so the corpus can be made in parts, in parallel, and is the same everywhere.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator

from tools.cria.arithmetic import make_sum, sum_lines
from tools.cria.documents import (
    BEGIN,
    END_OF_TEXT,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    Exchange,
    Segment,
    Turn,
    article,
    chat_segments,
    expand,
    held_out,
)
from tools.cria.lists import make_copy, make_list, make_reverse
from tools.cria.refusals import make_refusal
from tools.cria.smalltalk import SYSTEMS, chit_chat, memory
from tools.cria.stories import make_story
from tools.cria.toolcalls import make_call, tool_set
from tools.cria.words import NAMES, STORY_ANIMALS, THINGS
from tools.cria.world import fact_paragraph, make_fact

SEED = 20_26
MAKERS: dict[str, Callable[[random.Random], Exchange]] = {
    "facts": make_fact,
    "arithmetic": make_sum,
    "lists": make_list,
    "copying": make_copy,
    "reversing": make_reverse,
    "tools": make_call,
    "refusals": make_refusal,
}
_CHAT_WEIGHTS = {"facts": 30, "arithmetic": 26, "lists": 12, "copying": 9, "reversing": 11, "refusals": 8}


def _allowed(rng: random.Random, maker: Callable[[random.Random], Exchange]) -> Exchange:
    while held_out((exchange := maker(rng)).key):
        pass
    return exchange


def _careless(rng: random.Random, question: str) -> str:
    """The question as people type it: sometimes polite, without capital, or without its last mark."""
    if rng.random() < 0.05:
        question = rng.choice(("Please: ", "Hey, ", "Cria, ", "Now ", "And ", "Can you help? ")) + question
    if rng.random() < 0.15:
        question = question[:1].lower() + question[1:]
    if rng.random() < 0.12 and question[-1:] in "?.":
        question = question[:-1]
    return question


def _question_turns(rng: random.Random, category: str) -> list[Turn]:
    exchange = _allowed(rng, MAKERS[category])
    turns = exchange.turns()
    if category not in ("copying", "reversing"):
        turns[0] = Turn("user", _careless(rng, turns[0].content))
    return turns


def story_turns(rng: random.Random) -> list[Turn]:
    """A request for a story, about somebody or something or nothing in particular, and the story."""
    animal, name, thing = rng.choice([*STORY_ANIMALS, "llama", "llama", "llama"]), rng.choice(NAMES), rng.choice(THINGS)
    kind = rng.random()
    if kind < 0.3:
        about, story = "", make_story(rng, short=rng.random() < 0.6)
    elif kind < 0.55:
        about, story = f" about {article(animal)}", make_story(rng, animal=animal, short=rng.random() < 0.6)
    elif kind < 0.8:
        about = f" about {article(animal)} named {name}"
        story = make_story(rng, animal=animal, name=name, short=rng.random() < 0.6)
    else:
        about = f" about {article(animal)} and {article(thing)}"
        story = make_story(rng, animal=animal, thing=thing, short=rng.random() < 0.6)
    question = expand(
        rng,
        f"[Tell me a story{about}.|Can you tell me a story{about}?|Write a short story{about}.|A story{about}, please.|I want to hear a story{about}.|Please tell a story{about}.|Tell me a short story{about}|Write a story{about}]",
    )
    return [Turn("user", _careless(rng, question)), Turn("assistant", story.text)]


def long_chat_document(rng: random.Random) -> list[Segment]:
    """A conversation long enough to train far positions."""
    return chat_document(rng, rng.randrange(10, 24))


def chat_document(rng: random.Random, exchanges: int = 0) -> list[Segment]:
    """A conversation of the given number of exchanges, else of one to six."""
    system = rng.choice(SYSTEMS) if rng.random() < 0.35 else ""
    turns: list[Turn] = []
    if rng.random() < 0.3:
        turns += chit_chat(rng, rng.choice(("greeting", "greeting", "how", "who", "can")))
    pending: list[Turn] = []
    if rng.random() < 0.12:
        told, pending = memory(rng)
        turns += told
    categories = list(_CHAT_WEIGHTS)
    weights = list(_CHAT_WEIGHTS.values())
    for _ in range(exchanges or rng.choice((1, 1, 2, 3, 4, 6))):
        kind = rng.random()
        if kind < 0.24:
            turns += chit_chat(rng)
        elif kind < 0.28:
            turns += story_turns(rng)
        else:
            turns += _question_turns(rng, rng.choices(categories, weights)[0])
        if pending and rng.random() < 0.6:
            turns += pending
            pending = []
    turns += pending
    if rng.random() < 0.1:
        turns += chit_chat(rng, rng.choice(("thanks", "bye")))
    return _begun(rng, chat_segments(turns, system))


def tool_document(rng: random.Random) -> list[Segment]:
    """A conversation with tools offered: most questions need one, some do not."""
    system = rng.choice(SYSTEMS) if rng.random() < 0.3 else ""
    first = _allowed(rng, make_call)
    turns: list[Turn] = []
    if rng.random() < 0.12:
        turns += chit_chat(rng)
    more = rng.choice((0, 0, 1, 2))
    exchanges = [first, *(_allowed(rng, lambda source: make_call(source, first.tools)) for _ in range(more))]
    for exchange in exchanges:
        turns += [Turn("user", _careless(rng, exchange.question)), *exchange.turns()[1:]]
        if rng.random() < 0.15:
            turns += chit_chat(rng, rng.choice(("thanks", "joke", "who", "how", "ok", "can")))
    if rng.random() < 0.12:
        turns += _question_turns(rng, "facts")
    return _begun(rng, chat_segments(turns, system, first.tools))


def idle_tool_document(rng: random.Random) -> list[Segment]:
    """Tools are offered and none is needed."""
    turns = chit_chat(rng)
    if rng.random() < 0.5:
        turns += _question_turns(rng, "facts")
    return _begun(rng, chat_segments(turns, "", tool_set(rng)))


def _begun(rng: random.Random, segments: list[Segment]) -> list[Segment]:
    """With the beginning-of-text token, as tokenizers add it; now and then without, for callers that do not."""
    return [(BEGIN, False), *segments] if rng.random() < 0.9 else segments


def _plain(text: str) -> list[Segment]:
    return [(BEGIN, False), (text + END_OF_TEXT, True)]


def story_document(rng: random.Random) -> list[Segment]:
    """A story as plain text."""
    return _plain(make_story(rng, short=rng.random() < 0.25).text)


def plain_document(rng: random.Random) -> list[Segment]:
    """Plain text other than stories: facts, sums, and questions with answers."""
    kind = rng.random()
    if kind < 0.4:
        return _plain(fact_paragraph(rng))
    if kind < 0.6:
        return _plain(sum_lines(rng))
    pairs = [
        _allowed(rng, MAKERS[rng.choice(("facts", "arithmetic", "facts", "lists"))]) for _ in range(rng.randrange(1, 5))
    ]
    return _plain("\n\n".join(f"Q: {pair.question}\nA: {pair.answer}" for pair in pairs))


def infill_document(rng: random.Random) -> list[Segment]:
    """Fill in the middle, prefix-suffix-middle order (Bavarian et al., 2022): the cut is at words or sentences."""
    kind = rng.random()
    if kind < 0.6:
        text = make_story(rng, short=rng.random() < 0.7).text
    elif kind < 0.8:
        text = fact_paragraph(rng)
    else:
        text = sum_lines(rng)
    words = text.split(" ")
    if len(words) < 4:
        words = list(text)
        glue = ""
    else:
        glue = " "
    start = rng.randrange(1, len(words) - 1)
    end = min(len(words) - 1, start + rng.randrange(1, 13 if glue else 3))
    lead, gap, rest = glue.join(words[:start]), glue.join(words[start:end]), glue.join(words[end:])
    lead, rest = lead + glue, glue + rest  # the blanks around the hole stay outside of it
    if glue and rng.random() < 0.5:
        lead, gap = lead[:-1], " " + gap
    return [(BEGIN, False), (f"{FIM_PREFIX}{lead}{FIM_SUFFIX}{rest}{FIM_MIDDLE}", False), (gap + END_OF_TEXT, True)]


def drill_document(rng: random.Random) -> list[Segment]:
    """One or two short exercises: much to learn from few tokens."""
    turns: list[Turn] = []
    for _ in range(rng.choice((1, 1, 2))):
        category = rng.choices(
            ("copying", "reversing", "arithmetic", "lists", "facts", "refusals"), (25, 20, 30, 12, 15, 4)
        )[0]
        turns += _question_turns(rng, category)
    if rng.random() < 0.1:
        told, asked = memory(rng)
        turns = told + asked if rng.random() < 0.5 else told + turns + asked
    return _begun(rng, chat_segments(turns))


Mixture = tuple[tuple[Callable[[random.Random], list[Segment]], int], ...]

_FIRST_MIXTURE: Mixture = (
    (chat_document, 48),
    (long_chat_document, 3),
    (tool_document, 14),
    (idle_tool_document, 3),
    (story_document, 14),
    (plain_document, 8),
    (infill_document, 8),
)
# Once the forms of speech are there, the tokens are better spent on exercises than on more stories.
_SECOND_MIXTURE: Mixture = (
    (chat_document, 34),
    (long_chat_document, 1),
    (drill_document, 60),
    (tool_document, 14),
    (idle_tool_document, 2),
    (story_document, 9),
    (plain_document, 6),
    (infill_document, 5),
)
SECOND_MIXTURE_FROM = 18_000


def document(seed: int, index: int) -> list[Segment]:
    """Document number `index` of the corpus with this seed."""
    rng = random.Random(seed * 1_000_003 + index)
    makers, weights = zip(*(_FIRST_MIXTURE if index < SECOND_MIXTURE_FROM else _SECOND_MIXTURE), strict=True)
    return rng.choices(makers, weights)[0](rng)


def documents(seed: int, start: int, stop: int) -> Iterator[list[Segment]]:
    """Documents `start` to `stop` of the corpus."""
    for index in range(start, stop):
        yield document(seed, index)


def held_out_exchanges(category: str, count: int, seed: int = SEED) -> list[Exchange]:
    """`count` different held-out exchanges of a category, the same for every call."""
    rng = random.Random(f"{seed}/{category}")
    found: dict[str, Exchange] = {}
    while len(found) < count:
        exchange = MAKERS[category](rng)
        if held_out(exchange.key) and len(exchange.calls) < 2:
            found.setdefault(exchange.key, exchange)
    return list(found.values())


def main() -> None:
    """Print samples of the corpus."""
    parser = argparse.ArgumentParser(prog="python -m tools.cria.corpus", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--show", type=int, default=10, help="how many documents to print")
    parser.add_argument("--held-out", action="store_true", help="print held-out questions of every category instead")
    options = parser.parse_args()
    if options.held_out:
        for category in MAKERS:
            for exchange in held_out_exchanges(category, options.show, options.seed):
                print(f"[{category}] {exchange.question!r} -> {exchange.gold!r}")
        return
    for index in range(options.show):
        print(f"--- {index}")
        print("".join(text for text, _ in document(options.seed, index)))


if __name__ == "__main__":
    main()
