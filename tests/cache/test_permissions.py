"""Files and folders without permission. Root may do everything, so the store runs in a process that gives that up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import trio
from test_store import CHAIN, OTHER, world
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
folder = Path(sys.argv[1]) / "cache"

async def main():
    results = []
    async with world(folder) as w:
        await w.save(CHAIN)
        await w.store.flush()
    (path,) = folder.rglob(CHAIN.keys[6].hex() + ".kv")
    path.chmod(0)
    async with world(folder) as w:
        await w.disk_is("on")
        results += [await w.found(CHAIN), (await w.statistics()).disk_errors]
        await w.save(CHAIN)
        results += [await w.store.flush(), await w.found(CHAIN)]
    folders = [folder, folder / "temporary", *(p for p in (folder / "blocks").rglob("*") if p.is_dir())]
    for path in folders:
        path.chmod(0o500)
    async with world(folder) as w:
        results += [await w.found(CHAIN)]
        await w.save(OTHER)
        statistics = await w.statistics()
        results += [await w.store.flush(), statistics.disk, statistics.disk_problem]
    for path in folders:
        path.chmod(0o700)
    print(json.dumps(results))

trio.run(main)
"""


def test_a_file_or_a_folder_without_permission_is_a_miss_and_no_more() -> None:
    with tempfile.TemporaryDirectory() as place:
        if os.getuid() == 0:
            os.chown(place, 65534, 65534)
        command = [sys.executable, "-c", SCRIPT, place, str(Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    unreadable_file, read_only_folder = json.loads(done.stdout)[:4], json.loads(done.stdout)[4:]
    assert unreadable_file == [6, 1, 0, 10]
    assert read_only_folder == [10, 5, "read-only", "Permission denied"]
    assert done.stderr.count("cache folder cannot be written to") == 1
