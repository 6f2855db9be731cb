"""Questions and answers on a small world: countries, animals, opposites, days, numbers of legs, what things are for.

A fact is a (subject, relation, value) triple with several phrasings; a held-out question is a phrasing of a fact whose other
phrasings are in the training text.
"""

from __future__ import annotations

import random

from tools.cria.documents import Exchange, article, expand
from tools.cria.words import GROUPS, plural


def _table(text: str) -> list[tuple[str, ...]]:
    return [tuple(part.strip() for part in line.split(":")) for line in text.split(";") if line.strip()]


CAPITALS = _table(
    "France:Paris;Italy:Rome;Spain:Madrid;Germany:Berlin;Austria:Vienna;Norway:Oslo;Japan:Tokyo;Peru:Lima;Egypt:Cairo;Greece:Athens;"
    "Ireland:Dublin;Portugal:Lisbon;Poland:Warsaw;India:Delhi;Russia:Moscow;Finland:Helsinki;Sweden:Stockholm;Denmark:Copenhagen;"
    "England:London;Cuba:Havana;China:Beijing;Canada:Ottawa;Chile:Santiago;Bolivia:Sucre;Kenya:Nairobi;Hungary:Budapest;Turkey:Ankara;"
    "Belgium:Brussels;Switzerland:Bern;Ecuador:Quito"
)
# animal: sound, food, home, young, legs, covering
ANIMALS = _table(
    "llama:hum:grass:in the mountains:cria:4:wool;alpaca:hum:grass:in the mountains:cria:4:wool;cow:moo:grass:on a farm:calf:4:hair;"
    "dog:bark:meat:in a house:puppy:4:fur;cat:meow:fish:in a house:kitten:4:fur;sheep:baa:grass:on a farm:lamb:4:wool;"
    "horse:neigh:hay:in a stable:foal:4:hair;pig:oink:corn:in a sty:piglet:4:hair;duck:quack:bread:on a pond:duckling:2:feathers;"
    "hen:cluck:corn:in a coop:chick:2:feathers;frog:croak:flies:in a pond:tadpole:4:skin;lion:roar:meat:in the grassland:cub:4:fur;"
    "owl:hoot:mice:in a tree:owlet:2:feathers;bee:buzz:nectar:in a hive:larva:6:fuzz;goat:bleat:leaves:on a farm:kid:4:hair;"
    "mouse:squeak:cheese:in a hole:pup:4:fur;bear:growl:honey:in a cave:cub:4:fur;fox:yelp:rabbits:in a den:kit:4:fur;"
    "rabbit:squeak:carrots:in a burrow:bunny:4:fur;spider:hiss:flies:in a web:spiderling:8:hair;elephant:trumpet:leaves:in the grassland:calf:4:skin;"
    "wolf:howl:meat:in the forest:pup:4:fur;crow:caw:seeds:in a nest:chick:2:feathers;goose:honk:grass:on a pond:gosling:2:feathers;"
    "deer:bellow:leaves:in the forest:fawn:4:fur;donkey:bray:hay:in a stable:foal:4:hair;monkey:chatter:bananas:in the jungle:infant:4:fur;"
    "snake:hiss:mice:in the grass:hatchling:0:scales;ant:click:seeds:in a hill:larva:6:shell;penguin:squawk:fish:on the ice:chick:2:feathers"
)
OPPOSITES = _table(
    "hot:cold;big:small;up:down;left:right;day:night;happy:sad;fast:slow;old:new;open:closed;wet:dry;light:dark;hard:soft;high:low;"
    "long:short;full:empty;loud:quiet;near:far;good:bad;strong:weak;thick:thin;rich:poor;early:late;young:old;clean:dirty;in:out;"
    "on:off;yes:no;first:last;black:white;sweet:sour;win:lose;begin:end;buy:sell;push:pull;laugh:cry;heavy:light;true:false;"
    "above:below;asleep:awake;brave:afraid;wide:narrow;warm:cool;before:after;inside:outside;give:take;love:hate;summer:winter"
)
COLOURS = _table(
    "grass:green;the sky:blue;snow:white;a banana:yellow;a tomato:red;coal:black;the sun:yellow;a lemon:yellow;blood:red;milk:white;a carrot:orange;"
    "chocolate:brown;a frog:green;a strawberry:red;a leaf:green;the sea:blue;a pumpkin:orange;night:black;a cherry:red;a pea:green;rice:white;"
    "an elephant:grey;a flamingo:pink;a plum:purple;a polar bear:white;salt:white;a crow:black;mud:brown"
)
USES = _table(
    "cut paper:scissors;tell the time:a clock;write a letter:a pen;eat soup:a spoon;open a door:a key;sweep the floor:a broom;hit a nail:a hammer;"
    "cut bread:a knife;stay dry in the rain:an umbrella;dig a hole:a spade;see in the dark:a lamp;brush your teeth:a toothbrush;sleep at night:a bed;"
    "comb your hair:a comb;boil water:a kettle;cut wood:a saw;drink tea:a cup;keep your hands warm:gloves;sit at a table:a chair;climb a wall:a ladder;"
    "read a story:a book;call a friend:a telephone;cross a river:a bridge;catch a fish:a net;look at the stars:a telescope;wash your hands:soap;"
    "measure a line:a ruler;fly to a far country:a plane;carry water:a bucket;dry yourself:a towel"
)
MADE = _table(
    "bread:flour;cheese:milk;butter:milk;paper:wood;a window:glass;a sweater:wool;honey:nectar;wine:grapes;a table:wood;a coin:metal;"
    "an omelette:eggs;jam:fruit;a brick:clay;chocolate:cocoa;a snowman:snow;a candle:wax;juice:fruit;a tyre:rubber"
)
PEOPLE = _table(
    "bakes bread:a baker;teaches children:a teacher;helps sick people:a doctor;puts out fires:a firefighter;flies a plane:a pilot;"
    "grows food:a farmer;catches fish:a fisher;cuts hair:a barber;paints pictures:a painter;builds houses:a builder;drives a bus:a driver;"
    "sings songs:a singer;writes books:a writer;sews clothes:a tailor;brings letters:a postman;looks after sheep:a shepherd;cooks meals:a cook;"
    "looks after teeth:a dentist;looks after sick animals:a vet;grows flowers:a gardener"
)
SIDES = _table("triangle:3;square:4;rectangle:4;pentagon:5;hexagon:6;octagon:8")
COUNTS = _table(
    "days are in a week:7;months are in a year:12;hours are in a day:24;minutes are in an hour:60;seconds are in a minute:60;"
    "seasons are in a year:4;fingers are on one hand:5;toes are on two feet:10;wheels does a car have:4;wheels does a bike have:2;"
    "eyes does a person have:2;noses does a person have:1;legs does a chair have:4;colours are in a rainbow:7;letters are in the alphabet:26;"
    "days are in a weekend:2;weeks are in a year:52;legs does a table have:4;eggs are in a dozen:12;ears does a llama have:2"
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
ALPHABET = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
LARGER = "ant bee mouse frog duck cat fox dog sheep llama horse bear elephant whale".split()


def _fact(
    rng: random.Random, relation: str, subject: str, value: str, questions: tuple[str, ...], answers: tuple[str, ...]
) -> Exchange:
    index = rng.randrange(len(questions))
    slots = {"s": subject, "v": value, "S": subject[0].upper() + subject[1:], "V": value[0].upper() + value[1:]}
    return Exchange(
        "facts",
        questions[index].format_map(slots),
        rng.choice(answers).format_map(slots),
        f"fact/{relation}/{subject}/{index}",
        value,
    )


def _capital(rng: random.Random) -> Exchange:
    country, city = rng.choice(CAPITALS)
    if rng.random() < 0.25:
        return _fact(rng, "country", city, country, (
            "{s} is the capital of which country?", "Which country has the capital {s}?", "In which country is {s}?",
        ), ("{s} is the capital of {v}.",))  # fmt: skip
    return _fact(rng, "capital", country, city, (
        "What is the capital of {s}?", "Which city is the capital of {s}?", "What's the capital of {s}?", "Do you know the capital of {s}?",
        "Tell me the capital of {s}.", "Name the capital city of {s}.", "{s}'s capital is which city?", "What is the capital city of {s}?",
    ), ("The capital of {s} is {v}.", "The capital of {s} is {v}.", "It is {v}. {v} is the capital of {s}."))  # fmt: skip


def _animal(rng: random.Random) -> Exchange:
    animal, sound, food, home, young, legs, cover = rng.choice(ANIMALS)
    a, an = article(animal), article(animal).capitalize()
    kind = rng.randrange(6)
    if kind == 0:
        return _fact(rng, "sound", animal, sound, (
            f"What sound does {a} make?", f"What does {a} say?", f"How does {a} sound?", f"Which sound does {a} make?", f"What noise does {a} make?",
            f"What is the sound of {a}?",
        ), (f"{an} can {{v}}.", f"{an} goes {{v}}: that is its sound."))  # fmt: skip
    if kind == 1:
        return _fact(rng, "food", animal, food, (
            f"What does {a} eat?", f"What does {a} like to eat?", f"What is the food of {a}?", f"What can I feed {a}?", f"What do you give {a} to eat?",
            f"Tell me what {a} eats.",
        ), (f"{an} eats {{v}}.", f"{an} likes to eat {{v}}."))  # fmt: skip
    if kind == 2:
        return _fact(rng, "home", animal, home, (
            f"Where does {a} live?", f"Where is the home of {a}?", f"Where can I find {a}?", f"Where do you find {a}?", f"Tell me where {a} lives.",
            f"In what place does {a} live?",
        ), (f"{an} lives {{v}}.",))  # fmt: skip
    if kind == 3:
        return _fact(rng, "young", animal, young, (
            f"What is a baby {animal} called?", f"What do you call a baby {animal}?", f"What is the name for a young {animal}?",
            f"What is the young of {a}?", f"How do we call a young {animal}?", f"What's a baby {animal} called?",
        ), (f"A baby {animal} is called {article(young)}.", f"A young {animal} is called {article(young)}."))  # fmt: skip
    if kind == 4:
        return _fact(rng, "legs", animal, legs, (
            f"How many legs does {a} have?", f"How many legs has {a} got?", f"{an} has how many legs?", f"What is the number of legs of {a}?",
            f"Tell me how many legs {a} has.", f"Do you know how many legs {a} has?",
        ), (f"{an} has {{v}} legs.",))  # fmt: skip
    return _fact(rng, "cover", animal, cover, (
        f"What covers {a}?", f"What is {a} covered with?", f"What does {a} have on its body?", f"What is on the body of {a}?",
        f"What covers the body of {a}?",
    ), (f"{an} is covered with {{v}}.", f"{an} has {{v}} on its body."))  # fmt: skip


def _opposite(rng: random.Random) -> Exchange:
    word, other = rng.choice(OPPOSITES)
    if rng.random() < 0.4 and word not in {"old", "light"} and other not in {"old", "light"}:
        word, other = other, word
    return _fact(rng, "opposite", word, other, (
        "What is the opposite of {s}?", "Tell me the opposite of {s}.", "What's the opposite of {s}?", "Which word is the opposite of {s}?",
        "Opposite of {s}?", "Name the opposite of \"{s}\".", "Do you know the opposite of {s}?",
    ), ("The opposite of {s} is {v}.", "The opposite of {s} is {v}.", "{V} is the opposite of {s}."))  # fmt: skip


def _colour(rng: random.Random) -> Exchange:
    thing, colour = rng.choice(COLOURS)
    return _fact(rng, "colour", thing, colour, (
        "What colour is {s}?", "Which colour is {s}?", "What is the colour of {s}?", "What color is {s}?", "Tell me the colour of {s}.",
        "Do you know what colour {s} is?",
    ), ("{S} is {v}.", "The colour of {s} is {v}."))  # fmt: skip


def _use(rng: random.Random) -> Exchange:
    action, thing = rng.choice(USES)
    return _fact(rng, "use", action, thing, (
        "What do you use to {s}?", "What do I need to {s}?", "What do people use to {s}?", "Which thing helps you to {s}?", "I want to {s}. What do I need?",
        "What is good to {s}?",
    ), ("You can use {v} to {s}.", "To {s}, you need {v}."))  # fmt: skip


def _made(rng: random.Random) -> Exchange:
    thing, stuff = rng.choice(MADE)
    return _fact(rng, "made", thing, stuff, (
        "What is {s} made of?", "What is {s} made from?", "What do you need to make {s}?", "Tell me what {s} is made of.", "From what do we make {s}?",
    ), ("{S} is made from {v}.", "{S} is made of {v}."))  # fmt: skip


def _person(rng: random.Random) -> Exchange:
    work, who = rng.choice(PEOPLE)
    return _fact(rng, "work", work, who, (
        "Who {s}?", "What do you call someone who {s}?", "What is the name for a person who {s}?", "Which person {s}?", "Do you know who {s}?",
    ), ("{V} {s}.", "Someone who {s} is called {v}."))  # fmt: skip


def _count(rng: random.Random) -> Exchange:
    if rng.random() < 0.25:
        shape, sides = rng.choice(SIDES)
        return _fact(rng, "sides", shape, sides, (
            f"How many sides does {article(shape)} have?", f"How many corners does {article(shape)} have?", f"How many sides has {article(shape)}?",
            f"{article(shape).capitalize()} has how many sides?",
        ), (f"{article(shape).capitalize()} has {{v}} sides.",))  # fmt: skip
    what, number = rng.choice(COUNTS)
    statement = what.replace("are in", "in").replace("are on", "on").replace("does ", "of ").replace(" have", "")
    return _fact(rng, "count", what, number, (
        "How many {s}?", "Can you tell me how many {s}?", "Please tell me: how many {s}?", "Do you know how many {s}?", "Quick question, how many {s}?",
    ), (f"There are {{v}} {statement}." if "does" not in what else "{v}.", "The answer is {v}."))  # fmt: skip


def _order(rng: random.Random) -> Exchange:
    series, noun = rng.choice(((DAYS, "day"), (MONTHS, "month"), (ALPHABET, "letter")))
    index = rng.randrange(len(series) - 1)
    first, second = series[index], series[index + 1]
    if series is not ALPHABET and rng.random() < 0.15:
        index, first, second = 0, series[-1], series[0]
    if rng.random() < 0.4:
        return _fact(rng, "before", second, first, (
            f"Which {noun} comes before {{s}}?", f"What {noun} is before {{s}}?", "What comes before {s}?", f"Tell me the {noun} before {{s}}.",
        ), ("{v} comes before {s}.", f"The {noun} before {{s}} is {{v}}."))  # fmt: skip
    return _fact(rng, "after", first, second, (
        f"Which {noun} comes after {{s}}?", f"What {noun} is after {{s}}?", "What comes after {s}?", f"Tell me the {noun} after {{s}}.",
        f"What is the next {noun} after {{s}}?",
    ), ("{v} comes after {s}.", f"The {noun} after {{s}} is {{v}}."))  # fmt: skip


def _kind(rng: random.Random) -> Exchange:
    group = rng.choice([name for name in GROUPS if name != "animal"])
    word = rng.choice(GROUPS[group])
    bare = group in ("colour", "drink", "season", "sport")
    a_word = word if bare else article(word)
    capital = a_word[0].upper() + a_word[1:]
    if rng.random() < 0.5:
        return _fact(rng, f"kind {group}", word, group, (
            f"What is {a_word}?", f"What kind of thing is {a_word}?", f"Tell me what {a_word} is.", f"What sort of thing is {a_word}?",
        ), (f"{capital} is {article(group)}.",))  # fmt: skip
    other = rng.choice([name for name in GROUPS if word not in GROUPS[name]])
    asked = group if rng.random() < 0.5 else other
    yes = asked == group
    answer = (
        f"Yes, {a_word} is {article(group)}."
        if yes
        else f"No, {a_word} is not {article(asked)}. It is {article(group)}."
    )
    question = rng.choice((f"Is {a_word} {article(asked)}?", f"Does {a_word} belong to the {plural(asked)}?"))
    return Exchange("facts", question, answer, f"fact/is/{word}/{asked}", "Yes" if yes else "No")


def _size(rng: random.Random) -> Exchange:
    i, j = rng.sample(range(len(LARGER)), 2)
    a, b = LARGER[i], LARGER[j]
    if rng.random() < 0.6:
        big = max(i, j)
        question, value = (
            expand(rng, f"[Which is bigger|What is bigger|Who is bigger], {article(a)} or {article(b)}?"),
            LARGER[big],
        )
        answer = f"{article(value).capitalize()} is bigger than {article(LARGER[min(i, j)])}."
        return Exchange("facts", question, answer, f"fact/bigger/{a}/{b}", article(value).capitalize())
    small = min(i, j)
    value = LARGER[small]
    question = expand(rng, f"[Which is smaller|What is smaller|Who is smaller], {article(a)} or {article(b)}?")
    answer = f"{article(value).capitalize()} is smaller than {article(LARGER[max(i, j)])}."
    return Exchange("facts", question, answer, f"fact/smaller/{a}/{b}", article(value).capitalize())


_KINDS = (
    _capital,
    _capital,
    _animal,
    _animal,
    _animal,
    _animal,
    _opposite,
    _opposite,
    _colour,
    _use,
    _made,
    _person,
    _count,
    _order,
    _order,
    _kind,
    _kind,
    _size,
)


def make_fact(rng: random.Random) -> Exchange:
    """A question on the small world, with its answer."""
    return rng.choice(_KINDS)(rng)


def fact_paragraph(rng: random.Random) -> str:
    """A few plain sentences about one animal, country or kind of thing, as an encyclopedia for children has them."""
    kind = rng.random()
    if kind < 0.6:
        animal, sound, food, home, young, legs, cover = rng.choice(ANIMALS)
        an = article(animal).capitalize()
        rest = [
            f"[It|{an}] has {legs} legs.", f"[It eats|It likes to eat] {food}.", f"It lives {home}.", f"It is covered with {cover}.",
            f"[Its sound is {article(sound)}|It can {sound}].", f"A baby {animal} is called {article(young)}.",
        ]  # fmt: skip
        rng.shuffle(rest)
        text = expand(rng, " ".join([f"{an} is [an animal|an animal].", *rest[: rng.randrange(3, 7)]]))
        return text
    if kind < 0.75:
        return " ".join(
            f"The capital of {country} is {city}." for country, city in rng.sample(CAPITALS, rng.randrange(1, 6))
        )
    if kind < 0.85:
        return " ".join(
            f"The opposite of {word} is {other}." for word, other in rng.sample(OPPOSITES, rng.randrange(1, 6))
        )
    if kind < 0.93:
        return " ".join(
            f"{thing[0].upper()}{thing[1:]} is {colour}." for thing, colour in rng.sample(COLOURS, rng.randrange(2, 6))
        )
    series = rng.choice((DAYS, MONTHS))
    noun = "days of the week" if series is DAYS else "months of the year"
    return f"The {noun} are {', '.join(series[:-1])} and {series[-1]}."
