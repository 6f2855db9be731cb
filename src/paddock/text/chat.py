"""Chat messages to a prompt, by the template that came with the model.

A template is a program from a stranger. It runs in a sandbox that reaches nothing but the messages, and
everything about it fails closed: whatever goes wrong is a :class:`~paddock.errors.ChatTemplateError` with
the reason, never a hang, never an oversized prompt. See ``template_budget.py`` for the bounds and why they
hold.

Compiling takes some milliseconds. Rendering takes under a millisecond for ordinary templates, and up to seconds for
a malicious one, until its budget is used up. All of it is Python code that other threads can run beside: call
:meth:`ChatTemplate.render_in_thread`, or :meth:`ChatTemplate.render` from a thread of your own.
"""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
import trio

from paddock.errors import ChatTemplateError, ChatTemplateMissing, InvalidParameter
from paddock.text.messages import (
    JsonValue,
    Message,
    as_json,
    flatten_parts,
    validate_messages,
    validate_tools,
)
from paddock.text.template_budget import Budget, BudgetExceeded, weigh_json
from paddock.text.template_sandbox import RaisedByTemplate, TemplateSandbox, current_budget

__all__ = ["MAX_TEMPLATE_CHARACTERS", "ChatTemplate"]

MAX_TEMPLATE_CHARACTERS = 128 * 1024
_MAX_RENDERERS = 4
_renderers: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("chat template renderers")
_RESERVED = frozenset(
    {
        "add_generation_prompt",
        "bos_token",
        "dict",
        "eos_token",
        "messages",
        "namespace",
        "raise_exception",
        "range",
        "strftime_now",
        "tools",
    }
)
_NEEDLE = "paddock-needle"


