from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gguf_builders import CHATML
from paddock.cli import main


def models(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["models", *map(str, arguments)])


def test_show_gives_the_facts_of_a_file_and_how_it_would_run(tiny_model_path: Path) -> None:
    result = models("show", tiny_model_path)
    assert result.exit_code == 0
    for fact in ("llama", "attention", "q8_0 (tensors: 30 q8_0, 9 f32)", "4096 tokens", "mit", "canonical"):
        assert fact in result.stdout


def test_show_json_is_one_object_with_all_facts(tiny_model_path: Path) -> None:
    shown = json.loads(models("show", "--json", tiny_model_path).stdout)
    assert shown["architecture"] == "llama"
    assert shown["memory_class"] == "attention"
    assert shown["weight_types"] == {"q8_0": 30, "f32": 9}
    assert shown["path"] == str(tiny_model_path)
    assert shown["chat_template"] is True
    assert shown["recipe"]["name"] == "canonical"
    assert (shown["served"], shown["n_ctx_default"]) == (True, 4096)


def test_show_tells_the_size_of_the_kv_cache_that_llama_cpp_reserves() -> None:
    """llama.cpp's own line for the house model: ``size = 16.00 MiB (2048 cells, 4 layers, 8/8 seqs)``."""
    assert "16.0 MiB for 8 sequences of 2048 tokens" in models("show", "cria").stdout
    assert json.loads(models("show", "--json", "cria").stdout)["kv_cache_bytes_default"] == 16 << 20


def test_the_chat_template_comes_on_request(tiny_model_path: Path) -> None:
    assert models("show", "--chat-template", tiny_model_path).stdout == CHATML.rstrip("\n") + "\n"
    assert json.loads(models("show", "--chat-template", "--json", tiny_model_path).stdout)["chat_template"] == CHATML


def test_a_missing_chat_template_is_an_error_when_it_is_asked_for(scripted_model: Callable[..., Path]) -> None:
    result = models("show", "--chat-template", scripted_model(b"x", chat_template=None))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "ChatTemplateMissing" in result.stderr


def test_each_bad_file_has_its_typed_error_on_one_line(tmp_path: Path, tiny_model_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("no model at all")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model_path.read_bytes()[:100_000])
    expected = {text: "NotGguf", cut: "TruncatedGguf", tmp_path: "InvalidModelFile", tmp_path / "no": "ModelNotFound"}
    for path, kind in expected.items():
        result = models("show", path)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("paddock: error: ")
        assert result.stderr.endswith(f"[{kind}]\n")
        assert result.stderr.count("\n") == 1


def test_an_error_under_json_is_an_object_on_stdout_with_the_error_s_attributes(tmp_path: Path) -> None:
    result = models("show", "--json", tmp_path / "no.gguf")
    assert (result.exit_code, result.stderr) == (1, "")
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "ModelNotFound"
    assert error["source"] == str(tmp_path / "no.gguf")
    assert str(tmp_path / "no.gguf") in error["message"]


def test_list_names_the_house_models() -> None:
    assert models("list").stdout.startswith("cria ")
    assert [entry["name"] for entry in json.loads(models("list", "--json").stdout)["models"]] == ["cria"]


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 10**12, 10**18])
def test_sizes_are_readable(size: int) -> None:
    from paddock.cli.model_facts import _bytes

    number, unit = _bytes(size).split()
    assert unit in ("B", "KiB", "MiB", "GiB", "TiB")
    assert float(number) < 1024 or unit == "TiB"
