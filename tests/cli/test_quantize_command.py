"""``paddock models quantize``: a complete file under its name, or nothing and a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from paddock.cli import main
from paddock.cli.commands.models import FILE_TYPES
from paddock.models import facts_of, read_header
from paddock.native import quantize as native


def quantize(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["models", "quantize", "--threads", "1", *map(str, arguments)])


def error_type(result: Result) -> str:
    assert result.exit_code == 1
    kind: str = json.loads(result.stdout)["error"]["type"]
    return kind


def test_a_model_is_written_with_the_wanted_weights(tiny_f16_model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    result = quantize("--json", tiny_f16_model_path, "q8_0", target)
    assert result.exit_code == 0, result.stderr
    written = json.loads(result.stdout)
    facts = facts_of(read_header(target))
    assert written == {
        "source": str(tiny_f16_model_path), "path": str(target), "type": "Q8_0", "file_size": facts.file_size,
        "source_size": tiny_f16_model_path.stat().st_size, "weights": dict(facts.weight_types),
    }  # fmt: skip
    assert facts.dominant_type == "q8_0"
    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf"]
    assert "quantizing tiny-f16.gguf" in result.stderr


def test_without_a_name_it_goes_into_the_current_folder(
    tiny_f16_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = quantize("-q", "--pure", tiny_f16_model_path, "Q4_1")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert facts_of(read_header(tmp_path / "tiny-f16-Q4_1.gguf")).matrix_types.keys() == {"q4_1"}


def test_what_is_there_already_is_replaced_only_when_told_to(tiny_f16_model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.gguf"
    target.write_bytes(b"precious")
    assert error_type(quantize("--json", tiny_f16_model_path, "Q8_0", target)) == "InvalidConfiguration"
    assert target.read_bytes() == b"precious"
    assert quantize("-q", "--force", tiny_f16_model_path, "Q8_0", target).exit_code == 0
    assert facts_of(read_header(target)).dominant_type == "q8_0"
    assert error_type(quantize("--json", "--force", target, "Q4_0", target)) == "InvalidConfiguration"
    assert error_type(quantize("--json", "--force", target, "Q4_0", tmp_path)) == "InvalidConfiguration"


def test_a_failure_is_named_and_leaves_nothing_behind(tiny_k_quant_model_path: Path, tmp_path: Path) -> None:
    result = quantize("--json", tiny_k_quant_model_path, "Q8_0", tmp_path / "x.gguf")
    assert error_type(result) == "QuantizationFailed"
    assert "requantizing" in json.loads(result.stdout)["error"]["message"]
    assert json.loads(result.stdout)["error"]["message"].endswith("--requantize allows it")
    assert not list(tmp_path.iterdir())


def test_a_source_that_is_no_model_is_refused_before_llama_cpp_sees_it(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF" * 100)
    assert error_type(quantize("--json", tmp_path / "no.gguf", "Q8_0", tmp_path / "x.gguf")) in (
        "CorruptGguf", "AbsurdGguf", "NotGguf", "TruncatedGguf", "InvalidModelFile",
    )  # fmt: skip
    assert error_type(quantize("--json", tmp_path / "none.gguf", "Q8_0", tmp_path / "x.gguf")) == "ModelNotFound"


def test_a_folder_that_is_not_there_is_an_error(tiny_f16_model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "x.gguf"
    assert error_type(quantize("--json", tiny_f16_model_path, "Q8_0", target)) == "InvalidConfiguration"


def test_an_unknown_type_is_wrong_usage(tiny_f16_model_path: Path) -> None:
    assert quantize(tiny_f16_model_path, "Q9_9").exit_code == 2
    assert tuple(native.FILE_TYPES) == FILE_TYPES


def test_what_is_no_file_is_never_replaced_and_a_link_only_when_told_to(
    tiny_f16_model_path: Path, tmp_path: Path
) -> None:
    device = tmp_path / "pipe"
    os.mkfifo(device)
    assert error_type(quantize("--json", "--force", tiny_f16_model_path, "Q8_0", device)) == "InvalidConfiguration"
    assert device.is_fifo()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert error_type(quantize("--json", tiny_f16_model_path, "Q8_0", link)) == "InvalidConfiguration"
    assert link.is_symlink()


def test_the_help_names_every_type() -> None:
    words = CliRunner().invoke(main, ["models", "quantize", "--help"]).stdout.split()
    assert set(native.FILE_TYPES) <= set(words)
