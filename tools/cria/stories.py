"""Short stories: a hero, a place, a wish or a trouble, a friend who helps, and a quiet end.

Each plot is a list of beats; each beat has several wordings, some beats are optional, and names, animals, places and
things are drawn anew, so that no two stories need be the same while each one hangs together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.cria.documents import article, expand
from tools.cria.words import FOODS, NAMES, PLACES, STORY_ANIMALS, THINGS, TRAITS


@dataclass(frozen=True)
class Story:
    """A finished story and what it is about."""

    text: str
    hero: str
    name: str
    thing: str
    place: str


OPENINGS = (
    "[Once upon a time|Once upon a time|Once upon a time|Once upon a time|Long ago|One day|Once], there was {a_trait} {animal} named {name}. "
    "[{He} lived|{name} lived|{He} had a home] {place}.",
    "[Once upon a time|Once upon a time|Once upon a time|Long, long ago] there [was|lived] {a_trait} {animal} {place}. [{His} name was {name}.|The {animal}'s name was {name}.|Everyone called {him} {name}.]",
    "Once upon a time, [in a small village|in a far land|in a green valley|on a high mountain|near a wide river], {a_trait} {animal} named {name} lived {place}.",
    "{name} was {a_trait} {animal}. {He} lived {place}.",
    "[Once upon a time|Once upon a time|Many years ago], {a_trait} {animal} named {name} lived {place} with {his} [mother|father|family|grandmother|two sisters|little brother].",
    "There was once {a_trait} {animal} who lived {place}. {His} name was {name}.",
)
LIKES = (
    "{name} loved [to run in the grass|to look at the stars|to sing|to eat {food}|to play with {his} friends|to walk by the river|to sleep in the sun|to climb the hills|to ask questions].",
    "Every [morning|day|evening], {he} [ate {food}|went for a walk|sat under a big tree|sang a little song|said hello to the sun|counted the clouds].",
    "{His} best friend was {a_animal2} named {name2}.",
    "{He} had [soft brown|thick white|warm grey|shiny black] [fur|hair] and [big|bright|kind] eyes.",
    "",
    "",
)
ENDINGS = (
    "[From that day on|After that], {name} and {name2} were [best friends|the best of friends|always together].",
    "And they all lived happily ever after.",
    "That night, {name} [slept very well|fell asleep with a smile|dreamed of the stars|was happy and warm].",
    "{name} was [very happy|happy and proud|glad] and [smiled all day|went home singing|hugged {name2}].",
    "And {name} never forgot that day.",
    "[{name} learned that|So {name} knew that|And that is how {name} learned that] {moral}.",
    "The end.",
)

PLOTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "lost",
        (
            "One [day|morning|afternoon], {name} lost {his} [favourite |new |]{thing}. [{He} looked in the grass, but it was not there.|{He} looked under the bed, but it was not there.|{He} looked everywhere, but could not find it.]",
            '{name} [was very sad|began to cry|did not know what to do|sat down and sighed]. ["Where is my {thing}?" {he} asked.|"Oh no, my {thing}!" said {name}.|]',
            '[Then|Soon|After a while], {a_animal2} named {name2} came by. "[Why are you sad|What is wrong|Why do you cry]?" asked {name2}.',
            '"I lost my {thing}," said {name}. "[I will help you|Let us look together|Do not worry, I can help]," said {name2}.',
            "[They looked behind the trees and by the water.|They looked high and low.|Together they walked all the way to the [river|hill|bridge|old tree].|They asked the birds, and the birds pointed to the [river|hill|bridge|barn].]",
            '[At last|Then|Suddenly], {name2} saw [something in the grass|something shiny|something under a bush]. It was the {thing}! "[Here it is|I found it|Look]," {he2} said.',
            '"[Thank you|Thank you so much|Oh, thank you], {name2}!" said {name}[ and gave {him2} a big hug|, jumping up and down| and laughed|].',
        ),
        "[good friends help each other|it is good to ask for help|two can find more than one]",
    ),
    (
        "shy",
        (
            "{name} [had no friends yet|was new and knew nobody|was very shy] and [felt lonely|often played alone|wished for a friend].",
            "One [day|morning], {he} saw {a_animal2} who was [playing with {a_thing}|sitting alone under a tree|eating {food}|looking at the clouds].",
            "{name} wanted to say hello, but {he} was [afraid|too shy|a little scared]. {He} took a deep breath and [walked over|took one step, then another].",
            '"[Hello|Hi], I am {name}," {he} said [softly|in a small voice|quietly]. "[Hello|Hi], {name}! I am {name2}," said the {animal2}. "[Do you want to play|Would you like to play|Shall we play]?"',
            "[They played all day long.|They ran and jumped until the sun went down.|They shared some {food} and told each other stories.|They played with the {thing} and laughed a lot.]",
            '"[I am glad that I said hello|I was so shy, but now I am happy|You are my first friend here]," said {name}.',
        ),
        "[it is good to be brave and say hello|a small hello can make a big friend|a friend may be very near]",
    ),
    (
        "storm",
        (
            "One [night|evening], a [big|great|loud] storm came. The wind [blew|howled] and the rain fell [hard|on the roof|all night].",
            "{name} was [afraid|scared] of the thunder. {He} hid [under the bed|in the hay|behind a big {thing}|under a blanket].",
            'Then {he} heard a small voice outside. "[Help|Please help me], I am [cold|wet|lost]!" It was {a_animal2} named {name2}.',
            '{name} was scared, but {he} [opened the door|ran out into the rain|took a lamp and went out]. "[Come in|Come with me|It is warm inside]," {he} said.',
            "{name} gave {name2} [some warm {food}|a dry blanket|some warm milk] and they sat [close together|by the fire|side by side].",
            "[In the morning, the sun came out and there was a rainbow.|Soon the storm was over and the stars came out.|When the sun came up, the storm was gone.]",
            '"[You are very brave|You saved me|Thank you for being kind]," said {name2}. {name} [smiled|was not afraid anymore|was proud].',
        ),
        "[one can be afraid and brave at once|being kind makes us brave|storms always pass]",
    ),
    (
        "share",
        (
            'One day, {name} found [a big basket of|a whole bag of|some sweet] {food} [under a tree|by the road|near the river]. "[It is all mine|I will eat it all|How lucky I am]!" said {name}.',
            "On the way home, {he} met {a_animal2} named {name2}. {name2} looked [hungry|tired and hungry|thin and sad].",
            '"May I have some {food}?" asked {name2}. ["No," said {name}, and walked on.|{name} thought about it.|At first {name} did not want to share.]',
            "[But {name} felt bad.|But the {food} did not taste good alone.|Then {name} saw how sad {name2} was.] [So {he} turned around and ran back.|So {he} sat down beside {name2}.|So {he} put the basket down.]",
            '"[Here, take half|Please have some|Let us eat together]," said {name}. They [sat in the sun and ate|shared it all|ate until they were full].',
            '"[Thank you, you are kind|This is the best meal ever|You are a good friend]," said {name2}.',
        ),
        "[sharing makes everything taste better|it is better to share|a full heart is better than a full basket]",
    ),
    (
        "race",
        (
            "One day, there was a [big race|great race|running race] [in the village|around the lake|up the hill]. {name} wanted to win [a golden {thing}|the prize|a basket of {food}].",
            '{name2} the {animal2} was [very fast|the fastest of all]. "You are too [small|slow|young] to win," [some animals said|said the others].',
            "{name} [trained every day|got up early to run|practised every morning]. {He} ran [over the hill and back|around the lake|past the old mill], again and again.",
            "On the day of the race, {name2} ran ahead. But then {name2} [fell over a stone|slipped in the mud|hurt {his2} foot] and could not go on.",
            '{name} stopped. "[Are you hurt?|Can I help you?|Lean on me!]" {he} said. {name} helped {name2} to [stand up|walk], and they [walked|went] to the end together.',
            "Everyone [clapped and cheered|was surprised|cheered loudly]. They both got a prize: [a golden {thing}|a basket of {food}|a shiny medal].",
            '"[You are the real winner|You are a true friend|That was very kind]," said {name2}.',
        ),
        "[helping is better than winning|a friend is worth more than a prize]",
    ),
    (
        "moon",
        (
            "{name} had a big wish. {He} wanted to [touch the moon|catch a star|see the sea|fly like a bird|find the end of the rainbow].",
            "[So one night|One morning|So one day], {he} packed {a_thing} and some {food} and [walked up the highest hill|set out on a long trip|went on a journey].",
            'On the way, {he} met {a_animal2}. "[Where are you going|What are you doing here so late]?" asked the {animal2}, whose name was {name2}. "I am following my wish," said {name}.',
            '"[May I come too|Then I will come with you|I know a good path]," said {name2}. [So they went on together.|They walked and talked until it was dark.|They crossed a bridge and a dark forest.]',
            "[At the top|At last], they [sat down to rest|looked up] and saw the [moon|stars|whole valley] [shining in the water|so near and so bright|below them]. It was [beautiful|the most beautiful thing of all].",
            '"[It is even better than my wish|I did not get my wish, but I got a friend|This is enough for me]," said {name}. They [ate the {food}|shared the {food}] and [went home|watched until morning].',
        ),
        "[the way can be better than the wish|some wishes come true in a different way|it is good to dream]",
    ),
    (
        "bake",
        (
            "It was [{name2}'s birthday|the birthday of {name2} the {animal2}]. {name} wanted to [make|bake] a cake with {food}.",
            "{He} put [flour, milk and eggs|butter, sugar and eggs] in a bowl and mixed [and mixed|it well]. But [the cake fell on the floor|the cake was too hot and it burned|the bowl fell down and broke]!",
            '"Oh no," said {name}. "[Now I have no cake|What can I do now|The party is today]!"',
            "{name} thought and thought. Then {he} had an idea. {He} [took {a_thing} and put flowers on it|made a little hat out of paper|wrote a song about friendship|painted a picture of {name2}].",
            'At the party, {name} said, "[I am sorry, I have no cake|The cake is gone], but I made this for you."',
            '{name2} [laughed|smiled|was so happy]. "[This is the best gift|I like this more than any cake|You made this for me? Thank you]," said {name2}.',
        ),
        "[the best gifts come from the heart|a gift made with love is the best gift]",
    ),
    (
        "map",
        (
            "One day, {name} found an old map [in a bottle|under a stone|inside {a_thing}|in a box]. It showed the way to a treasure!",
            '{name} showed it to {his} friend {name2} the {animal2}. "[Let us find it!|Shall we go?|What an adventure!]" {he} said.',
            "They [crossed the river|climbed over a wall|walked through the forest] and [followed the path|counted ten steps|turned left at the old tree].",
            "There, they began to dig. [They dug and dug.|It was hard work.|The sun was hot and they were tired.] Then they hit something hard. It was a [wooden|small|heavy|green] box!",
            'Inside there [was|was only] {a_thing} and a letter. The letter said: "[The real treasure is the friend beside you|Share this with a friend|Well done, brave friends]."',
            "{name} and {name2} looked at each other and [laughed|smiled]. They [took the {thing} home|shared some {food} and went home|hid the box again for the next friends].",
        ),
        "[friends are the best treasure|a treasure is best when it is shared]",
    ),
    (
        "garden",
        (
            'One spring, {name} planted a small seed [behind the house|in the garden|by the gate]. "[Grow, little seed!|I will take care of you!|What will you be?]" {he} said.',
            'Every day {name} [gave it water|sang to it|looked at it]. But nothing happened. ["It does not grow," said {name} sadly.|{name} began to lose hope.|Days went by.]',
            '{name2} the {animal2} said, "[Wait a little|Be patient|Good things take time]. [Seeds need sun, water and time.|It is sleeping in the warm ground.|Do not give up.]"',
            "So {name} waited. [It rained, and the sun came back.|One week went by, and then another.|The days grew longer and warmer.]",
            "One morning, there was a [tiny green leaf|small green shoot]! It grew and grew until it was [a tall sunflower|a tree with sweet apples|a bush full of red berries|the biggest pumpkin of all].",
            "{name} and {name2} [danced around it|sat in its shade|were so proud|shared what it gave them].",
        ),
        "[good things take time|waiting can be worth it|care makes things grow]",
    ),
    (
        "sick",
        (
            "One day, {name2} the {animal2} was [sick|ill] and had to stay in bed. {name} wanted to [help|make {him2} feel better].",
            "First, {name} brought [some {food}|a bowl of soup|warm tea]. Then {he} [told a funny story|sang a song|read a book].",
            '"[I am still tired|My head hurts|I cannot get up]," said {name2}. "[Then I will stay with you|Rest now, I am here|Sleep a little]," said {name}.',
            "{name} sat by the bed all [day|night]. Outside, [the rain fell softly|the stars came out|the birds were singing].",
            'The next morning, {name2} [opened {his2} eyes|woke up] and [felt much better|was well again]. "[You stayed|You are still here]!" said {name2}.',
            '[They went out to play with {a_thing}.|They had {food} for breakfast.|They walked to the river together.] "[Friends take care of each other|That is what friends do]," said {name}.',
        ),
        "[caring for a friend is a great gift|friends take care of each other]",
    ),
    (
        "lie",
        (
            "One day, {name} broke {his} mother's {thing}. It was an accident, but {name} was afraid to [tell|say so].",
            '"Who broke the {thing}?" asked {his} mother. "It was {name2}," said {name}. [That was not true.|It was a lie.]',
            '{name2} the {animal2} was [sad|very sad]. "I did not do it," {he2} said. {name} felt [bad|a stone in {his} belly|very sorry].',
            "That night {name} could not sleep. [{He} turned and turned.|{He} thought of {name2}.|{He} looked at the moon.] In the morning, {he} went to {his} mother.",
            '"[I broke it. I am sorry|It was me, and I lied|I did it. Please forgive me]," said {name}. {His} mother [hugged {him}|smiled]. "[Thank you for telling the truth|It was brave to tell the truth]," she said.',
            'Then {name} went to {name2} and said sorry. {name2} [forgave {him}|smiled and said, "It is all right"]. Together they [fixed the {thing}|made a new one|played until evening].',
        ),
        "[it is best to tell the truth|the truth makes the heart light]",
    ),
    (
        "wool",
        (
            "Winter came, and it was very cold {place}. {name} had [thick, warm wool|a lot of soft wool|a warm coat], but {name2} the {animal2} was [freezing|shaking with cold].",
            '"[I am so cold|Brr, how cold it is|My ears are like ice]," said {name2}. {name} [thought for a while|wanted to help|had an idea].',
            '{name} [went to the old woman in the village|asked the farmer for help|visited {his} grandmother]. "Please make [a scarf|a hat|a blanket] from my wool," {he} said.',
            "She [worked all night|smiled and got to work|took the wool and sang while she worked]. In the morning, there was a [red|blue|green|yellow] [scarf|hat|blanket], soft and warm.",
            '{name} gave it to {name2}. "[For me? It is so warm|Now I am not cold anymore|It is the best gift ever]!" said {name2}.',
            "They [played in the snow|made a snowman with {a_thing}|drank warm milk] [all day|until it was dark].",
        ),
        "[what we give away keeps us warm|a kind heart is the warmest coat]",
    ),
    (
        "night",
        (
            "{name} could not sleep. [The night was dark and quiet.|There was a strange sound outside.|{He} was afraid of the dark.]",
            '"[Who is there|What is that sound|Is somebody there]?" {he} whispered. [Tap, tap, tap!|Hoo, hoo!|Crack!] [went something at the window|came the answer from outside].',
            '{name} took {his} {thing} and went to look. It was only {a_animal2}! "[Sorry|Do not be afraid], I am {name2}," said the {animal2}. "[I cannot sleep either|I was looking for {food}|I like the night]."',
            '"[Come, I will show you the night|The night is not bad|Look up]," said {name2}. They [sat on the roof|lay in the grass|walked to the lake] and [counted the stars|listened to the frogs|watched the moon].',
            '"[It is beautiful|The dark is not so bad|I did not know the night was so pretty]," said {name}. [Soon {he} began to yawn.|{His} eyes grew heavy.]',
            "{name} went back to bed and [was not afraid anymore|slept until the sun came up].",
        ),
        "[the dark is full of beautiful things|what we know, we need not fear]",
    ),
    (
        "music",
        (
            "{name} wanted to [make music|play in the band|sing at the summer party]. But {he} had no [drum|flute|fiddle], only {a_thing}.",
            '"That is not music," said [the others|a proud bird|the rooster]. {name} was [sad|hurt], but {he} did not stop.',
            "{He} [tapped on the {thing}|hummed a tune and tapped {his} feet] every day. [Tap, tap, boom!|La, la, la!|Ding, dong, ding!] [It sounded better and better.|Soon the birds were listening.]",
            'One day, {name2} the {animal2} [heard it|stopped to listen]. "[What a lovely song?|That sounds wonderful!|Can I sing with you?]" said {name2}.',
            "At the party, {name} and {name2} played together. Everybody [danced|began to dance|clapped and sang], even [the proud bird|the rooster|the old farmer].",
            '"[Play it again|One more song|That was real music]!" they [called|said]. {name} [bowed|smiled from ear to ear].',
        ),
        "[one can make music with anything|it is good to keep trying]",
    ),
)


def _pronouns(rng: random.Random) -> tuple[str, str, str]:
    return rng.choice((("he", "him", "his"), ("she", "her", "her")))


def make_story(
    rng: random.Random,
    *,
    animal: str | None = None,
    name: str | None = None,
    thing: str | None = None,
    short: bool = False,
) -> Story:
    """A story of 60 to 250 words about the given hero, or one drawn at random (often a llama)."""
    animal = animal or ("llama" if rng.random() < 0.3 else rng.choice(STORY_ANIMALS))
    name = name or rng.choice(NAMES)
    thing = thing or rng.choice(THINGS)
    animal2 = rng.choice([other for other in STORY_ANIMALS if other != animal])
    name2 = rng.choice([other for other in NAMES if other != name])
    he, him, his = _pronouns(rng)
    he2, him2, his2 = _pronouns(rng)
    place = rng.choice(PLACES)
    slots = {
        "name": name, "name2": name2, "animal": animal, "animal2": animal2, "a_animal2": article(animal2),
        "a_trait": article(rng.choice(TRAITS)), "thing": thing, "a_thing": article(thing), "food": rng.choice(FOODS),
        "place": place, "he": he, "him": him, "his": his, "He": he.capitalize(), "His": his.capitalize(),
        "he2": he2, "him2": him2, "his2": his2,
    }  # fmt: skip
    _, beats, moral = rng.choice(PLOTS)
    slots["moral"] = expand(rng, moral, slots)
    first = [expand(rng, rng.choice(OPENINGS), slots)]
    first += [expand(rng, like, slots) for like in rng.sample(LIKES, rng.choice((1, 1, 2))) if like]
    if short:
        beats = (beats[0], *sorted(rng.sample(beats[1:-1], 2), key=beats.index), beats[-1])
    body = [_mended(expand(rng, beat, slots)) for beat in beats]
    end = [expand(rng, ending, slots) for ending in _endings(rng)]
    if rng.random() < 0.5:
        half = len(body) // 2
        paragraphs = [" ".join(first), " ".join(body[:half]), " ".join(body[half:] + end)]
        text = "\n\n".join(paragraphs)
    else:
        text = " ".join(first + body + end)
    return Story(text.replace("  ", " ").strip(), animal, name, thing, place)


def _endings(rng: random.Random) -> list[str]:
    chosen = rng.sample(range(len(ENDINGS)), rng.choice((1, 2, 2)))
    return [ENDINGS[index] for index in sorted(chosen)]


def _mended(text: str) -> str:
    """A quotation ending in `?`/`,` that the drawn punctuation made wrong, put right."""
    return text.strip()