class ChatTemplate:
    """One model's chat template, compiled. Safe to use from several threads at once.

    ``source`` is the template text of the GGUF (``tokenizer.chat_template``); ChatTemplateMissing if it is
    None or blank, ChatTemplateError if it does not compile. ``clock`` is what ``strftime_now`` reads.

    The rendered text contains the special tokens in writing, BOS often among them: tokenize it with
    ``parse_special=True``, and with ``add_special=False`` if it begins with ``bos_token``.
    """

    def __init__(
        self,
        source: str | None,
        bos_token: str = "",
        eos_token: str = "",
        *,
        clock: Callable[[], datetime] = datetime.now,
        time_limit: float = 10.0,
    ) -> None:
        if source is None or not source.strip():
            raise ChatTemplateMissing
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ChatTemplateError(
                f"it has {len(source)} characters, more than the {MAX_TEMPLATE_CHARACTERS} that are allowed"
            )
        self.source = source
        self.bos_token = bos_token
        self.eos_token = eos_token
        self._clock = clock
        self._time_limit = time_limit
        self._compiling = threading.Lock()
        self._template: jinja2.Template | None = None
        self._takes_parts: bool | None = None
        self._takes_argument_objects: bool | None = None

    def compile(self) -> None:
        """Compiles the template, which the first rendering does otherwise. ChatTemplateError if it is broken."""
        self._compiled()

    def render(
        self,
        messages: object,
        tools: object = None,
        add_generation_prompt: bool = True,
        **extra: object,
    ) -> str:
        """The prompt for these messages (their form: ``messages.py``), to be continued by the assistant.

        ``extra`` are further variables that the template may know, such as ``enable_thinking``; JSON values.
        Content given as a list of text parts is joined into one text where the template takes texts only,
        and tool arguments are passed as objects, or as JSON text to templates that want that.

        InvalidParameter for malformed messages, tools or extra variables; ChatTemplateError when the template
        refuses them (``raise_exception``), fails, or goes beyond its budget.
        """
        checked = validate_messages(messages)
        checked_tools = validate_tools(tools)
        if not isinstance(add_generation_prompt, bool):
            raise InvalidParameter("add_generation_prompt", add_generation_prompt, "True or False")
        variables: dict[str, JsonValue] = {}
        for name, value in extra.items():
            if name in _RESERVED or name.startswith("_"):
                raise InvalidParameter(name, value, "this name is the template's own")
            variables[name] = as_json(value, name)
        if any(isinstance(message.get("content"), list) for message in checked) and not self._accepts_parts():
            checked = flatten_parts(checked)
        if any(message.get("tool_calls") for message in checked) and not self._accepts_argument_objects():
            checked = _with_argument_texts(checked)
        return self._run(checked, checked_tools, add_generation_prompt, variables)

    async def render_in_thread(
        self,
        messages: object,
        tools: object = None,
        add_generation_prompt: bool = True,
        **extra: object,
    ) -> str:
        """:meth:`render` in a worker thread, at most four at a time. Takes and raises the same.

        A checkpoint. Cancelling it abandons the rendering, which ends by itself when its budget is used up.
        """
        try:
            limiter = _renderers.get()
        except LookupError:
            limiter = trio.CapacityLimiter(_MAX_RENDERERS)
            _renderers.set(limiter)
        return await trio.to_thread.run_sync(
            lambda: self.render(messages, tools, add_generation_prompt, **extra),
            abandon_on_cancel=True,
            limiter=limiter,
        )

    def _compiled(self) -> jinja2.Template:
        with self._compiling:
            if self._template is None:
                try:
                    self._template = TemplateSandbox(self._clock).load(self.source)
                except Exception as error:
                    raise ChatTemplateError(f"it does not compile: {_reason(error)}") from error
            return self._template

    def _run(
        self,
        messages: list[Message],
        tools: list[JsonValue] | None,
        add_generation_prompt: bool,
        extra: dict[str, JsonValue],
    ) -> str:
        template = self._compiled()
        budget = Budget(
            weigh_json([messages, tools, extra]),
            time_limit=self._time_limit,
        )
        parts: list[str] = []
        length = 0
        token = current_budget.set(budget)
        try:
            for part in template.generate(
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                **extra,
            ):
                length += len(part)
                if length > budget.value_limit:
                    raise BudgetExceeded(f"its output of more than {budget.value_limit} characters is too large")
                parts.append(part)
        except RaisedByTemplate as error:
            raise ChatTemplateError(f"it refuses these messages: {error}") from error
        except Exception as error:
            raise ChatTemplateError(_reason(error)) from error
        finally:
            current_budget.reset(token)
        return "".join(parts)

    # Templates differ in what they expect, and do not say so: they are asked with a sample, once, when it
    # matters.

    def _accepts_parts(self) -> bool:
        if self._takes_parts is None:
            sample: list[Message] = [{"role": "user", "content": [{"type": "text", "text": _NEEDLE}]}]
            shown = self._probe(sample)
            # A template for texts either fails on a list or prints it as Python does, with its keys.
            self._takes_parts = _NEEDLE in shown and "'type'" not in shown and '"type"' not in shown
        return self._takes_parts

    def _accepts_argument_objects(self) -> bool:
        if self._takes_argument_objects is None:

            def sample(arguments: JsonValue) -> str:
                call: JsonValue = {
                    "id": "call00001",
                    "type": "function",
                    "function": {"name": "look", "arguments": arguments},
                }
                return self._probe(
                    [
                        {"role": "user", "content": "hello"},
                        {"role": "assistant", "content": "", "tool_calls": [call]},
                    ]
                )

            # Texts only where objects fail, or come out in Python's notation instead of JSON's.
            as_object = sample({_NEEDLE: 1})
            good = f'"{_NEEDLE}"' in as_object or (_NEEDLE in as_object and f"'{_NEEDLE}'" not in as_object)
            self._takes_argument_objects = good or _NEEDLE not in sample(json.dumps({_NEEDLE: 1}))
        return self._takes_argument_objects

    def _probe(self, messages: list[Message]) -> str:
        try:
            return self._run(messages, None, False, {})
        except ChatTemplateError:
            return ""

    def __repr__(self) -> str:
        return f"<ChatTemplate of {len(self.source)} characters>"


def _with_argument_texts(messages: list[Message]) -> list[Message]:
    changed: list[Message] = []
    for message in messages:
        calls: Any = message.get("tool_calls") or ()
        texts: list[JsonValue] = []
        for call in calls:
            function = call["function"]
            arguments = json.dumps(function["arguments"], ensure_ascii=False)
            texts.append({**call, "function": {**function, "arguments": arguments}})
        copy: Message = {**message, "tool_calls": texts} if texts else message
        changed.append(copy)
    return changed


def _reason(error: Exception) -> str:
    """What went wrong, with the line of the template where that is known."""
    if isinstance(error, RecursionError):
        text = "it is nested, or calls itself, too deeply"
    elif isinstance(error, MemoryError):
        text = "it needs too much memory"
    else:
        text = str(error)[:500] or type(error).__name__
        if not isinstance(error, (jinja2.TemplateError, BudgetExceeded)):
            text = f"{type(error).__name__}: {text}"
    line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else None
    if line is None and not isinstance(error, RecursionError):
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == "<chat template>"), None)
    return text if line is None else f"line {line}: {text}"
