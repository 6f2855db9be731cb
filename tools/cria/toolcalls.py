"""Tool use: which tool to call with which arguments, and what to say when its result has come back."""

from __future__ import annotations

import json
import random
from typing import Any

from tools.cria.documents import Exchange, Tool, expand
from tools.cria.words import CITIES, FOODS, NAMES, STORY_ANIMALS, THINGS

TEXT, WHOLE, NUMBER = "string", "integer", "number"

WEATHER = Tool("get_weather", "Get the current weather in a city.", (("city", TEXT),))
ADD = Tool("add", "Add two numbers.", (("a", NUMBER), ("b", NUMBER)))
MULTIPLY = Tool("multiply", "Multiply two numbers.", (("a", NUMBER), ("b", NUMBER)))
SEARCH = Tool("search", "Search the web.", (("query", TEXT),))
TIMER = Tool("set_timer", "Set a timer.", (("minutes", WHOLE),))
TIME = Tool("get_time", "Get the current time in a city.", (("city", TEXT),))
MESSAGE = Tool("send_message", "Send a message to a person.", (("to", TEXT), ("text", TEXT)))
DICE = Tool("roll_dice", "Roll a dice.", (("sides", WHOLE),))
MUSIC = Tool("play_music", "Play a song.", (("song", TEXT),))
FEED = Tool("feed_animal", "Give food to an animal.", (("animal", TEXT), ("food", TEXT)))
NOTE = Tool("add_note", "Write a note.", (("text", TEXT),))
LIGHT = Tool("set_light", "Turn a light on or off.", (("room", TEXT), ("state", TEXT)))
TOOLS = (WEATHER, ADD, MULTIPLY, SEARCH, TIMER, TIME, MESSAGE, DICE, MUSIC, FEED, NOTE, LIGHT)

_DESCRIPTIONS = {
    "get_weather": ("Get the current weather in a city.", "Get the weather for a city", "Current weather", "Weather of a place.", "Returns the weather in a city."),
    "add": ("Add two numbers.", "Adds a and b", "Sum of two numbers", "Return a + b."),
    "multiply": ("Multiply two numbers.", "Multiplies a and b", "Product of two numbers"),
    "search": ("Search the web.", "Search for something", "Look something up", "Finds pages about a query."),
    "set_timer": ("Set a timer.", "Starts a timer", "Set a timer for some minutes"),
    "get_time": ("Get the current time in a city.", "Current time", "Tells the time in a place."),
    "send_message": ("Send a message to a person.", "Sends a text message", "Write to somebody"),
}  # fmt: skip
_SKY = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "stormy", "clear")
_ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "garage", "garden", "office")
_SONGS = (
    "Happy Llama",
    "Blue Moon",
    "The River",
    "Morning Sun",
    "Snow Song",
    "Green Hills",
    "Little Star",
    "Red Barn",
    "Rain Dance",
    "Old Road",
)
_TOPICS = (
    "llama wool;how to bake bread;old castles;tall mountains;train times;apple cake;the history of tea;good books;wild horses;sheep dogs;solar panels;"
    "deep sea fish;paper boats;garden flowers;winter coats;fast cars;chess rules;space rockets;piano lessons;wooden toys;the price of hay;"
    "cheap hotels;new films;python programming;how to knit a scarf;moon landing;volcanoes;electric bikes;guitar chords;healthy soups"
).split(";")
_TEXTS = (
    "I am late;dinner is ready;see you soon;happy birthday;call me back;the train is here;good night;I am at home;thank you;bring some milk;"
    "the llama is well;we won the game;meet me at the barn;I love you;it is raining;the cake is done"
).split(";")
_NOTES = (
    "buy milk",
    "feed the llama",
    "call the vet",
    "water the plants",
    "read a book",
    "clean the barn",
    "pay the bill",
    "write to mother",
    "buy bread and cheese",
    "fix the gate",
)
_SYLLABLES = "ba ka lo mi ra to vi ne su do fa gi po ri ta zu le mo na wi".split()

Case = tuple[str, dict[str, Any], str, str]  # question, arguments, result, answer


