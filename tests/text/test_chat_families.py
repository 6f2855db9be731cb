"""Templates in the style of well-known model families, against Jinja without our metering and by hand."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import pytest
from chat_templates import ARGUMENT_TEXTS, CHATML, FAMILIES, GEMMA, LLAMA3, MACROS, MISTRAL, QWEN3
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddock.errors import ChatTemplateError, InvalidParameter
from paddock.text.chat import ChatTemplate

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'The weather, <now> & "here"',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"city": "Málaga"}}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hello <you> "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi."},
    {"role": "user", "content": "Weather?"},
]
WITH_TOOLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "21", "tool_call_id": "call12345"},
    {"role": "assistant", "content": "Warm."},
    {"role": "user", "content": "Thanks"},
]


def now() -> datetime:
    return datetime(2025, 3, 9, 12, 0)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def plain_render(source: str, **variables: Any) -> str:
    """The same template in a sandbox as model libraries set it up: no metering, no list of what is allowed."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation]
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators)

    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: now().strftime(form)}
    return environment.from_string(source).render(bos_token="<s>", eos_token="</s>", **variables)


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("tools", [None, [WEATHER]], ids=["no tools", "tools"])
@pytest.mark.parametrize("messages", [TALK, WITH_TOOLS], ids=["talk", "tool calls"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "argument texts"])
def test_the_metered_sandbox_renders_what_the_plain_one_does(
    family: str, messages: Any, tools: Any, add_generation_prompt: bool
) -> None:
    source = FAMILIES[family]
    template = ChatTemplate(source, "<s>", "</s>", clock=now)
    try:
        expected = plain_render(source, messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)
    except jinja2.TemplateError:
        with pytest.raises(ChatTemplateError):
            template.render(messages, tools, add_generation_prompt)
    else:
        assert template.render(messages, tools, add_generation_prompt) == expected


def test_chatml() -> None:
    assert ChatTemplate(CHATML).render([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate(CHATML).render([{"role": "user", "content": "Hi"}], add_generation_prompt=False) == (
        "<|im_start|>user\nHi<|im_end|>\n"
    )


def test_llama3_takes_the_date_from_the_clock_and_does_not_escape_json() -> None:
    text = ChatTemplate(LLAMA3, "<s>", clock=now).render(WITH_TOOLS[:2], tools=[WEATHER])
    assert text.startswith("<s><|start_header_id|>system")
    assert "Today Date: 09 Mar 2025" in text
    assert '"description": "The weather, <now> & \\"here\\""' in text
    assert '{"name": "weather", "parameters": {"city": "Málaga"}}<|eot_id|>' in text


def test_a_template_that_refuses_the_conversation_says_why() -> None:
    with pytest.raises(ChatTemplateError, match="refuses these messages: conversation roles must alternate"):
        ChatTemplate(MISTRAL).render([{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}])
    short = CALL | {"id": "1"}
    with pytest.raises(ChatTemplateError, match="length 9"):
        ChatTemplate(MISTRAL).render([TALK[1], {"role": "assistant", "tool_calls": [short], "content": None}])


def test_extra_variables_reach_the_template() -> None:
    text = ChatTemplate(QWEN3).render([{"role": "user", "content": "x"}], enable_thinking=False)
    assert text.endswith("<think>\n\n</think>\n\n")


def test_arguments_given_as_json_text_are_rendered_as_the_object_they_hold() -> None:
    as_text = CALL | {"function": CALL["function"] | {"arguments": '{"city": "M\\u00e1laga"}'}}  # type: ignore[operator]
    for source in (LLAMA3, QWEN3, MISTRAL):
        template = ChatTemplate(source)
        conversation = [WITH_TOOLS[0], {"role": "assistant", "content": "", "tool_calls": [as_text]}]
        assert template.render(conversation) == template.render(WITH_TOOLS[:2])


def test_a_template_that_concatenates_arguments_gets_them_as_json_text() -> None:
    text = ChatTemplate(ARGUMENT_TEXTS).render(WITH_TOOLS[:2])
    assert '```json\n{"city": "Málaga"}\n```' in text


def test_text_parts_are_passed_to_templates_that_take_parts_and_joined_for_others() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "user", "content": parts}]
    assert "onetwo<end_of_turn>" in ChatTemplate(GEMMA).render(messages)
    assert "user\none\ntwo<|im_end|>" in ChatTemplate(CHATML).render(messages)
    image = [{"role": "user", "content": [{"type": "image"}, *parts]}]
    assert "<start_of_image>onetwo" in ChatTemplate(GEMMA).render(image)
    with pytest.raises(InvalidParameter, match=r"messages\[0\]\.content\[0\]"):
        ChatTemplate(CHATML).render(image)


def test_macros_generation_blocks_break_and_filtered_loops_work() -> None:
    text = ChatTemplate(MACROS).render([TALK[1]] * 5, tools=[WEATHER])
    assert text.count("USER>") == 3
    assert "properties:" in text
    assert "[city]" in text


def test_the_caller_s_messages_are_not_changed() -> None:
    before = json.dumps(WITH_TOOLS)
    ChatTemplate(ARGUMENT_TEXTS).render(WITH_TOOLS)
    assert json.dumps(WITH_TOOLS) == before


def test_a_long_conversation_has_the_budget_that_it_needs() -> None:
    turns = [{"role": "user", "content": "question " * 50}, {"role": "assistant", "content": "answer " * 200}] * 500
    for source in (CHATML, LLAMA3, MISTRAL, GEMMA, QWEN3):
        text = ChatTemplate(source, time_limit=600.0).render([*turns, TALK[1]], tools=[WEATHER] * 20)
        assert text.count("question") == 25_000


async def test_rendering_in_a_thread_gives_the_same_and_raises_the_same() -> None:
    template = ChatTemplate(CHATML)
    messages = [{"role": "user", "content": "Hi"}]
    assert await template.render_in_thread(messages) == template.render(messages)
    with pytest.raises(InvalidParameter):
        await template.render_in_thread([])
