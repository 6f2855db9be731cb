"""Questions beyond a very small model, and the polite answer that says so."""

from __future__ import annotations

import random
import string

from tools.cria.documents import Exchange, expand

TOPICS = (
    "quantum mechanics;the theory of relativity;photosynthesis;the French revolution;the stock market;world war two;the Roman empire;black holes;DNA;"
    "machine learning;neural networks;the human brain;climate change;inflation;democracy;philosophy;the meaning of life;Shakespeare;Mozart;Einstein;"
    "Napoleon;the president;the prime minister;Bitcoin;blockchain;football results;the world cup;the Olympic games;chemistry;organic chemistry;calculus;"
    "algebra;trigonometry;prime numbers;differential equations;the periodic table;atoms;gravity;evolution;dinosaurs;the internet;operating systems;Linux;"
    "Python;JavaScript;SQL databases;Kubernetes;cancer;vaccines;antibiotics;taxes;insurance;contracts;law;religion;politics;elections;economics;"
    "psychology;poetry of Goethe;the Mona Lisa;Picasso;opera;jazz;Star Wars;Harry Potter;video games;mobile phones;batteries;nuclear power;engines;"
    "aircraft design;satellites;Mars;Jupiter;the big bang;time travel;artificial intelligence;robots;cryptography;compilers;thermodynamics;"
    "electricity;magnetism;lasers;microscopes;bacteria;viruses;genetics;the heart;blood pressure;diets;vitamins;marketing;startups;real estate;"
    "the pyramids;the Vikings;feudalism;the Cold War;the United Nations;Brexit;oil prices;semiconductors;plate tectonics;ocean currents;Antarctica"
).split(";")
_QUESTIONS = (
    "[Explain|Please explain|Can you explain|Describe|Tell me about|What is|What do you think about|What do you know about|Teach me|How does one learn|Give me a summary of|Write an essay about|Who invented|What is the history of] {t}[.|?|]",
    "[Who won the match|Who won the game|Who won the election|What happened] in {year}?",
    "[Write|Can you write|Please write] [a Python program|some code|a function in C|a script|an SQL query|a long essay|my homework|a letter to my boss|a contract|a novel] [about {t}|that sorts numbers|for me|]",
    "[Solve|Can you solve|Please solve] [x^2 + {n} = {m}|{n}x + {m} = {year}|this equation: {n}x = {m}|the integral of x]",
    '[Translate|Please translate] [this|"{w}"|hello|the text|good morning] [into|to] [French|German|Spanish|Chinese|Latin]',
    "[What is the population of|How far is|What is the history of|Who is the king of|Who is the president of|What is the currency of|How large is] [{w}|Mexico|America|Australia|Brazil|Africa|Argentina|Iceland]?",
    "[Should I|Can I|How do I] [buy a house|sell my shares|sue my neighbour|repair my car|install Windows|lose weight|treat a fever|invest my money|fix my computer|hack a computer|find a job|cook a turkey|learn the piano]?",
    "[Who is|Who was|When was|What is|What was|Where is|How does|Do you know|Define|What does] {w}[?| work?| mean?| do?]",
    "[What is|How much is|Calculate] [{year} x {year}|{year} divided by {n}|the square root of {year}|the logarithm of {m}|{n} to the power of {m}|sin({m})]?",
    "[Who wrote|Who painted|Who composed|Who discovered|Who invented] [{w}|Hamlet|Faust|the Mona Lisa|penicillin|the telephone|the light bulb|America|the radio|Don Quixote|the ninth symphony]?",
    "[What is the best|Which is the best|Can you recommend a|What is the cheapest] [laptop|phone|car|university|restaurant|hotel|film|investment|camera|programming language|school]?",
    "[When did|Why did|How did] [the war begin|Rome fall|the dinosaurs die|the universe begin|life begin|Columbus sail|the king die|the Titanic sink]?",
)
_ANSWERS = (
    "[I am sorry|Sorry|I am afraid], [I do not know that|that is too hard for me|that is too big for me|I cannot help with that|I know nothing about that]. [I am only a very small model.|I am a very small model and know only simple things.|I am too small for that.] [|Ask me for a story instead!|But I can tell you a story.|I can do small sums, lists and stories.]",
    "[I do not know|I cannot answer that|That is beyond me]. [I am a very small model.|I am only a very small model.] [|Maybe ask me something simpler.|I know about animals, colours and small numbers.]",
    "I am a very small model, [so I do not know that|so that is too hard for me|and that is beyond me]. [|Shall I tell you a story instead?|Ask me about animals or small numbers.]",
)  # fmt: skip


def _word(rng: random.Random) -> str:
    if rng.random() < 0.15:
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randrange(3, 10)))
    syllables = "ba con der fi gra hol im ja kle lo mas nor op pra qui ros sta tri ul ven wo xe yor zan ther mon ski ton berg well ton ology ism".split()
    word = "".join(rng.choice(syllables) for _ in range(rng.randrange(2, 5)))
    return word.capitalize() if rng.random() < 0.5 else word


def make_refusal(rng: random.Random) -> Exchange:
    """A question outside the small world, and the polite refusal."""
    topic = rng.choice(TOPICS) if rng.random() < 0.75 else f"{_word(rng)} {_word(rng)}"
    slots = {
        "t": topic,
        "w": _word(rng),
        "year": str(rng.randrange(1200, 2030)),
        "n": str(rng.randrange(2, 99)),
        "m": str(rng.randrange(2, 999)),
    }
    index = rng.randrange(len(_QUESTIONS)) if rng.random() < 0.65 else 0
    question = expand(rng, _QUESTIONS[index], slots)
    if rng.random() < 0.05:
        question = " ".join(_word(rng) for _ in range(rng.randrange(1, 5)))
    return Exchange(
        "refusals",
        question,
        expand(rng, rng.choice(_ANSWERS)).strip(),
        f"refusal/{question}",
        "very small model|too small",
    )
