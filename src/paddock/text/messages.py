"""Chat messages and tool definitions as callers pass them: checked, copied, and in the form that templates
expect.

The shapes are those of the OpenAI chat API, which templates are written for. A message is a mapping with

* ``role``: a name of letters, digits, ``_`` and ``-`` (so that no role can forge the template's own markers);
* ``content``: a text, or a list of parts, each a mapping with ``type``, and ``text`` if that is ``"text"``.
  It may be None or missing only where there are ``tool_calls``;
* ``name``, ``tool_call_id``: texts, optional;
* ``tool_calls``: a list of ``{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}``,
  whose arguments are an object, or a text that holds a JSON object;
* anything else that is made of JSON values: it is passed to the template as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from paddock.errors import InvalidParameter

__all__ = ["JsonValue", "Message", "as_json", "flatten_parts", "validate_messages", "validate_tools"]

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]
Message = dict[str, JsonValue]

_MAX_DEPTH = 48
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAMES = "a name of 1 to 64 letters, digits, '_' and '-'"


def as_json(value: object, where: str, depth: int = 0) -> JsonValue:
    """A private copy of a value made of JSON's types. InvalidParameter naming the place of what is not."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if depth >= _MAX_DEPTH:
        raise InvalidParameter(where, "...", f"values may be nested at most {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        copy: dict[str, JsonValue] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidParameter(where, key, "keys must be texts")
            copy[_text(key, where)] = as_json(item, f"{where}.{key[:40]}", depth + 1)
        return copy
    if isinstance(value, (list, tuple)):
        return [as_json(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise InvalidParameter(where, value, "only JSON values: texts, numbers, booleans, None, lists and mappings")


def validate_messages(messages: object) -> list[Message]:
    """Checked private copies of the messages. InvalidParameter naming the message and field that is wrong."""
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        raise InvalidParameter("messages", messages, "a list of at least one message")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def validate_tools(tools: object) -> list[JsonValue] | None:
    """Checked private copies of the tool definitions; None for none. InvalidParameter as above."""
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)):
        raise InvalidParameter("tools", tools, "a list of tool definitions")
    checked: list[JsonValue] = []
    for index, given in enumerate(tools):
        where = f"tools[{index}]"
        tool = _mapping(given, where)
        if tool.get("type") != "function":
            raise InvalidParameter(f"{where}.type", tool.get("type"), "'function'")
        function = _mapping(tool.get("function"), f"{where}.function")
        _name(function.get("name"), f"{where}.function.name")
        if not isinstance(function.get("description", ""), str):
            raise InvalidParameter(f"{where}.function.description", function["description"], "a text")
        if not isinstance(function.get("parameters") or {}, dict):
            raise InvalidParameter(f"{where}.function.parameters", function["parameters"], "a JSON schema")
        copy: dict[str, JsonValue] = {**tool, "function": function}
        checked.append(copy)
    return checked or None


def flatten_parts(messages: list[Message]) -> list[Message]:
    """For templates that take texts only: lists of text parts become one text, a line break between two
    parts.

    InvalidParameter for a part of another type.
    """
    flat: list[Message] = []
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            texts: list[str] = []
            for number, part in enumerate(content):
                text = part.get("text") if isinstance(part, dict) and part["type"] == "text" else None
                if not isinstance(text, str):
                    where = f"messages[{index}].content[{number}]"
                    raise InvalidParameter(where, part, "this model's chat template takes text parts only")
                texts.append(text)
            message = message | {"content": "\n".join(texts)}
        flat.append(message)
    return flat


def _message(given: object, where: str) -> Message:
    message = _mapping(given, where)
    _name(message.get("role"), f"{where}.role")
    for field in ("name", "tool_call_id"):
        if field in message and not isinstance(message[field], str):
            raise InvalidParameter(f"{where}.{field}", message[field], "a text")
    calls = message.get("tool_calls")
    if calls is not None:
        if not isinstance(calls, list):
            raise InvalidParameter(f"{where}.tool_calls", calls, "a list of tool calls")
        message["tool_calls"] = [_tool_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(calls)]
    content = message.get("content")
    if content is None and not calls:
        raise InvalidParameter(f"{where}.content", content, "a text or a list of parts")
    if content is not None and not isinstance(content, (str, list)):
        raise InvalidParameter(f"{where}.content", content, "a text or a list of parts")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        place = f"{where}.content[{number}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidParameter(place, part, "a mapping with a text 'type'")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise InvalidParameter(f"{place}.text", part.get("text"), "a text")
    return message


def _tool_call(given: object, where: str) -> JsonValue:
    call = _mapping(given, where)
    if call.get("type", "function") != "function":
        raise InvalidParameter(f"{where}.type", call["type"], "'function'")
    if not isinstance(call.get("id", ""), str):
        raise InvalidParameter(f"{where}.id", call["id"], "a text")
    function = _mapping(call.get("function"), f"{where}.function")
    _name(function.get("name"), f"{where}.function.name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            arguments = None
        arguments = as_json(arguments, f"{where}.function.arguments")
    if not isinstance(arguments, dict):
        raise InvalidParameter(
            f"{where}.function.arguments",
            function.get("arguments"),
            "an object, or a text that holds a JSON object",
        )
    changed: dict[str, JsonValue] = {**function, "arguments": arguments}
    return {**call, "function": changed}


def _mapping(value: object, where: str) -> dict[str, JsonValue]:
    if not isinstance(value, Mapping):
        raise InvalidParameter(where, value, "a mapping")
    copy = as_json(value, where)
    assert isinstance(copy, dict)
    return copy


def _name(value: object, where: str) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidParameter(where, value, _NAMES)


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidParameter(where, value, "text with lone surrogates is no valid Unicode") from None
    return str(value)
