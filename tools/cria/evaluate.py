"""Score the exported model on held-out questions, through llama.cpp, and write the scores into the model card.

Each question is asked alone (with the tools it needs) by the chat template of the GGUF and answered greedily; a question
counts only if the answer is right as the category demands: see `right`. Stories are judged by whether they end by
themselves and keep their hero.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import llama_cpp

from tools.cria.corpus import MAKERS, held_out_exchanges
from tools.cria.documents import BEGIN, END_OF_TEXT, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Exchange
from tools.cria.world import CAPITALS

CARD_BEGIN, CARD_END = "<!-- scores: begin -->", "<!-- scores: end -->"


class Reader:
    """The model behind llama-cpp-python's high-level class, one completion at a time."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False, logits_all=False
        )
        source = self.llama.metadata["tokenizer.chat_template"]
        environment = jinja2.Environment(
            trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
        )
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.template = environment.from_string(source)

    def complete(self, prompt: str, limit: int = 200, temperature: float = 0.0, seed: int = 0) -> tuple[str, str]:
        """The completion and its finish reason ("stop" or "length"). Special tokens in the prompt are parsed."""
        tokens = self.llama.tokenize(prompt.encode(), add_bos=not prompt.startswith(BEGIN), special=True)
        result: Any = self.llama.create_completion(
            tokens,
            max_tokens=limit,
            temperature=temperature,
            seed=seed,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            repeat_penalty=1.0,
        )
        choice = result["choices"][0]
        return choice["text"], choice["finish_reason"]

    def chat(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **options: Any) -> str:
        """The assistant's next turn as text."""
        prompt = self.template.render(
            messages=messages, tools=tools, add_generation_prompt=True, bos_token=BEGIN, eos_token=END_OF_TEXT
        )
        return self.complete(prompt, **options)[0].strip()


def tool_calls(text: str) -> list[Any]:
    """The calls in a reply; one that is not JSON is None."""
    calls: list[Any] = []
    for body in re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL):
        try:
            calls.append(json.loads(body))
        except ValueError:
            calls.append(None)
    return calls


def right(exchange: Exchange, reply: str) -> bool:
    """Whether the reply is a correct answer.

    exact: the reply is the expected text. contains: the expected phrase stands in it as whole words. members: as many
    different words as asked, each from the group. tool_call: exactly the expected call, with equal JSON arguments.
    """
    if exchange.check == "exact":
        return reply == exchange.gold
    if exchange.check == "tool_call":
        return tool_calls(reply) == [json.loads(exchange.gold)]
    if exchange.check == "members":
        count, members = exchange.gold.split(":")
        words = [word.strip(" .") for word in re.split(r", | and |\n?\d+\. ", reply) if word.strip(" .")]
        return len(words) == int(count) == len(set(words)) and set(words) <= set(members.split(","))
    return any(re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", reply) for gold in exchange.gold.split("|"))


@dataclass
class Score:
    """Right answers out of those asked."""

    category: str
    right: int = 0
    asked: int = 0

    @property
    def percent(self) -> float:
        return 100 * self.right / self.asked


def ask(reader: Reader, exchange: Exchange) -> str:
    """The model's reply to the question of an exchange."""
    tools = [tool.schema() for tool in exchange.tools] or None
    return reader.chat([{"role": "user", "content": exchange.question}], tools)


def answer_after_tool(reader: Reader, exchange: Exchange) -> str:
    """The model's final answer once the expected tool call has been made and its result is there."""
    calls = [
        {"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in exchange.calls
    ]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": exchange.question}, {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": exchange.results[0]},
    ]  # fmt: skip
    return reader.chat(messages, [tool.schema() for tool in exchange.tools])


