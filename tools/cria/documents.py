"""Values the corpus is made of: exchanges, documents, their rendering, and the split that holds questions out.

A document is a tuple of segments `(text, trained)`: the loss counts only where `trained` is true, so the model learns to
write what an assistant says and never what a user or a tool says. Segment borders stand only beside a special token or a
newline (always a token of its own), hence tokenizing the segments one by one equals tokenizing their concatenation.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal

BEGIN = "<s>"
END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
FIM_PREFIX = "<|fim_prefix|>"
FIM_SUFFIX = "<|fim_suffix|>"
FIM_MIDDLE = "<|fim_middle|>"
TOOL_CALL_OPEN = "<tool_call>"
TOOL_CALL_CLOSE = "</tool_call>"
TOOLS_HEADING = "You can call these tools:"

HELD_OUT_ONE_IN = 12

Segment = tuple[str, bool]
Check = Literal["exact", "contains", "members", "tool_call"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. `calls` are tool calls `(name, arguments)` of the assistant."""

    role: Literal["user", "assistant", "tool"]
    content: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(frozen=True)
class Tool:
    """A function offered to the model: parameters are `(name, JSON type)` pairs."""

    name: str
    description: str
    parameters: tuple[tuple[str, str], ...]

    def schema(self) -> dict[str, Any]:
        """The tool as the OpenAI-style object that chat templates receive."""
        properties = {name: {"type": kind} for name, kind in self.parameters}
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {"type": "object", "properties": properties, "required": list(properties)},
            },
        }

    def line(self) -> str:
        """The one line that the chat template prints for this tool."""
        parameters = ", ".join(f"{name}: {kind}" for name, kind in self.parameters)
        return f"{self.name}({parameters}) - {self.description}"


@dataclass(frozen=True)
class Exchange:
    """A question with its answer. `key` names what is asked and decides whether it is held out of training.

    `gold` is what the evaluation looks for: the whole answer ("exact"), a word or phrase in it ("contains"), a count and
    a set of permitted members ("members": "3:apple,pear,plum"), or a JSON tool call ("tool_call").
    """

    category: str
    question: str
    answer: str
    key: str
    gold: str
    check: Check = "contains"
    tools: tuple[Tool, ...] = ()
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    results: tuple[str, ...] = field(default=())

    def turns(self) -> list[Turn]:
        """The messages of this exchange, with the tool call and its result where there is one."""
        turns = [Turn("user", self.question)]
        if self.calls:
            turns.append(Turn("assistant", "", self.calls))
            turns += [Turn("tool", result) for result in self.results]
        turns.append(Turn("assistant", self.answer))
        return turns


def held_out(key: str) -> bool:
    """Whether the question named by `key` is kept for the evaluation. Depends on the key alone."""
    return zlib.crc32(key.encode()) % HELD_OUT_ONE_IN == 0


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """One tool call as the assistant writes it."""
    body = json.dumps(arguments, ensure_ascii=False)
    return f'{TOOL_CALL_OPEN}\n{{"name": "{name}", "arguments": {body}}}\n{TOOL_CALL_CLOSE}'


def chat_segments(turns: list[Turn], system: str = "", tools: tuple[Tool, ...] = ()) -> list[Segment]:
    """A conversation as the chat template renders it, without the beginning-of-text token."""
    segments: list[Segment] = []
    if tools:
        listing = "\n".join([TOOLS_HEADING, *(tool.line() for tool in tools)])
        system = f"{system}\n\n{listing}" if system else listing
    if system:
        segments.append((f"{TURN_START}system\n{system}{TURN_END}\n", False))
    for turn in turns:
        if turn.role != "assistant":
            segments.append((f"{TURN_START}{turn.role}\n{turn.content}{TURN_END}\n", False))
            continue
        parts = [turn.content] if turn.content else []
        parts += [call_text(name, arguments) for name, arguments in turn.calls]
        segments.append((f"{TURN_START}assistant\n", False))
        segments.append(("\n".join(parts) + TURN_END, True))
        segments.append(("\n", False))
    return segments


_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(rng: random.Random, template: str, slots: dict[str, str] | None = None) -> str:
    """Replace each `[a|b|c]` (innermost first) by one of its alternatives, then each `{slot}` by its value."""
    while "[" in template:
        template = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), template)
    return template.format_map(slots) if slots else template


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def joined(items: list[str]) -> str:
    """Items as English writes them: "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
