"""The shipped GGUF: metadata, tokenizer, special tokens and chat template, as llama.cpp sees them."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import pytest

from tools.cria.documents import TOOLS_HEADING, Tool, Turn, chat_segments
from tools.cria.evaluate import Reader
from tools.cria.toolcalls import ADD, MESSAGE, WEATHER

RECORDED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("tokenization.json").read_text(encoding="utf-8"))


def vocabulary(reader: Reader) -> Any:
    return llama_cpp.llama_model_get_vocab(reader.llama.model)


def piece(reader: Reader, text: str) -> int:
    ids = reader.llama.tokenize(text.encode(), add_bos=False, special=True)
    assert len(ids) == 1
    return int(ids[0])


def token_bytes(reader: Reader, ids: list[int]) -> bytes:
    buffer = ctypes.create_string_buffer(256)
    data = b""
    for token in ids:
        length = llama_cpp.llama_token_to_piece(vocabulary(reader), token, buffer, 256, 0, True)
        data += buffer.raw[:length]
    return data


def rendered(reader: Reader, **arguments: Any) -> str:
    return reader.template.render(bos_token="<s>", eos_token="<|im_end|>", **arguments)


def test_metadata_says_what_the_model_is(reader: Reader) -> None:
    metadata = reader.llama.metadata
    assert metadata["general.name"] == "cria"
    assert metadata["general.license"] == "MIT"
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.context_length"] == "2048"
    assert 1e6 <= llama_cpp.llama_model_n_params(reader.llama.model) <= 3e6


def test_matrices_are_q8_0_in_whole_blocks_and_token_texts_are_unique(model_path: Path) -> None:
    file = gguf.GGUFReader(model_path)
    for tensor in file.tensors:
        if tensor.name.endswith("norm.weight"):
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        else:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0
            assert int(tensor.shape[0]) % 32 == 0
    tokens = file.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == len(set(tokens)) == 2048


def test_special_tokens_have_their_roles(reader: Reader) -> None:
    vocab = vocabulary(reader)
    assert llama_cpp.llama_vocab_bos(vocab) == piece(reader, "<s>")
    assert llama_cpp.llama_vocab_eos(vocab) == llama_cpp.llama_vocab_eot(vocab) == piece(reader, "<|im_end|>")
    assert llama_cpp.llama_vocab_fim_pre(vocab) == piece(reader, "<|fim_prefix|>")
    assert llama_cpp.llama_vocab_fim_suf(vocab) == piece(reader, "<|fim_suffix|>")
    assert llama_cpp.llama_vocab_fim_mid(vocab) == piece(reader, "<|fim_middle|>")
    assert llama_cpp.llama_vocab_get_add_bos(vocab)
    ending = {token for token in range(2048) if llama_cpp.llama_vocab_is_eog(vocab, token)}
    assert ending == {piece(reader, "<|im_end|>"), piece(reader, "<|endoftext|>")}
    assert not llama_cpp.llama_vocab_is_control(vocab, piece(reader, "<tool_call>"))


def test_llama_cpp_tokenizes_as_the_trainer_does(reader: Reader) -> None:
    assert len(RECORDED) > 60
    for record in RECORDED:
        assert reader.llama.tokenize(record["text"].encode(), add_bos=False, special=True) == record["ids"], record[
            "text"
        ]


@pytest.mark.parametrize(
    "text", ["Once upon a time", " leading", "trailing ", "a\n\nb", "🦙🙂", "日本", "tab\there", "  ", "é"]
)
def test_pieces_concatenate_to_the_text(reader: Reader, text: str) -> None:
    assert token_bytes(reader, reader.llama.tokenize(text.encode(), add_bos=False, special=False)) == text.encode()


def test_an_emoji_that_is_not_in_the_vocabulary_is_split_into_its_bytes(reader: Reader) -> None:
    assert len(reader.llama.tokenize("🐙".encode(), add_bos=False, special=False)) == 4


def test_special_tokens_are_only_text_unless_they_are_to_be_parsed(reader: Reader) -> None:
    assert len(reader.llama.tokenize(b"<|im_start|>", add_bos=False, special=False)) > 1
    assert len(reader.llama.tokenize(b"<|im_start|>", add_bos=False, special=True)) == 1


def test_the_template_renders_what_the_model_was_trained_on(reader: Reader) -> None:
    tools: tuple[Tool, ...] = (ADD, MESSAGE, WEATHER)
    calls = (("add", {"a": 1, "b": 2}), ("get_weather", {"city": "Rome"}))
    turns = [Turn("user", "Hi"), Turn("assistant", "", calls), Turn("tool", "3"), Turn("assistant", "3!")]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be kind."}]
    for turn in turns:
        calls = [
            {"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in turn.calls
        ]
        messages.append({"role": turn.role, "content": turn.content} | ({"tool_calls": calls} if calls else {}))
    expected = "<s>" + "".join(text for text, _ in chat_segments(turns, "Be kind.", tools))
    assert rendered(reader, messages=messages, tools=[tool.schema() for tool in tools]) == expected


def test_the_template_opens_the_assistant_turn_when_asked(reader: Reader) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert (
        rendered(reader, messages=messages, add_generation_prompt=True)
        == "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_takes_arguments_as_json_text_and_content_as_parts(reader: Reader) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "Add "}, {"type": "text", "text": "them"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1}'}}]},
    ]
    text = rendered(reader, messages=messages)
    assert "user\nAdd them<|im_end|>" in text
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>' in text


def test_the_template_lists_tools_without_parameters_or_description(reader: Reader) -> None:
    text = rendered(
        reader, messages=[{"role": "user", "content": "Hi"}], tools=[{"type": "function", "function": {"name": "ping"}}]
    )
    assert f"system\n{TOOLS_HEADING}\nping()<|im_end|>" in text
