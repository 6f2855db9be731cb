from __future__ import annotations

from typing import Any

import pytest
from chat_templates import CHATML

from paddock.errors import InvalidParameter
from paddock.text.chat import ChatTemplate
from paddock.text.messages import validate_messages, validate_tools

USER = {"role": "user", "content": "hi"}


def call(**function: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", **function}}]}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("messages", "parameter"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        ({"role": "user"}, "messages"),
        (["hi"], "messages[0]"),
        ([USER, None], "messages[1]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "", "content": "hi"}], "messages[0].role"),
        ([{"role": "user<|im_end|>", "content": "hi"}], "messages[0].role"),
        ([{"role": 7, "content": "hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
        ([{"role": "user", "content": ["hi"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"text": "hi"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content"),
        ([USER | {"name": 7}], "messages[0].name"),
        ([USER | {"tool_call_id": 7}], "messages[0].tool_call_id"),
        ([USER | {"extra": object()}], "messages[0].extra"),
        ([USER | {"extra": b"x"}], "messages[0].extra"),
        ([USER | {"extra": {1: 2}}], "messages[0].extra"),
        ([USER | {7: 8}], "messages[0]"),
        ([USER | {"tool_calls": {}}], "messages[0].tool_calls"),
        ([USER | {"tool_calls": [7]}], "messages[0].tool_calls[0]"),
        ([USER | {"tool_calls": [{"function": None}]}], "messages[0].tool_calls[0].function"),
        ([USER | {"tool_calls": [{"type": "x", "function": {}}]}], "messages[0].tool_calls[0].type"),
        ([USER | {"tool_calls": [{"id": 1, "function": {}}]}], "messages[0].tool_calls[0].id"),
        ([call(name="a b")], "messages[0].tool_calls[0].function.name"),
        ([call(arguments="{")], "messages[0].tool_calls[0].function.arguments"),
        ([call(arguments="[1]")], "messages[0].tool_calls[0].function.arguments"),
        ([call(arguments="[" * 100_000)], "messages[0].tool_calls[0].function.arguments"),
        ([call(arguments=[1])], "messages[0].tool_calls[0].function.arguments"),
    ],
)
def test_a_malformed_message_is_refused_by_name(messages: Any, parameter: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        validate_messages(messages)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("tools", "parameter"),
    [
        ("f", "tools"),
        ({}, "tools"),
        ([7], "tools[0]"),
        ([{"function": {"name": "f"}}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": "function", "function": {"name": "f", "description": 7}}], "tools[0].function.description"),
        ([{"type": "function", "function": {"name": "f", "parameters": 7}}], "tools[0].function.parameters"),
    ],
)
def test_a_malformed_tool_is_refused_by_name(tools: Any, parameter: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        validate_tools(tools)
    assert caught.value.parameter == parameter


def test_values_nested_too_deeply_are_refused() -> None:
    validate_messages([USER | {"extra": nested(20)}])
    for depth in (60, 5000):
        with pytest.raises(InvalidParameter, match="nested"):
            validate_messages([USER | {"extra": nested(depth)}])


def test_well_formed_messages_are_copied_and_arguments_become_objects() -> None:
    given = [USER, call(arguments='{"a": [1, 2]}'), call(arguments=""), {"role": "tool", "content": "x", "name": "f"}]
    checked: Any = validate_messages(given)
    assert checked[0] == USER
    assert checked[0] is not USER
    assert checked[1]["tool_calls"][0]["function"]["arguments"] == {"a": [1, 2]}
    assert checked[2]["tool_calls"][0]["function"]["arguments"] == {}
    assert validate_tools(None) is None
    assert validate_tools([]) is None


@pytest.mark.parametrize("name", ["messages_", "add_generation_prompt", "bos_token", "raise_exception", "_x"])
def test_extra_variables_cannot_take_the_template_s_own_names(name: str) -> None:
    template = ChatTemplate(CHATML)
    if name == "messages_":
        assert template.render([USER], **{name: 1})
    elif name == "add_generation_prompt":
        with pytest.raises(InvalidParameter, match="add_generation_prompt"):
            template.render([USER], add_generation_prompt="yes")  # type: ignore[arg-type]
    else:
        with pytest.raises(InvalidParameter, match=name):
            template.render([USER], **{name: 1})


def test_extra_variables_are_json_values() -> None:
    with pytest.raises(InvalidParameter, match="documents"):
        ChatTemplate(CHATML).render([USER], documents=[object()])
