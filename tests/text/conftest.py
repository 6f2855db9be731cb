from __future__ import annotations

from collections.abc import Iterator

import pytest
from vocabularies import build_byte_level_bpe, build_sentencepiece

from paddock.native.model import ModelLoadParameters, NativeModel


@pytest.fixture(scope="session", params=["spm", "spm-prefix", "bpe-cleaning", "bpe-plain"])
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeModel]:
    """A vocabulary in llama.cpp: with and without space prefix, with and without clean-up of spaces."""
    path = tmp_path_factory.mktemp("vocabularies") / f"{request.param}.gguf"
    match request.param:
        case "spm":
            build_sentencepiece(path, space_prefix=False)
        case "spm-prefix":
            build_sentencepiece(path, space_prefix=True)
        case "bpe-cleaning":
            build_byte_level_bpe(path, pre_tokenizer="gpt-2")
        case "bpe-plain":
            build_byte_level_bpe(path, pre_tokenizer="qwen2")
    model = NativeModel.load(path, ModelLoadParameters(vocab_only=True))
    yield model
    model.free()
