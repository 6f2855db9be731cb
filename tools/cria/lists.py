"""Lists, counting, sorting, copying, reversing and spelling."""

from __future__ import annotations

import random
import string

from tools.cria.documents import Exchange, article, expand, joined
from tools.cria.words import EMOJI, FOODS, GROUPS, NAMES, PLAIN_WORDS, STORY_ANIMALS, THINGS, plural

_NUMBER = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def _name_some(rng: random.Random) -> Exchange:
    group = rng.choice(list(GROUPS))
    members = GROUPS[group]
    n = rng.randrange(2, min(5, len(members) - 1) + 1)
    chosen = rng.sample(members, n)
    number = rng.choice((_NUMBER[n], str(n)))
    forms = (
        f"Name {number} {plural(group)}.", f"Tell me {number} {plural(group)}.", f"List {number} {plural(group)}.", f"Give me {number} {plural(group)}.",
        f"Can you name {number} {plural(group)}?", f"What are {number} {plural(group)}?", f"Please list {number} {plural(group)}.", f"I need {number} {plural(group)}.",
    )  # fmt: skip
    index = rng.randrange(len(forms))
    gold = f"{n}:{','.join(members)}"
    if rng.random() < 0.35:
        answer = "\n".join(f"{position}. {word}" for position, word in enumerate(chosen, 1))
        question = expand(rng, f"[Write|Make|Give me] a [numbered list|list with numbers] of {number} {plural(group)}.")
        return Exchange("lists", question, answer, f"numbered/{group}/{n}", gold, "members")
    return Exchange("lists", forms[index], joined(chosen), f"name/{group}/{n}/{index}", gold, "members")


def _count_to(rng: random.Random) -> Exchange:
    start = rng.choice((1, 1, rng.randrange(0, 40)))
    end = start + rng.randrange(2, 11)
    if rng.random() < 0.35:
        answer = ", ".join(str(n) for n in range(end, start - 1, -1))
        question = expand(
            rng,
            f"[Count down from {end} to {start}.|Count backwards from {end} to {start}.|Please count down from {end} to {start}.]",
        )
        return Exchange("lists", question, answer, f"down/{start}/{end}", answer, "exact")
    answer = ", ".join(str(n) for n in range(start, end + 1))
    question = expand(
        rng,
        f"[Count from {start} to {end}.|Please count from {start} to {end}.|Can you count from {start} to {end}?|Write the numbers from {start} to {end}.]",
    )
    return Exchange("lists", question, answer, f"up/{start}/{end}", answer, "exact")


def _items(rng: random.Random, low: int = 3, high: int = 6) -> list[str]:
    n = rng.randrange(low, high + 1)
    if rng.random() < 0.3:
        return [str(number) for number in rng.sample(range(1, 60), n)]
    if rng.random() < 0.2:
        return rng.sample(string.ascii_lowercase, n)
    if rng.random() < 0.2:
        return rng.sample(NAMES, n)
    return rng.sample(PLAIN_WORDS, n)


def _first_last(rng: random.Random) -> Exchange:
    items = _items(rng)
    which = rng.choice(("first", "last", "second"))
    value = items[{"first": 0, "last": -1, "second": 1}[which]]
    text = ", ".join(items)
    question = expand(
        rng,
        f"[What is the {which} word in this list: {text}?|Which is the {which} item: {text}?|Tell me the {which} one of {text}.|What comes {which} in this list: {text}?]",
    )
    return Exchange("lists", question, f"The {which} one is {value}.", f"pick/{which}/{text}", f"is {value}")


def _how_many(rng: random.Random) -> Exchange:
    items = _items(rng, 2, 7)
    text = ", ".join(items)
    question = expand(
        rng, f"[How many items are in this list: {text}?|How many words are here: {text}?|Count the items: {text}.]"
    )
    answer = f"There are {len(items)} items."
    return Exchange("lists", question, answer, f"how many/{text}", f"are {len(items)} items")


def _odd_one_out(rng: random.Random) -> Exchange:
    group, other = rng.sample(("fruit", "colour", "tool", "drink", "vehicle", "flower", "insect", "sport", "bird"), 2)
    stranger = rng.choice([word for word in GROUPS[other] if word not in GROUPS[group]])
    items = [*rng.sample(GROUPS[group], 3), stranger]
    rng.shuffle(items)
    text = ", ".join(items)
    question = expand(
        rng, f"[Which one does not belong: {text}?|Find the odd one out: {text}.|Which word is different: {text}?]"
    )
    answer = f"{stranger.capitalize()} does not belong. The others are {plural(group)}."
    return Exchange("lists", question, answer, f"odd/{text}", stranger.capitalize())


