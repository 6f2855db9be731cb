"""llama.cpp's log, and what identifies the build."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import llama_cpp
from structlog.testing import capture_logs

from paddock.models.ggml_types import GGML_TYPES
from paddock.native import library
from paddock.native.library import _LogCatcher
from paddock.native.model import NativeModel


def test_the_log_goes_to_structlog_with_its_levels(tiny_model_path: Path) -> None:
    with capture_logs() as logs:
        NativeModel.load(tiny_model_path).free()
    assert any(entry["log_level"] == "info" and "general.architecture" in entry["event"] for entry in logs)
    assert all("\n" not in entry["event"] for entry in logs)


def test_fragments_are_joined_into_lines() -> None:
    catch = _LogCatcher()
    with capture_logs() as logs:
        for level, text in [
            (2, b"a "),
            (5, b"b "),
            (5, b"c\n"),
            (3, b"one\ntwo\n"),
            (2, b"open"),
            (4, b"err\n"),
            (0, b"x\n"),
        ]:
            catch(level, text, None)
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("info", "a b c"),
        ("warning", "one"),
        ("warning", "two"),
        ("info", "open"),
        ("error", "err"),
    ]
    assert list(catch.warnings) == ["one", "two", "err"]


def test_a_line_without_an_end_is_cut_and_bad_utf8_is_replaced() -> None:
    catch = _LogCatcher()
    with capture_logs() as logs:
        catch(2, b"\xff" + b"x" * 5000, None)
        catch(2, None, None)
    assert len(logs) == 1
    assert logs[0]["event"].startswith("\ufffdx")


def test_last_words_are_the_warnings_and_errors_of_the_last_load(tiny_model_path: Path) -> None:
    library.load()
    library._catcher(4, b"an old error\n", None)
    NativeModel.load(tiny_model_path).free()
    assert "an old error" not in library.last_words()
    library._catcher(3, b"a new warning\n", None)
    assert library.last_words().endswith("a new warning")


def test_the_build_is_identified_and_aborts_run_no_debugger() -> None:
    build = library.build()
    assert build == library.build()
    assert build.version == llama_cpp.__version__ == "0.3.36"
    assert len(build.fingerprint) == 32
    assert "CPU" in build.system_info
    assert os.environ["GGML_NO_BACKTRACE"] == "1"


def test_the_table_of_tensor_types_is_that_of_the_library() -> None:
    base = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    base.ggml_type_name.restype = ctypes.c_char_p
    base.ggml_type_size.restype = ctypes.c_size_t
    base.ggml_blck_size.restype = ctypes.c_int64
    library.load()
    found = {
        kind: (base.ggml_type_name(kind).decode(), base.ggml_blck_size(kind), base.ggml_type_size(kind))
        for kind in range(max(GGML_TYPES) + 1)
        if base.ggml_blck_size(kind)
    }
    assert found == {kind: (t.name, t.block_size, t.block_bytes) for kind, t in GGML_TYPES.items()}
