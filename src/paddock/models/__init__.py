"""Model files: references, the GGUF header reader, and the facts that follow from a header."""

from paddock.models.facts import ModelFacts, facts_of
from paddock.models.gguf_header import GgufArray, GgufHeader, GgufValue, TensorInfo, read_header
from paddock.models.references import HOUSE_MODELS, resolve

__all__ = [
    "HOUSE_MODELS",
    "GgufArray",
    "GgufHeader",
    "GgufValue",
    "ModelFacts",
    "TensorInfo",
    "facts_of",
    "read_header",
    "resolve",
]
