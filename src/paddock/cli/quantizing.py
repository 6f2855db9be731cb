"""What ``paddock models quantize`` does: a file is written whole under its name, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from paddock.cli.interrupts import Interrupts, run_interruptible
from paddock.cli.loading import progress_of
from paddock.cli.output import write_json, write_text
from paddock.errors import InvalidConfiguration, QuantizationFailed
from paddock.models import facts_of, read_header, resolve

__all__ = ["quantize", "target_of"]

_COMMAND = (sys.executable, "-m", "paddock.native.quantizing")


def target_of(source: Path, file_type: str, target: str | None) -> Path:
    """Where the result goes: ``target``, or beside the source, its name with the type at its end."""
    if target is not None:
        return Path(target)
    return Path.cwd() / f"{source.stem}-{file_type}.gguf"


def quantize(source: str, file_type: str, target: str | None, options: Mapping[str, Any]) -> None:
    """Quantizes and prints what came out.

    Raises ModelNotFound and InvalidModelFile for the source, InvalidConfiguration for a target that is there already or
    cannot be written, QuantizationFailed.
    """
    path = resolve(source)
    facts_of(read_header(path))  # refused with its fault named, before llama.cpp sees it
    destination = target_of(path, file_type, target)
    if os.path.lexists(destination) and not options.get("force"):
        raise InvalidConfiguration("DST", f"{destination} is there already; --force replaces a file")
    if destination.exists() and not destination.is_file():
        raise InvalidConfiguration("DST", f"{destination} is no file that could be replaced")  # /dev/null, for one
    if destination.exists() and destination.samefile(path):
        raise InvalidConfiguration("DST", f"{destination} is the source itself")

    async def work(_: Interrupts) -> None:
        with progress_of(f"quantizing {path.name}", bool(options.get("quiet"))) as report:
            await _quantize(path, destination, file_type, options, report)

    run_interruptible(work)
    facts = facts_of(read_header(destination))
    before, after = path.stat().st_size, facts.file_size
    if options.get("as_json"):
        write_json({"source": path, "path": destination, "type": file_type, "source_size": before, "file_size": after,
                    "weights": dict(facts.weight_types)})  # fmt: skip
    else:
        write_text(f"{destination}  {after / before:.0%} of {path.name}, {facts.dominant_type}\n")


async def _quantize(
    source: Path, destination: Path, file_type: str, options: Mapping[str, Any], report: Callable[[float], None]
) -> None:
    """Into a temporary file beside the destination, which takes its place when it is complete and on disk."""
    try:  # one call for a short while each: nothing else runs here that a slow file system would hold up
        descriptor, name = tempfile.mkstemp(prefix=f".{destination.name}.", suffix=".tmp", dir=destination.parent)
    except OSError as error:
        raise InvalidConfiguration("DST", f"{destination.parent} cannot be written to: {error}") from error
    temporary = Path(name)
    os.close(descriptor)
    try:
        flags = [str(int(bool(options.get(flag)))) for flag in ("requantize", "pure")]
        command = [*_COMMAND, str(source), name, file_type, str(options.get("threads") or 0), *flags]
        try:
            await _run(command, str(source), report)
        except QuantizationFailed as error:
            raise QuantizationFailed(str(source), error.reason + _advice(error.reason, destination.parent)) from error
        await trio.to_thread.run_sync(_publish, temporary, destination, bool(options.get("force")))
    finally:
        temporary.unlink(missing_ok=True)  # noqa: ASYNC240


def _advice(reason: str, folder: Path) -> str:
    """What can be done about a failure that llama.cpp reports in words of its own."""
    if "requantizing" in reason:
        return "; --requantize allows it"
    if "iostream" in reason:
        return f"; the result could not be written, {folder} has {shutil.disk_usage(folder).free >> 20} MiB left"
    return ""


async def _run(command: list[str], source: str, report: Callable[[float], None]) -> None:
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    outcome: dict[str, Any] = {}
    try:
        pending = b""
        async for data in process.stdout:
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "done" in said:
                    report(said["done"] / said["of"])
                else:
                    outcome = said
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
    if code != 0 or "error" not in outcome:
        raise QuantizationFailed(source, f"llama.cpp ended its process with {code}")
    if outcome["error"] is not None:
        raise QuantizationFailed(source, outcome["error"])


def _publish(temporary: Path, destination: Path, force: bool) -> None:
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.chmod(temporary, 0o666 & ~_umask())
    if force:
        os.replace(temporary, destination)
    else:
        try:
            os.link(temporary, destination)  # fails where a file has come to be there meanwhile
        except FileExistsError:
            raise InvalidConfiguration("DST", f"{destination} is there already; --force replaces a file") from None
        except OSError:
            os.replace(temporary, destination)  # no links on this file system
    folder = os.open(destination.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