def _city(rng: random.Random) -> str:
    if rng.random() < 0.3:  # an invented name teaches copying rather than reciting
        return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randrange(2, 4))).capitalize()
    return rng.choice(CITIES)


def _result(rng: random.Random, values: dict[str, Any], plain: str) -> str:
    return json.dumps(values, ensure_ascii=False) if rng.random() < 0.6 else plain


def _case(rng: random.Random, tool: Tool) -> Case:
    """A request for one tool: the question, the arguments, a result and the final answer."""
    if tool is WEATHER:
        city, degrees, sky = _city(rng), rng.randrange(-9, 39), rng.choice(_SKY)
        question = "[What is the weather in {c}?|What's the weather like in {c}?|How is the weather in {c} today?|Is it raining in {c}?|Weather in {c}, please.|Tell me the weather in {c}.|Can you check the weather in {c}?|Will I need a coat in {c}?|Is it cold in {c}?]"
        values = rng.choice(
            (
                {"temperature": degrees, "sky": sky},
                {"sky": sky, "temperature": degrees},
                {"city": city, "temperature": degrees, "sky": sky},
            )
        )
        plain = rng.choice((f"{sky}, {degrees} degrees", f"{degrees} degrees and {sky}"))
        return (
            question.replace("{c}", city),
            {"city": city},
            _result(rng, values, plain),
            f"It is {sky} in {city}, with {degrees} degrees.",
        )
    if tool is TIME:
        city, clock = _city(rng), f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
        question = "[What time is it in {c}?|What is the time in {c}?|Tell me the time in {c}.|How late is it in {c}?|Current time in {c}?|Do you know what time it is in {c}?]"
        return (
            question.replace("{c}", city),
            {"city": city},
            _result(rng, {"time": clock}, clock),
            f"It is {clock} in {city}.",
        )
    if tool in (ADD, MULTIPLY):
        a, b = rng.randrange(1, rng.choice((20, 100, 1000))), rng.randrange(1, rng.choice((20, 100, 1000)))
        total = a + b if tool is ADD else a * b
        sign, word = ("+", "plus") if tool is ADD else ("x", "times")
        extra = (
            f"|Add {a} and {b}.|What is the sum of {a} and {b}?"
            if tool is ADD
            else f"|Multiply {a} by {b}.|What is the product of {a} and {b}?"
        )
        question = (
            f"[What is {a} {sign} {b}?|How much is {a} {word} {b}?|Calculate {a} {sign} {b}.|{a} {sign} {b}{extra}]"
        )
        return question, {"a": a, "b": b}, _result(rng, {"result": total}, str(total)), f"{a} {sign} {b} = {total}"
    if tool is SEARCH:
        topic = rng.choice(_TOPICS) if rng.random() < 0.6 else f"{rng.choice(STORY_ANIMALS)} {rng.choice(THINGS)}"
        found = f"{rng.randrange(2, 99)} pages about {topic}"
        question = f"[Search for {topic}.|Look up {topic}.|Find something about {topic}.|Search the web for {topic}.|Can you search for {topic}?|Please look up {topic}.|Find me {topic}.]"
        return question, {"query": topic}, _result(rng, {"result": found}, found), f"I found {found}."
    if tool is TIMER:
        minutes = rng.randrange(1, 91)
        question = f"[Set a timer for {minutes} minutes.|Timer for {minutes} minutes, please.|Please set a timer for {minutes} minutes.|Start a timer of {minutes} minutes.|Wake me in {minutes} minutes.|Remind me in {minutes} minutes.]"
        return (
            question,
            {"minutes": minutes},
            _result(rng, {"status": "ok"}, "ok"),
            f"The timer is set for {minutes} minutes.",
        )
    if tool is MESSAGE:
        name, text = rng.choice(NAMES), rng.choice(_TEXTS)
        question = f'[Tell {name}: {text}.|Send {name} a message: {text}.|Write to {name}: {text}.|Message {name}: {text}.|Send "{text}" to {name}.]'
        return (
            question,
            {"to": name, "text": text},
            _result(rng, {"status": "sent"}, "sent"),
            f"I sent your message to {name}.",
        )
    if tool is DICE:
        sides = rng.choice((4, 6, 6, 8, 10, 12, 20))
        value = rng.randrange(1, sides + 1)
        question = f"[Roll a dice with {sides} sides.|Roll a {sides} sided dice.|Please throw a dice with {sides} sides.|Throw a {sides} sided dice.]"
        return question, {"sides": sides}, _result(rng, {"value": value}, str(value)), f"You rolled a {value}."
    if tool is MUSIC:
        song = rng.choice(_SONGS)
        question = (
            f"[Play {song}.|Play the song {song}.|I want to hear {song}.|Please play {song}.|Can you play {song}?]"
        )
        return question, {"song": song}, _result(rng, {"status": "playing"}, "playing"), f"Now playing {song}."
    if tool is FEED:
        animal, food = rng.choice(STORY_ANIMALS), rng.choice(FOODS)
        question = f"[Feed the {animal} some {food}.|Give {food} to the {animal}.|Please give the {animal} some {food}.|The {animal} wants {food}.]"
        return (
            question,
            {"animal": animal, "food": food},
            _result(rng, {"status": "ok"}, "done"),
            f"The {animal} got some {food}.",
        )
    if tool is NOTE:
        text = rng.choice(_NOTES)
        question = (
            f"[Note: {text}.|Write a note: {text}.|Add a note: {text}.|Make a note to {text}.|Note down: {text}.]"
        )
        return question, {"text": text}, _result(rng, {"status": "saved"}, "saved"), f"I wrote the note: {text}."
    room, state = rng.choice(_ROOMS), rng.choice(("on", "off"))
    question = f"[Turn {state} the light in the {room}.|Turn the {room} light {state}.|Light {state} in the {room}, please.|Switch {state} the light in the {room}.|Switch the {room} light {state}.]"
    return (
        question,
        {"room": room, "state": state},
        _result(rng, {"status": state}, "ok"),
        f"The light in the {room} is {state}.",
    )


