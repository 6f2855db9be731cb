"""Text, without input or output: token pieces, incremental UTF-8, stop strings, chat templates."""

from __future__ import annotations

from paddock.text.chat import ChatTemplate
from paddock.text.detokenizer import IncrementalDetokenizer
from paddock.text.pieces import PieceTable
from paddock.text.stops import StopScanner
from paddock.text.stream import AssembledDelta, TextAssembler, TokenLogprob
from paddock.text.utf8 import IncrementalDecoder

__all__ = [
    "AssembledDelta",
    "ChatTemplate",
    "IncrementalDecoder",
    "IncrementalDetokenizer",
    "PieceTable",
    "StopScanner",
    "TextAssembler",
    "TokenLogprob",
]
