"""From what a caller writes, ``"cria"`` or a path, to a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from paddock.errors import InvalidModelFile, ModelNotFound

__all__ = ["HOUSE_MODELS", "resolve"]

HOUSE_MODELS = ("cria",)
"""Models that are part of the package."""


def resolve(source: str | Path) -> Path:
    """The model file behind ``source``: the name of a house model, or a path (``~`` is the home folder).

    Raises :class:`paddock.errors.ModelNotFound`, or :class:`paddock.errors.InvalidModelFile` for a folder.
    Whether the file is a model is checked by :func:`paddock.models.read_header`.
    """
    if isinstance(source, str) and source in HOUSE_MODELS:
        path = Path(str(resources.files("paddock.models"))) / "house" / f"{source}.gguf"
        if not path.is_file():
            raise ModelNotFound(source, "the house model is missing from this installation; install paddock again")
        return path
    try:
        path = Path(source).expanduser()
        found, folder = path.exists(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFound(source, str(error)) from None
    if not found:
        near = f" (house models: {', '.join(HOUSE_MODELS)})" if path.name == str(source) else ""
        raise ModelNotFound(source, f"no such file or model name{near}")
    if folder:
        raise InvalidModelFile(path, "is a directory; give the path of the GGUF file in it")
    return path
