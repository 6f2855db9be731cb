"""From a name or a path to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.errors import InvalidModelFile, ModelNotFound
from paddock.models import references, resolve


def test_a_path_resolves_to_itself(tiny_model_path: Path) -> None:
    assert resolve(tiny_model_path) == resolve(str(tiny_model_path)) == tiny_model_path


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.gguf").touch()
    assert resolve("~/m.gguf") == tmp_path / "m.gguf"


@pytest.mark.parametrize("source", ["nonesuch", "/no/such/file.gguf", "a\0b", "x" * 5000])
def test_what_is_neither_a_name_nor_a_file_is_not_found(source: str) -> None:
    with pytest.raises(ModelNotFound):
        resolve(source)


def test_a_wrong_name_names_the_house_models() -> None:
    with pytest.raises(ModelNotFound, match="cria"):
        resolve("criaa")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile, match="directory"):
        resolve(tmp_path)


def test_a_house_model_is_a_file_of_the_package_or_reported_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references.resources, "files", lambda _: tmp_path)
    with pytest.raises(ModelNotFound, match="install"):
        resolve("cria")
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "cria.gguf").touch()
    assert resolve("cria") == tmp_path / "house" / "cria.gguf"
