"""Word lists that the stories, lists and tool calls draw from."""

from __future__ import annotations

NAMES = (
    "Pia Tom Lila Max Rosa Ben Mia Otto Nina Leo Ada Finn Zoe Sam Lulu Hugo Ella Kai Ivy Oscar Maya Paco Luna Felix Coco "
    "Bella Tito Ruby Milo Clara Jack Dora Nico Emma Rex Wanda Bruno Olga Pepe Suki Anna Theo Greta Carl Vera Lars Kira Noah "
    "Dolly Fred Alma Gus Hana Igor Juno Kiki Lou Mona Ned Pablo Rita Stella Toby Uma Vito Willa Yuri Zara Amos Betty Cleo "
    "Dario Edith Fay Grace Henry Iris Jonas Kurt Lena Marco Nora Olive Peter Quinn Rosie Simon Tess Ursula Victor Wendy"
).split()
STORY_ANIMALS = (
    "llama alpaca rabbit fox bear mouse owl goat sheep duck frog hedgehog cat dog horse squirrel turtle pony donkey deer "
    "badger hen lamb otter mole beaver"
).split()
TRAITS = (
    "little small young brave curious shy kind clever funny sleepy old happy quiet proud lazy gentle hungry cheerful "
    "playful tiny friendly careful"
).split()
PLACES = (
    "on a farm;in a green valley;near a blue lake;by the river;on a high mountain;at the edge of the forest;in a small village;"
    "in an old barn;near the sea;on a hill;in a little red house;under a big oak tree;in a quiet meadow;behind the mill;"
    "in a warm cave;next to a windmill;on a small island;in a big garden;at the foot of the mountains;beside a long road"
).split(";")
THINGS = (
    "ball hat bell key book lamp blanket scarf drum kite basket cup spoon box boat coin ring bag button mirror pillow "
    "flute shoe clock broom bucket rope wagon whistle feather stone shell candle map umbrella"
).split()
FOODS = (
    "apples carrots berries bread hay cheese honey nuts corn pears cookies plums pancakes soup grass oats cherries beans "
    "porridge grapes"
).split()

GROUPS: dict[str, list[str]] = {
    "fruit": "apple pear plum banana orange cherry grape lemon peach mango melon kiwi fig strawberry pineapple".split(),
    "vegetable": "carrot potato onion tomato pea bean cabbage spinach pepper corn pumpkin lettuce cucumber leek".split(),
    "animal": "llama cat dog horse cow sheep goat fox bear mouse owl frog duck rabbit lion tiger elephant monkey".split(),
    "bird": "owl duck hen goose swan eagle parrot crow sparrow robin penguin stork pigeon".split(),
    "colour": "red blue green yellow white black brown pink purple orange grey".split(),
    "tool": "hammer saw drill spade rake wrench axe ladder brush".split(),
    "drink": "water milk tea coffee juice lemonade cocoa".split(),
    "instrument": "drum flute piano guitar violin trumpet harp bell".split(),
    "vehicle": "car bus train bike boat plane truck tram ship".split(),
    "body part": "head hand foot arm leg nose ear eye mouth knee".split(),
    "piece of clothing": "hat shirt shoe scarf coat sock glove dress sweater".split(),
    "flower": "rose tulip daisy lily sunflower violet poppy".split(),
    "tree": "oak pine birch maple willow elm beech".split(),
    "piece of furniture": "table chair bed sofa desk shelf cupboard lamp".split(),
    "sport": "football tennis swimming running hockey basketball skiing".split(),
    "insect": "ant bee fly beetle butterfly moth wasp grasshopper".split(),
    "shape": "circle square triangle star oval rectangle".split(),
    "season": "spring summer autumn winter".split(),
}
PLURALS = {
    "colour": "colours", "fruit": "fruits", "body part": "parts of the body", "piece of clothing": "pieces of clothing",
    "piece of furniture": "pieces of furniture",
}  # fmt: skip


def plural(group: str) -> str:
    """The plural of a group's name."""
    return PLURALS.get(group, group + "s")


PLAIN_WORDS = sorted(
    {word for words in GROUPS.values() for word in words}
    | set(THINGS)
    | set(
        "sun moon star rain snow wind river house door window tree hill road bridge garden farm friend baby mother father king "
        "queen story song game cake egg night day morning happy big small warm cold soft green quick slow jump run sing sleep "
        "walk play read write open close train paper pencil school fish sand sea leaf seed field cloud storm".split()
    )
)
CITIES = (
    "Paris London Rome Berlin Madrid Vienna Oslo Tokyo Lima Cairo Athens Dublin Lisbon Prague Warsaw Delhi Sydney Boston "
    "Chicago Toronto Moscow Helsinki Geneva Zurich Hamburg Munich Naples Milan Seoul Bangkok Havana Quito Cusco Bogota "
    "Nairobi Denver Seattle Austin Miami Dallas Venice Porto Lyon Basel Bremen Krakow Riga Tallinn Kyoto Osaka Perth"
).split()
EMOJI = ("🦙", "🙂", "🌙", "☀️", "🌧️", "⭐", "🎉", "❤️", "🌱", "😄", "👋", "🐑")
