"""Two Paddocks on one cache folder, one of them killed again and again. In the slow group: `make test-slow`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest
import sharing
import trio

from paddock.cache.maintenance import collect, list_files, verify

KILLS = 6


async def replies(process: trio.Process, wanted: int) -> None:
    """Until so many more replies have been given, all of them the right ones."""
    assert process.stdout is not None
    while wanted > 0:
        data = await process.stdout.receive_some()
        assert data, "the process has ended"
        assert b"other" not in data
        wanted -= data.count(b"ok")


@pytest.mark.slow
async def test_processes_that_share_a_folder_and_are_killed_tear_and_mix_up_no_block(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    rng = random.Random(6)
    workers: set[int] = set()
    command = [sys.executable, sharing.__file__, str(tiny_model_path), str(tmp_path)]
    async with trio.open_nursery() as nursery:

        async def start(number: int) -> trio.Process:
            run = partial(trio.run_process, [*command, str(number)], stdout=subprocess.PIPE, check=False)
            process: trio.Process = await nursery.start(run)
            return process

        running = [await start(0), await start(1)]
        for kill in range(KILLS):
            for process in running:
                await replies(process, 10)
            await trio.sleep(rng.random())
            victim = running.pop(rng.randrange(2))
            workers.update(child.pid for child in psutil.Process(victim.pid).children(recursive=True))
            victim.kill()
            await victim.wait()
            await trio.to_thread.run_sync(partial(collect, tmp_path))
            files = await trio.to_thread.run_sync(list_files, tmp_path)
            assert [bad for bad in verify(tmp_path, files) if bad] == []
            running.append(await start(2 + kill))
        for process in running:
            await replies(process, 10)
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        while any(psutil.pid_exists(pid) for pid in workers):
            await trio.sleep(0.05)
    collect(tmp_path)
    assert [name for name in os.listdir(tmp_path / "temporary") if name.endswith(".tmp")] == []