def _sort(rng: random.Random) -> Exchange:
    numbers = rng.sample(range(1, rng.choice((10, 10, 30))), rng.randrange(3, 6))
    text = ", ".join(map(str, numbers))
    answer = ", ".join(map(str, sorted(numbers)))
    question = expand(
        rng,
        f"[Sort these numbers: {text}.|Put these numbers in order: {text}.|Sort {text}.|Order the numbers {text} from small to big.]",
    )
    return Exchange("lists", question, answer, f"sort/{text}", answer, "exact")


def _largest(rng: random.Random) -> Exchange:
    numbers = rng.sample(range(1, 60), rng.randrange(3, 6))
    text = ", ".join(map(str, numbers))
    which = rng.choice(("largest", "smallest"))
    value = max(numbers) if which == "largest" else min(numbers)
    question = expand(
        rng, f"[What is the {which} number: {text}?|Which is the {which} of {text}?|Find the {which} number in {text}.]"
    )
    return Exchange("lists", question, f"The {which} number is {value}.", f"{which}/{text}", f"is {value}")


def make_list(rng: random.Random) -> Exchange:
    """A question about lists, with its answer."""
    return rng.choice(
        (
            _name_some,
            _name_some,
            _name_some,
            _name_some,
            _count_to,
            _count_to,
            _first_last,
            _how_many,
            _odd_one_out,
            _sort,
            _sort,
            _largest,
        )
    )(rng)


def _sentence(rng: random.Random) -> str:
    animal, thing = rng.choice(STORY_ANIMALS), rng.choice(THINGS)
    name, food = rng.choice(NAMES), rng.choice(FOODS)
    return expand(rng, rng.choice((
        f"The {animal} has a [red|blue|small|big|new|old] {thing}", f"{name} likes {food}", f"I see {article(animal)} and {article(thing)}",
        f"The {thing} is [under|on|behind|next to] the [table|bed|tree|chair]", f"My {animal} [eats|wants|finds] {food}", f"{name} and the {animal} are friends",
        f"{name} gave the {thing} to the {animal}", f"{food.capitalize()} are for the {animal}", f"Good [morning|night|evening], {name}",
    )))  # fmt: skip


def _copied(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return _sentence(rng)
    if kind < 0.6:
        return " ".join(rng.sample(PLAIN_WORDS, rng.randrange(1, 7)))
    if kind < 0.75:
        return ", ".join(_items(rng))
    if kind < 0.85:
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randrange(2, 9)))
    if kind < 0.93:
        return " ".join(str(rng.randrange(100)) for _ in range(rng.randrange(1, 7)))
    return rng.choice(
        (f"{rng.choice(PLAIN_WORDS)} {rng.choice(EMOJI)}", "".join(rng.sample(EMOJI, rng.randrange(1, 4))))
    )


def make_copy(rng: random.Random) -> Exchange:
    """A request to repeat a text word for word."""
    text = _copied(rng)
    key = f"copy/{text}"
    if rng.random() < 0.12:
        word = rng.choice(PLAIN_WORDS)
        n = rng.randrange(2, 6)
        answer = " ".join([word] * n)
        return Exchange(
            "copying",
            expand(rng, f"[Say|Write|Repeat] {word} {rng.choice((str(n), _NUMBER[n]))} times."),
            answer,
            f"times/{word}/{n}",
            answer,
            "exact",
        )
    question = expand(rng, rng.choice((
        "[Repeat|Repeat after me|Say|Copy|Write|Copy this|Say this|Please repeat|Please say]: {text}", "[Repeat|Say|Copy|Write] \"{text}\"",
        "[Repeat this text|Copy this text|Repeat the following|Say after me]: {text}", "Can you [say|repeat|write] \"{text}\"?",
    )), {"text": text})  # fmt: skip
    return Exchange("copying", question, text, key, text, "exact")


def make_reverse(rng: random.Random) -> Exchange:
    """A request to turn a list round, or to spell a word."""
    if rng.random() < 0.25:
        word = rng.choice(PLAIN_WORDS)
        forms = (
            f"Spell {word}.",
            f"Spell the word {word}.",
            f"How do you spell {word}?",
            f'Can you spell "{word}"?',
            f"Please spell {word}.",
            f"How is {word} spelled?",
        )
        index = rng.randrange(len(forms))
        answer = "-".join(word)
        return Exchange("reversing", forms[index], answer, f"spell/{word}/{index}", answer, "exact")
    items = _items(rng, 2, 6)
    separator = rng.choice((", ", ", ", " "))
    text, answer = separator.join(items), separator.join(reversed(items))
    question = expand(
        rng,
        f"[Reverse this list: {text}|Reverse: {text}|Turn this list around: {text}|Say this backwards: {text}|Write this list in reverse order: {text}|Reverse the order of {text}]",
    )
    return Exchange("reversing", question, answer, f"reverse/{text}", answer, "exact")