def evaluate(reader: Reader, count: int, show_wrong: int = 0) -> list[Score]:
    """Scores by category, with the parts of a category that differ much listed apart."""
    scores: dict[str, Score] = {}

    def note(name: str, ok: bool) -> None:
        score = scores.setdefault(name, Score(name))
        score.asked += 1
        score.right += ok

    for category in MAKERS:
        shown = 0
        for exchange in held_out_exchanges(category, count):
            reply = ask(reader, exchange)
            ok = right(exchange, reply)
            if not ok and shown < show_wrong:
                print(f"  [{category}] {exchange.question!r}: {reply!r}, expected {exchange.gold!r}")
                shown += 1
            note(category, ok)
            if category == "arithmetic":
                note(f"arithmetic: {exchange.key.split('/')[0]}", ok)
            if category == "reversing":
                note("reversing: spelling" if exchange.key.startswith("spell") else "reversing: lists", ok)
            if category == "tools":
                final = answer_after_tool(reader, exchange)
                note("tools: answer from the result", final == exchange.answer)
    for (country, city), (other, other_city) in zip(CAPITALS, CAPITALS[1:] + CAPITALS[:1], strict=True):
        lead, rest = f"The capital of {country} is", f". The capital of {other} is {other_city}."
        text, reason = reader.complete(f"{BEGIN}{FIM_PREFIX}{lead}{FIM_SUFFIX}{rest}{FIM_MIDDLE}", limit=60)
        note("fill-in: a capital, and nothing more (not held out)", reason == "stop" and text == f" {city}")
    for seed in range(20):
        text, reason = reader.complete("Once upon a time", limit=500, temperature=0.8, seed=seed)
        name = re.search(r"named (\w+)|name was (\w+)|called (?:him|her) (\w+)", text)
        hero = next((group for group in name.groups() if group), "") if name else ""
        note("stories: end by themselves (20 at temperature 0.8)", reason == "stop")
        note("stories: name their hero and come back to it at the end", bool(hero) and hero in text[-len(text) // 3 :])
    return [scores[name] for name in sorted(scores)]


SAMPLES = (
    [
        "Hello!",
        "Who are you?",
        "What can you do?",
        "My name is Greta.",
        "What is 7 + 8?",
        "What is the capital of Peru?",
        "What is my name?",
        "Thanks, bye!",
    ],
    [
        "Tell me a story about a fox named Nora",
        "Tell me a joke",
        "Reverse this list: sun, moon, star",
        "What is quantum mechanics?",
        "I am sad",
    ],
)


def samples(reader: Reader) -> str:
    """Two short conversations at temperature 0.7 and a story at 0.8, as Markdown."""
    parts: list[str] = []
    for number, questions in enumerate(SAMPLES):
        messages: list[dict[str, Any]] = []
        lines: list[str] = []
        for question in questions:
            messages.append({"role": "user", "content": question})
            reply = reader.chat(messages, limit=400, temperature=0.7, seed=7 + number)
            messages.append({"role": "assistant", "content": reply})
            lines += [f"> {question}", reply, ""]
        parts.append("```text\n" + "\n".join(lines).rstrip() + "\n```")
    story, _ = reader.complete("Once upon a time", limit=500, temperature=0.8, seed=random.Random(7).randrange(1000))
    parts.append("```text\nOnce upon a time" + story + "\n```")
    return "\n\n".join(parts)


def table(scores: list[Score]) -> str:
    """The scores as a Markdown table."""
    rows = [f"| {score.category} | {score.right} / {score.asked} | {score.percent:.0f} % |" for score in scores]
    return "\n".join(["| held-out questions | right | |", "|---|---|---|", *rows])


def main() -> None:
    """Evaluate, print, and write the card if one is named."""
    parser = argparse.ArgumentParser(prog="python -m tools.cria.evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="the GGUF file")
    parser.add_argument("--count", type=int, default=100, help="held-out questions for each category")
    parser.add_argument("--show-wrong", type=int, default=0, help="print so many wrong answers of each category")
    parser.add_argument("--card", type=Path, help="model card whose part between the score marks is replaced")
    options = parser.parse_args()
    began = time.monotonic()
    reader = Reader(options.model)
    text = f"{table(evaluate(reader, options.count, options.show_wrong))}\n\nSamples, not chosen:\n\n{samples(reader)}"
    print(text)
    print(f"{time.monotonic() - began:.0f} s")
    if options.card:
        card = options.card.read_text(encoding="utf-8")
        before, after = card.split(CARD_BEGIN)[0], card.split(CARD_END)[1]
        options.card.write_text(f"{before}{CARD_BEGIN}\n{text}\n{CARD_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