def tool_set(rng: random.Random, needed: Tool | None = None) -> tuple[Tool, ...]:
    """One to four tools in random order, `needed` among them, with descriptions in varied words."""
    others = [tool for tool in TOOLS if tool is not needed]
    chosen = rng.sample(others, rng.choice((0, 0, 1, 2, 3)) if needed else rng.choice((1, 2, 3)))
    if needed:
        chosen.append(needed)
    rng.shuffle(chosen)
    return tuple(
        Tool(tool.name, rng.choice(_DESCRIPTIONS.get(tool.name, (tool.description,))), tool.parameters)
        for tool in chosen
    )


def make_call(rng: random.Random, tools: tuple[Tool, ...] | None = None) -> Exchange:
    """A request that needs a tool: the call, its result, and the final answer. Sometimes two calls at once."""
    name = rng.choice(tools).name if tools else rng.choice((WEATHER, WEATHER, ADD, SEARCH, TIMER, TIME, *TOOLS)).name
    tool = next(known for known in TOOLS if known.name == name)
    tools = tools or tool_set(rng, tool)
    question, arguments, result, answer = _case(rng, tool)
    question = expand(rng, question)
    gold = json.dumps({"name": tool.name, "arguments": arguments}, ensure_ascii=False, sort_keys=True)
    key = f"tool/{gold}"
    if tool in (WEATHER, TIME) and rng.random() < 0.1:
        _, more, result2, answer2 = _case(rng, tool)
        if more != arguments:
            cities = f"{arguments['city']} and {more['city']}"
            question = expand(
                rng,
                f"[What is the weather in {cities}?|How is the weather in {cities}?]"
                if tool is WEATHER
                else f"What time is it in {cities}?",
            )
            calls = ((tool.name, arguments), (tool.name, more))
            return Exchange(
                "tools",
                question,
                f"{answer} {answer2}",
                f"{key}/{cities}",
                gold,
                "tool_call",
                tools,
                calls,
                (result, result2),
            )
    return Exchange("tools", question, answer, key, gold, "tool_call", tools, ((tool.name, arguments),), (result,))
