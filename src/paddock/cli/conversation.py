"""A conversation and the lines that a person types into it: plain values, no terminal and no model."""

from __future__ import annotations

import attrs

from paddock.cli.completing import completion_object
from paddock.cli.failures import error_object
from paddock.engine.requests.results import Completion
from paddock.errors import PaddockError

__all__ = ["COMMANDS", "Command", "Conversation", "Turn", "parse_line"]

COMMANDS = {
    "/help": "list the commands",
    "/reset": "forget the conversation; the system message stays",
    "/system TEXT": "set the system message, and /system alone removes it; the conversation begins anew",
    "/save FILE": "write the conversation to FILE as JSON",
    "/quit": "leave",
}


@attrs.frozen
class Command:
    """A line that begins with a slash: ``name`` without it, and what follows."""

    name: str
    argument: str


def parse_line(line: str) -> Command | str | None:
    """A command, the text of a message, or None for an empty line. Two slashes begin a message with one."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return text[1:]
    if text.startswith("/"):
        name, _, argument = text[1:].partition(" ")
        return Command(name, argument.strip())
    return text


@attrs.frozen
class Turn:
    """What was said and what came of it: a completion, or the error that ended it."""

    user: str
    outcome: Completion | PaddockError

    def described(self) -> dict[str, object]:
        """The turn as ``--json`` and ``/save`` write it."""
        if isinstance(self.outcome, PaddockError):
            return {"user": self.user, **error_object(self.outcome)}
        described = completion_object(self.outcome)
        del described["exactness"]  # that of the whole conversation
        return {"user": self.user, "assistant": described.pop("text"), **described}


@attrs.define
class Conversation:
    """All turns, of which those that got a whole reply are what the model is told."""

    model: str
    system: str | None = None
    exactness: str | None = None
    turns: list[Turn] = attrs.field(factory=list)
    session: str | None = None
    """The name that it is kept under."""
    earlier_turns: int = 0
    """Turns that the session had before."""

    def messages(self, text: str) -> list[dict[str, str]]:
        """The messages to render for a reply to ``text``."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for turn in self.turns:
            if isinstance(turn.outcome, Completion):
                messages.append({"role": "user", "content": turn.user})
                messages.append({"role": "assistant", "content": turn.outcome.text})
        return [*messages, {"role": "user", "content": text}]

    def reset(self) -> None:
        """Forgets all turns."""
        self.turns.clear()
        self.earlier_turns = 0

    @property
    def failed(self) -> bool:
        return any(isinstance(turn.outcome, PaddockError) for turn in self.turns)

    def described(self) -> dict[str, object]:
        """The conversation as ``--json`` and ``/save`` write it."""
        kept = {} if self.session is None else {"session": self.session, "earlier_turns": self.earlier_turns}
        return {
            "model": self.model,
            "exactness": self.exactness,
            "system": self.system,
            **kept,
            "turns": [turn.described() for turn in self.turns],
        }
