"""Loading a model and its vocabulary, on real llama.cpp."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_builders import BOS, EOS, FIRST_BYTE, IM_END, IM_START, base_vocabulary, script_bytes
from paddock.errors import (
    DuplicateTokens,
    InvalidConfiguration,
    InvalidModelFile,
    InvalidParameter,
    ModelLoadFailed,
    ModelNotFound,
    NotGguf,
)
from paddock.native.model import ModelLoadParameters, NativeModel


def test_loading_reports_progress_and_facts(tiny_model_path: Path) -> None:
    fractions: list[float] = []

    def progress(fraction: float) -> bool:
        fractions.append(fraction)
        return True

    model = NativeModel.load(tiny_model_path, ModelLoadParameters(), progress)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert (model.n_vocab, model.memory_class) == (2048, "attention")
    assert model.facts.architecture == "llama"
    assert "loaded" in repr(model)
    model.free()
    model.free()
    assert "freed" in repr(model)


def test_loading_ends_when_progress_says_so(tiny_model_path: Path) -> None:
    with pytest.raises(ModelLoadFailed):
        NativeModel.load(tiny_model_path, progress=lambda _: False)


def test_an_error_in_progress_comes_out_of_load(tiny_model_path: Path) -> None:
    def fail(_: float) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        NativeModel.load(tiny_model_path, progress=fail)


def test_load_parameters_may_come_as_a_mapping_and_are_checked(tiny_model_path: Path) -> None:
    NativeModel.load(tiny_model_path, {"vocab_only": True, "load_mode": "none"}).free()
    with pytest.raises(InvalidConfiguration, match="load_mode"):
        ModelLoadParameters(load_mode="fast")
    with pytest.raises(InvalidConfiguration, match="n_gpu_layers"):
        ModelLoadParameters(n_gpu_layers=-2)
    with pytest.raises(InvalidConfiguration, match="vocab_only"):
        ModelLoadParameters(vocab_only=1)  # type: ignore[arg-type]


def test_files_that_are_no_models_are_refused_before_llama_cpp(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("this is a text file")
    with pytest.raises(NotGguf):
        NativeModel.load(text)
    with pytest.raises(ModelNotFound):
        NativeModel.load(tmp_path / "none.gguf")
    with pytest.raises(InvalidModelFile):
        NativeModel.load(tmp_path)


def test_a_duplicate_token_which_would_abort_the_process_is_refused(tmp_path: Path) -> None:
    texts, scores, types = base_vocabulary()
    writer = gguf.GGUFWriter(tmp_path / "twice.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*texts, b"x", b"x"])
    writer.add_token_scores([*scores, 0.0, 0.0])
    writer.add_token_types([*types, 1, 1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(DuplicateTokens):
        NativeModel.load(tmp_path / "twice.gguf")


def test_a_model_that_llama_cpp_refuses_gives_its_last_words(tmp_path: Path) -> None:
    texts, scores, types = base_vocabulary()
    writer = gguf.GGUFWriter(tmp_path / "hollow.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadFailed, match="context_length"):
        NativeModel.load(tmp_path / "hollow.gguf")


def test_special_tokens_and_pieces(model: NativeModel) -> None:
    special = model.special_tokens
    assert (special.bos, special.eos, special.eot, special.nl) == (BOS, EOS, IM_END, FIRST_BYTE + 10)
    assert special.eog == {EOS, IM_END}
    assert (special.add_bos, special.add_eos, special.fim_pre) == (True, False, None)
    pieces = model.piece_table()
    assert pieces is model.piece_table()
    assert pieces.n_vocab == model.n_vocab
    assert pieces.piece(IM_START) == b"<|im_start|>"
    assert pieces.piece(FIRST_BYTE + 0xF0) == b"\xf0"
    assert pieces.control == {0, BOS, EOS, IM_START, IM_END}
    assert pieces.eog == special.eog
    assert not pieces.add_space_prefix
    assert not pieces.clean_spaces


@given(st.text(max_size=60))
def test_tokenizing_and_joining_the_pieces_gives_the_text_again(model: NativeModel, text: str) -> None:
    data = text.encode()
    tokens = model.tokenize(data, False, False)
    pieces = model.piece_table()
    assert b"".join(pieces.piece(token) for token in tokens) == data
    assert model.detokenize(tokens, False, True) == data


@given(st.binary(max_size=80), st.booleans(), st.booleans())
def test_any_bytes_can_be_tokenized(model: NativeModel, data: bytes, add_special: bool, parse_special: bool) -> None:
    tokens = model.tokenize(data, add_special, parse_special)
    assert all(0 <= token < model.n_vocab for token in tokens)
    assert (tokens[:1] == [BOS]) >= add_special


def vocabulary_only(path: Path, tokenizer: str, tokens: list[str]) -> NativeModel:
    """A model of the file's vocabulary alone, which asks for BOS and EOS and defines neither."""
    writer = gguf.GGUFWriter(path, "gpt2" if tokenizer == "gpt2" else "bert")
    writer.add_tokenizer_model(tokenizer)
    if tokenizer == "gpt2":
        writer.add_tokenizer_pre("default")
        writer.add_token_merges(["a b"])
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return NativeModel.load(path, {"vocab_only": True})


@pytest.mark.parametrize(("tokenizer", "tokens"), [("gpt2", ["a", "b", "ab"]), ("bert", ["▁a", "b"])])
def test_special_tokens_that_the_file_does_not_define_are_not_added(
    tmp_path: Path, tokenizer: str, tokens: list[str]
) -> None:
    """llama.cpp would end the process over them."""
    model = vocabulary_only(tmp_path / "v.gguf", tokenizer, tokens)
    assert model.tokenize(b"a", True, False) == model.tokenize(b"a", False, False) == [0]
    model.free()


def test_special_tokens_in_a_text_are_read_only_where_asked_for(model: NativeModel) -> None:
    assert model.tokenize(b"<|im_end|>", False, True) == [IM_END]
    assert IM_END not in model.tokenize(b"<|im_end|>", False, False)
    assert model.tokenize(b"", True, False) == [BOS]
    assert model.tokenize(b"", False, False) == []


def test_a_text_of_more_tokens_than_guessed_is_tokenized_in_a_second_pass(model: NativeModel) -> None:
    assert len(model.tokenize("\u1234".encode() * 1000, False, False)) == 3000


def test_tokens_outside_the_vocabulary_cannot_be_detokenized(model: NativeModel) -> None:
    for token in (-1, model.n_vocab, 2**31 - 1):
        with pytest.raises(InvalidParameter):
            model.detokenize([token])
    assert model.detokenize([]) == b""


def test_the_vocabulary_may_be_used_from_several_threads(model: NativeModel) -> None:
    expected = model.tokenize(b"hello world " * 50, True, False)
    results: list[list[int]] = []

    def work() -> None:
        results.extend(model.tokenize(b"hello world " * 50, True, False) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 80


def test_the_scripted_model_has_a_token_for_each_byte_of_its_script(scripted_model: Callable[..., Path]) -> None:
    script = "aa🦙a".encode()
    model = NativeModel.load(scripted_model(script))
    first = FIRST_BYTE + 256
    pieces = model.piece_table()
    assert b"".join(pieces.piece(first + index) for index in range(len(script))) == script
    assert script_bytes(range(first, first + len(script)), script) == script
    model.free()
