"""What ``paddock chat`` does: turn after turn, until the lines end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import attrs
import click
import trio

from paddock.api.model import Model
from paddock.api.request import Request
from paddock.api.session import Session
from paddock.cli.conversation import COMMANDS, Command, Conversation, Turn, parse_line
from paddock.cli.failures import FAILED, Interrupted
from paddock.cli.interrupts import Interrupts, run_interruptible
from paddock.cli.line_source import DescriptorLines, LineSource, TerminalLines
from paddock.cli.loading import loaded_model, model_config
from paddock.cli.output import note, write_json, write_text_in_thread
from paddock.cli.plain import as_json as json_bytes
from paddock.cli.plain import printable
from paddock.cli.sampling_options import sampling_arguments
from paddock.cli.terminal import is_interactive, kept_terminal
from paddock.config import RuntimeConfig, user_cache_dir
from paddock.engine.requests.results import Completion
from paddock.errors import ChatTemplateMissing, PaddockError, RequestCancelled
from paddock.sampling.parameters import SamplingParameters
from paddock.sessions.turns import checked_key

__all__ = ["converse"]

PROMPT = "> "


def converse(source: str, options: Mapping[str, Any]) -> None:
    """Holds the conversation. Raises PaddockError (for what prevents it as a whole), Interrupted, BrokenPipeError."""
    sampling = sampling_arguments(options)
    SamplingParameters.from_mapping(sampling)
    config = model_config(source, options, n_seq_max=1)
    as_json, quiet = bool(options.get("as_json")), bool(options.get("quiet"))
    name, tenant = options.get("session"), options.get("tenant")
    if name is None and tenant is not None:
        raise click.UsageError("--tenant says whose session it is; it needs --session")
    if name is not None:
        checked_key("default" if tenant is None else tenant, name)
    conversation = Conversation(config.served_name, options.get("system"), session=name)
    # What a session had computed is worth keeping, where "paddock cache" looks for it.
    folder = None if name is None else user_cache_dir()

    async def work(interrupts: Interrupts) -> None:
        kept = RuntimeConfig(cache_dir=folder)
        async with loaded_model(config, quiet=quiet, runtime_config=kept) as (_, model):
            if model.facts.chat_template is None:
                raise ChatTemplateMissing
            conversation.exactness = model.exactness
            session = None
            if name is not None:
                session = await model.session(
                    name, tenant="default" if tenant is None else tenant, system=options.get("system")
                )
                conversation.system = session.system
                conversation.earlier_turns = len(await session.history())
            await _Chat(model, conversation, sampling, interrupts, session, as_json=as_json, quiet=quiet).run()

    try:
        with kept_terminal():
            run_interruptible(work)
    except Interrupted as interrupted:
        if not as_json or conversation.exactness is None:
            raise
        write_json(conversation.described())
        raise click.exceptions.Exit(interrupted.exit_code) from None
    if as_json:
        write_json(conversation.described())
    if conversation.failed and not os.isatty(0):
        raise click.exceptions.Exit(FAILED)


@attrs.define(eq=False)
class _Chat:
    model: Model
    conversation: Conversation
    sampling: Mapping[str, Any]
    interrupts: Interrupts
    session: Session | None
    as_json: bool = attrs.field(kw_only=True)
    quiet: bool = attrs.field(kw_only=True)

    async def run(self) -> None:
        """Reads and answers lines until there are no more. With ``--json`` a person sees the replies on stderr."""
        lines = self._line_source()
        if os.isatty(0) and not self.quiet:
            note(f"talking to {self.model.name}; /help lists the commands, Ctrl-D leaves")
            if self.session is not None:
                note(f"session {self.session.id}: {self.conversation.earlier_turns} turns so far")
        while (line := await lines.next_line()) is not None:
            match parse_line(line):
                case Command("quit" | "exit", _):
                    return
                case Command() as command:
                    await self._obey(command)
                case str(text):
                    await self._say(text)
        if os.isatty(0):
            note("")

    def _line_source(self) -> LineSource:
        if is_interactive(0) and os.isatty(1) and not self.as_json:
            return TerminalLines(PROMPT)
        return DescriptorLines(0, PROMPT if os.isatty(0) else None)

    async def _obey(self, command: Command) -> None:
        match command:
            case Command("help", _):
                for name, meaning in COMMANDS.items():
                    note(f"{name:<14} {meaning}")
            case Command("reset", ""):
                await self._reset()
            case Command("system", _) if self.session is not None:
                note("a session keeps its system message; leave, and choose another --session")
            case Command("system", text):
                self.conversation.system = text or None
                self.conversation.reset()
                note("the system message is " + ("set" if text else "removed") + "; the conversation begins anew")
            case Command("save", "") | Command("reset", _):
                note(f"/{command.name} {'needs a file name' if command.name == 'save' else 'takes nothing'}")
            case Command("save", name):
                await self._save(name)
            case Command(name, _):
                note(f"there is no command /{name}; /help lists those there are, // begins a message with a slash")

    async def _reset(self) -> None:
        if self.session is not None:
            try:
                await self.session.rewind(0)
            except PaddockError as error:
                note(f"{error} [{type(error).__name__}]")
                return
        self.conversation.reset()
        note("the conversation begins anew")

    async def _save(self, name: str) -> None:
        path = trio.Path(name)
        try:
            path = await path.expanduser()
            await path.write_bytes(json_bytes(self.conversation.described(), indent=2))
        except (OSError, ValueError, RuntimeError) as error:
            note(f"cannot write {path}: {error}")
        else:
            note(f"saved to {path}")

    async def _say(self, text: str) -> None:
        try:
            outcome: Completion | PaddockError = await self._reply(text)
        except RequestCancelled as cancelled:
            if self.interrupts.received is not None:
                raise
            outcome = cancelled
            note("\n(cancelled; not part of the conversation)")
        except PaddockError as error:
            outcome = error
            note(f"{error} [{type(error).__name__}]")
        self.conversation.turns.append(Turn(text, outcome))

    async def _reply(self, text: str) -> Completion:
        interactive = os.isatty(0)
        request = await self._request(text, interactive=interactive)
        with self.interrupts.answered_by(request.cancel, when=interactive):
            async with request:
                line_open = False
                while deltas := await request.receive_many():
                    piece = "".join(delta.text for delta in deltas)
                    if piece:
                        await self._show(piece)
                        line_open = not piece.endswith("\n")
                if line_open:
                    await self._show("\n")
                return await request.result()

    async def _request(self, text: str, *, interactive: bool) -> Request:
        if self.session is not None:
            return self.session.stream(text, **self.sampling)
        request: Request | None = None
        with trio.CancelScope() as rendering, self.interrupts.answered_by(rendering.cancel, when=interactive):
            request = await self.model.stream_chat(self.conversation.messages(text), **self.sampling)
        if request is None or rendering.cancel_called:
            raise RequestCancelled("handle")
        return request

    async def _show(self, text: str) -> None:
        if not self.as_json:
            await write_text_in_thread(text)
        elif os.isatty(0):
            sys.stderr.write(printable(text))
            sys.stderr.flush()
