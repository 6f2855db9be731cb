"""The GGUF header reader: what it reads, and every fault that it names."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_builders import base_vocabulary, build_random_model
from paddock.errors import (
    AbsurdGguf,
    CorruptGguf,
    DuplicateTokens,
    InvalidModelFile,
    ModelNotFound,
    NotGguf,
    TruncatedGguf,
    UnsupportedArchitecture,
)
from paddock.models import GgufArray, facts_of, read_header


@pytest.fixture(scope="module")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest vocabulary, one layer: its header is most of the file."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    return build_random_model(path, n_layer=1, n_embd=32, n_head=1, n_head_kv=1, n_ff=32, n_vocab=300)


@pytest.fixture(scope="module")
def small(small_path: Path) -> bytes:
    return small_path.read_bytes()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return path

    return write


def metadata_only(path: Path, fill: Callable[[gguf.GGUFWriter], None], architecture: str = "llama") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_agrees_with_the_reference_reader(tiny_model_path: Path) -> None:
    ours, theirs = read_header(tiny_model_path), gguf.GGUFReader(tiny_model_path)
    assert [(t.name, t.dims, t.size) for t in ours.tensors] == [
        (t.name, tuple(int(d) for d in t.shape), int(t.n_bytes)) for t in theirs.tensors
    ]
    assert [ours.data_offset + t.offset for t in ours.tensors] == [int(t.data_offset) for t in theirs.tensors]
    for key, field in theirs.fields.items():
        if key.startswith("GGUF."):
            continue
        value, expected = ours.metadata[key], field.contents()
        if isinstance(value, GgufArray) and value.strings is not None:
            assert [string.decode() for string in value.strings] == expected
        elif isinstance(value, GgufArray):
            assert value.numbers is not None
            assert value.numbers.tolist() == expected
        else:
            assert value == expected
    assert ours.file_size == tiny_model_path.stat().st_size
    assert "tiny" in repr(ours)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        read_header(tmp_path / "absent.gguf")
    assert "absent.gguf" in str(caught.value)


def test_a_path_through_a_file_is_not_found(small_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        read_header(small_path / "below.gguf")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile, match="directory"):
        read_header(tmp_path)


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(InvalidModelFile, match="regular file"):
        read_header(tmp_path / "pipe.gguf")


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        read_header("a\0b")


@pytest.mark.parametrize("data", [b"", b"GG", b"hello, I am a text file", b"\x7fELF" + bytes(100)])
def test_what_does_not_begin_with_gguf_is_not_a_gguf(write: Callable[[bytes], Path], data: bytes) -> None:
    path = write(data)
    with pytest.raises(NotGguf) as caught:
        read_header(path)
    assert caught.value.path == str(path)
    assert "GGUF" in caught.value.fault


@pytest.mark.parametrize("version", [0, 1, 4, 2**31])
def test_an_unknown_version_is_corrupt(write: Callable[[bytes], Path], small: bytes, version: int) -> None:
    with pytest.raises(CorruptGguf, match="version"):
        read_header(write(small[:4] + struct.pack("<I", version) + small[8:]))


def test_a_big_endian_file_is_named_as_such(write: Callable[[bytes], Path], small: bytes) -> None:
    with pytest.raises(CorruptGguf, match="big-endian"):
        read_header(write(small[:4] + struct.pack(">I", 3) + small[8:]))


@pytest.mark.parametrize("offset", [8, 16])
@pytest.mark.parametrize("count", [2**20 + 1, 2**32, 2**64 - 1])
def test_absurd_counts_are_refused_at_once(
    write: Callable[[bytes], Path], small: bytes, offset: int, count: int
) -> None:
    with pytest.raises(AbsurdGguf, match=str(count)):
        read_header(write(small[:offset] + struct.pack("<Q", count) + small[offset + 8 :]))


def test_an_absurd_string_and_an_absurd_array_are_refused(write: Callable[[bytes], Path], small: bytes) -> None:
    with pytest.raises(AbsurdGguf, match="string"):
        read_header(write(small[:24] + struct.pack("<Q", 2**40) + small[32:]))
    at = small.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    with pytest.raises(AbsurdGguf, match="claims"):
        read_header(write(small[:at] + struct.pack("<Q", 2**60) + small[at + 8 :]))
    with pytest.raises(TruncatedGguf):
        read_header(write(small[:at] + struct.pack("<Q", 2**25) + small[at + 8 :]))


def test_a_file_cut_anywhere_is_truncated(write: Callable[[bytes], Path], small: bytes, small_path: Path) -> None:
    header_end = read_header(small_path).data_offset
    for length in [*range(4, header_end, 97), *range(header_end, len(small), 4093), len(small) - 40]:
        with pytest.raises(TruncatedGguf):
            read_header(write(small[:length]))


def test_duplicate_token_strings_are_refused(tmp_path: Path) -> None:
    texts, _, types = base_vocabulary()
    texts += [b"twice", b"once", b"twice"]

    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(texts)
        writer.add_token_scores([0.0] * len(texts))
        writer.add_token_types([*types, 1, 1, 1])

    with pytest.raises(DuplicateTokens, match="twice"):
        read_header(metadata_only(tmp_path / "twice.gguf", fill))


def test_tokens_that_differ_only_behind_a_nul_are_duplicates(tmp_path: Path) -> None:
    """llama.cpp reads them as C strings."""
    path = tmp_path / "nul.gguf"
    metadata_only(path, lambda writer: writer.add_token_list(["ab!cd", "ab!ef"]))
    assert len(facts_of(read_header(path)).header_digest) == 32
    path.write_bytes(path.read_bytes().replace(b"ab!", b"ab\0"))
    with pytest.raises(DuplicateTokens):
        read_header(path)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"block_count": 0}, "0 layers"),
        ({"block_count": 513}, "513 layers"),
        ({"block_count": 2, "nextn_predict_layers": 3}, "prediction"),
        ({"expert_count": 1025, "expert_used_count": 2}, "1025 experts"),
        ({"expert_used_count": 1}, "1 of 0 experts"),
        ({"expert_count": 8}, "0 of 8 experts"),
        ({"expert_count": 8, "expert_used_count": 9}, "9 of 8 experts"),
        ({"expert_count": 8, "expert_used_count": 2, "expert_group_count": 8}, "8 groups of 8"),
        ({"expert_group_count": 1}, "1 groups of 0"),
        ({"expert_count": 8, "expert_used_count": 2, "expert_group_count": 3}, "groups of 8"),
        (
            {"expert_count": 8, "expert_used_count": 2, "expert_group_count": 4, "expert_group_used_count": 4},
            "4 of 4 groups",
        ),
        ({"attention.head_count": 3, "attention.head_count_kv": 2}, "3 heads"),
        ({"attention.head_count": [4, 4], "attention.head_count_kv": [2, 3]}, "4 heads"),
        ({"attention.head_count": 4, "attention.head_count_kv": [2, 3]}, "4 heads"),
        ({"rope.scaling.type": "spiral"}, "spiral"),
    ],
)
def test_a_shape_that_llama_cpp_would_abort_over_is_corrupt(
    tmp_path: Path, keys: dict[str, int | str | list[int]], fault: str
) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        for key, value in keys.items():
            if isinstance(value, list):
                writer.add_array(f"llama.{key}", value)
            elif isinstance(value, str):
                writer.add_string(f"llama.{key}", value)
            else:
                writer.add_uint32(f"llama.{key}", value)

    with pytest.raises(CorruptGguf, match=fault):
        read_header(metadata_only(tmp_path / "shape.gguf", fill))


def test_a_sentencepiece_vocabulary_without_byte_tokens_is_refused(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["a", "b"])

    with pytest.raises(InvalidModelFile, match="byte tokens"):
        read_header(metadata_only(tmp_path / "nobytes.gguf", fill))


def test_scores_or_types_that_do_not_cover_the_vocabulary_are_corrupt(tmp_path: Path) -> None:
    def short(writer: gguf.GGUFWriter) -> None:
        writer.add_token_list(["a", "b"])
        writer.add_token_scores([0.0])

    def wrong(writer: gguf.GGUFWriter) -> None:
        writer.add_token_list(["a", "b"])
        writer.add_array("tokenizer.ggml.token_type", ["x", "y"])

    with pytest.raises(CorruptGguf, match="1 entries for 2"):
        read_header(metadata_only(tmp_path / "short.gguf", short))
    with pytest.raises(CorruptGguf, match="wrong type"):
        read_header(metadata_only(tmp_path / "wrong.gguf", wrong))


@pytest.mark.parametrize("architecture", ["llamma", "clip", "(unknown)"])
def test_an_unknown_architecture_is_refused(tmp_path: Path, architecture: str) -> None:
    path = metadata_only(tmp_path / "unknown.gguf", lambda _: None, architecture)
    with pytest.raises(UnsupportedArchitecture) as caught:
        read_header(path)
    assert repr(architecture) in str(caught.value)


def test_a_file_without_an_architecture_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptGguf, match="architecture"):
        read_header(metadata_only(tmp_path / "none.gguf", lambda _: None, ""))


def test_a_key_that_stands_twice_is_corrupt(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_uint32("llama.one", 1)
        writer.add_uint32("llama.two", 2)

    data = metadata_only(tmp_path / "pairs.gguf", fill).read_bytes()
    assert read_header(write(data)).metadata["llama.two"] == 2
    with pytest.raises(CorruptGguf, match="twice"):
        read_header(write(data.replace(b"llama.two", b"llama.one")))
    with pytest.raises(CorruptGguf, match="UTF-8"):
        read_header(write(data.replace(b"llama.two", b"llama.\xff\xff\xff")))


def test_a_tensor_out_of_place_or_of_an_unknown_type_is_corrupt(write: Callable[[bytes], Path], small: bytes) -> None:
    name = b"blk.0.attn_q.weight"
    at = small.index(name) + len(name) + 4 + 16  # n_dims, two dims; then type and offset
    with pytest.raises(CorruptGguf, match="unknown type 99"):
        read_header(write(small[:at] + struct.pack("<I", 99) + small[at + 4 :]))
    with pytest.raises(CorruptGguf, match="stands at 32"):
        read_header(write(small[: at + 4] + struct.pack("<Q", 32) + small[at + 12 :]))
    with pytest.raises(CorruptGguf, match="whole blocks"):
        read_header(write(small[: at - 16] + struct.pack("<Q", 31) + small[at - 8 :]))
    with pytest.raises(AbsurdGguf, match="shape"):
        read_header(write(small[: at - 16] + struct.pack("<QQ", 2**60, 2**60) + small[at:]))


def test_an_alignment_that_is_no_power_of_two_is_corrupt(tmp_path: Path) -> None:
    path = metadata_only(tmp_path / "odd.gguf", lambda writer: writer.add_uint32("general.alignment", 33))
    with pytest.raises(CorruptGguf, match="alignment"):
        read_header(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_gives_anything_but_a_header_or_a_typed_error(
    write: Callable[[bytes], Path], small: bytes, small_path: Path, data: st.DataObject
) -> None:
    header_end = read_header(small_path).data_offset
    mutated = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, header_end - 1))
        match data.draw(st.sampled_from(["byte", "word", "delete", "insert"])):
            case "byte":
                mutated[at] = data.draw(st.integers(0, 255))
            case "word":
                word = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
                mutated[at : at + 8] = struct.pack("<Q", word)
            case "delete":
                del mutated[at : at + data.draw(st.integers(1, 64))]
            case "insert":
                mutated[at:at] = data.draw(st.binary(min_size=1, max_size=64))
    path = write(bytes(mutated))
    refusal: InvalidModelFile | None = None
    try:
        header = read_header(path)
    except InvalidModelFile as error:
        refusal = error
    if refusal is None:
        assert facts_of(header).file_size == len(mutated)
    else:
        assert refusal.path == str(path)
        assert refusal.fault


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=400))
def test_no_bytes_after_the_magic_number_give_anything_but_a_typed_error(
    write: Callable[[bytes], Path], tail: bytes
) -> None:
    with pytest.raises(InvalidModelFile):
        read_header(write(b"GGUF\x03\0\0\0" + tail))
