"""A worker process: what it inherits, how it ends, and what is said about it when it does."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio
from port_harness import exists, is_running, load, opening, prompt, receive_until

from paddock.engine.worker import protocol
from paddock.engine.worker.process_transport import (
    MAX_UNSENT_BYTES,
    LastWords,
    ProcessTransport,
    describe_exit,
)
from paddock.engine.worker.transport import open_transport
from paddock.errors import WorkerBusy, WorkerDied

CHATTY = [sys.executable, "-c", "import os, sys; connection = int(sys.argv[1]); exec(os.environ['SCRIPT'])"]


async def death_of(script: str) -> WorkerDied:
    """How the death of a worker that runs ``script`` is reported; ``connection`` is its socket's number."""
    async with open_transport("process", command=CHATTY, environment={"SCRIPT": script}) as transport:
        with pytest.raises(WorkerDied) as caught:
            await transport.receive()
        assert transport.os_pid is not None
        assert not exists(transport.os_pid)
    return caught.value


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_worker_that_dies_of_a_signal_is_reported_with_the_signals_name(
    tiny_model_path: Path, number: signal.Signals
) -> None:
    async with open_transport("process") as transport:
        await load(transport, tiny_model_path)
        assert transport.os_pid is not None
        os.kill(transport.os_pid, number)
        with pytest.raises(WorkerDied) as caught:
            await transport.receive()
        assert caught.value.how == f"signal {number.name}"
        assert not exists(transport.os_pid)
        transport.send(protocol.Ping(1))  # to the dead: no error, no answer
        with pytest.raises(WorkerDied):
            await transport.receive()


async def test_an_exit_code_and_the_last_words_are_reported() -> None:
    error = await death_of("print('to stdout', flush=True); print('to stderr', file=sys.stderr); sys.exit(3)")
    assert error.how == "exit code 3"
    assert error.last_words == "to stdout\nto stderr"
    assert "exit code 3" in str(error)
    assert "to stderr" in str(error)


async def test_ggmls_abort_message_is_among_the_last_words() -> None:
    error = await death_of(
        "import ctypes; from paddock.native import library; library.load(); from llama_cpp import _ggml;"
        "_ggml.libggml.ggml_abort(b'model.cpp', 42, b'GGML_ASSERT(%s) failed', b'n > 0')"
    )
    assert error.how == "signal SIGABRT"
    assert "model.cpp:42: GGML_ASSERT(n > 0) failed" in error.last_words


async def test_last_words_are_bounded_however_much_is_written() -> None:
    error = await death_of("os.write(2, b'x' * 300_000); [print('line', i) for i in range(5000)]; sys.exit(1)")
    assert error.last_words.endswith("line 4999")
    assert len(error.last_words.splitlines()) <= 40


def test_last_words_keep_whole_lines_across_any_cut() -> None:
    words = LastWords()
    for at in range(0, len(text := b"first\nsecond \xf0\x9f\xa6\x99\nthird"), 3):
        words.feed(text[at : at + 3])
    assert words.text() == "first\nsecond 🦙\nthird"


def test_an_exit_is_described_in_words() -> None:
    assert describe_exit(0) == "exit code 0"
    assert describe_exit(-9) == "signal SIGKILL"
    assert describe_exit(-63) == "signal 63"


@pytest.mark.parametrize(
    "garbage", ["b'\\xff' * 64", "b'\\x03\\0\\0\\0abc'", "b'\\x01\\0\\0\\0\\xc0'"], ids=["length", "body", "type"]
)
async def test_a_worker_that_writes_garbage_is_killed_and_named(garbage: str) -> None:
    error = await death_of(f"os.write(connection, {garbage}); import time; time.sleep(60)")
    assert "the worker sent" in error.how or "a frame claims" in error.how


async def test_a_worker_that_closes_its_socket_and_lives_on_is_killed() -> None:
    error = await death_of("os.close(connection); import time; time.sleep(60)")
    assert error.how == "signal SIGKILL"


async def test_garbage_to_the_worker_ends_it_with_its_own_exit_code() -> None:
    async with open_transport("process") as transport:
        assert isinstance(transport, ProcessTransport)
        transport._connection.send(b"\x05\0\0\0hello")
        with pytest.raises(WorkerDied) as caught:
            await receive_until(transport, protocol.Loaded)
        assert caught.value.how == "exit code 3"
        assert "no message" in caught.value.last_words


async def test_a_command_that_cannot_be_started_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        async with open_transport("process", command=["/nonexistent/python"]):
            raise AssertionError("unreachable")


async def test_the_end_of_the_block_ends_the_worker_in_good_order(tiny_model_path: Path) -> None:
    async with open_transport("process", stop_seconds=30) as transport:
        assert isinstance(transport, ProcessTransport)
        await load(transport, tiny_model_path)
    assert transport._process.returncode == 0


async def test_a_cancelled_block_ends_the_worker_too_while_it_decodes(tiny_model_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_transport("process", stop_seconds=30) as transport:
            assert isinstance(transport, ProcessTransport)
            await load(transport, tiny_model_path)
            transport.send(protocol.Step(1, [], [opening(0)], [prompt(2000)]))
            transport.send(protocol.Ping(2))
            await receive_until(transport, protocol.Pong)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert transport._process.returncode == 0


async def test_nothing_is_left_open_after_workers_that_ended_died_or_never_were(tiny_model_path: Path) -> None:
    async def rounds() -> None:
        async with open_transport("process") as transport:
            await load(transport, tiny_model_path)
        await death_of("sys.exit(1)")
        with pytest.raises(FileNotFoundError):
            async with open_transport("process", command=["/nonexistent/python"]):
                raise AssertionError("unreachable")

    await rounds()
    before = len(os.listdir("/proc/self/fd"))
    await rounds()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_cancelled_block_still_writes_what_was_queued_before_its_stop(tiny_model_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_transport("process", stop_seconds=30) as transport:
            assert isinstance(transport, ProcessTransport)
            await load(transport, tiny_model_path)
            for number in range(8):
                transport.send(protocol.Tokenize(number, b"a llama " * 50_000, False, False))
            assert transport._unsent
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert transport._process.returncode == 0


async def test_a_stopped_worker_fills_a_bounded_queue_and_is_killed_at_the_end(tiny_model_path: Path) -> None:
    async with open_transport("process", stop_seconds=0.1) as transport:
        assert isinstance(transport, ProcessTransport)
        await load(transport, tiny_model_path)
        assert transport.os_pid is not None
        os.kill(transport.os_pid, signal.SIGSTOP)
        text = protocol.Tokenize(1, bytes(8 << 20), False, False)
        for _ in range(MAX_UNSENT_BYTES // (8 << 20)):
            transport.send(text)
        with pytest.raises(WorkerBusy) as caught:
            transport.send(text)
        assert caught.value.limit == MAX_UNSENT_BYTES
    assert transport._process.returncode == -signal.SIGKILL
    assert not exists(transport.os_pid)


async def test_what_does_not_fit_into_the_socket_arrives_whole_and_in_order(tiny_model_path: Path) -> None:
    async with open_transport("process") as transport:
        await load(transport, tiny_model_path)
        for number in range(1, 6):
            transport.send(protocol.Tokenize(number, b"a llama " * (50_000 if number < 5 else 1), False, False))
        answers = [await receive_until(transport, protocol.Tokenized) for _ in range(5)]
        assert [answer.request_id for answer in answers] == [1, 2, 3, 4, 5]
        assert len({len(answer.tokens) for answer in answers[:4]}) == 1
        assert len(answers[0].tokens) > len(answers[4].tokens) > 0


async def test_a_worker_has_its_environment_and_that_of_its_parent() -> None:
    environment = {"SCRIPT": "print(os.environ['GGML_NO_BACKTRACE'], os.environ['GGML_CPU_TILED_MM'], os.getcwd())"}
    async with open_transport(
        "process", command=CHATTY, environment=environment | {"GGML_CPU_TILED_MM": "0"}
    ) as transport:
        with pytest.raises(WorkerDied) as caught:
            await transport.receive()
    assert caught.value.last_words == f"1 0 {os.getcwd()}"
    assert "GGML_CPU_TILED_MM" not in os.environ


def sockets_of(os_pid: int | None) -> list[str]:
    links = [os.readlink(entry) for entry in Path(f"/proc/{os_pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")]


async def test_a_worker_holds_its_own_socket_and_nobody_elses() -> None:
    script = {"SCRIPT": "os.read(connection, 1)"}
    async with (
        open_transport("process", command=CHATTY, environment=script) as one,
        open_transport("process", command=CHATTY, environment=script) as other,
    ):
        sockets = []
        for transport in (one, other):
            sockets.append(sockets_of(transport.os_pid))
            transport.kill()
    assert [len(links) for links in sockets] == [1, 1]
    assert sockets[0] != sockets[1]


async def test_a_worker_ignores_what_a_terminal_and_an_init_system_send_to_everyone(tiny_model_path: Path) -> None:
    async with open_transport("process") as transport:
        await load(transport, tiny_model_path)
        assert transport.os_pid is not None
        assert os.getpgid(transport.os_pid) != os.getpgid(0)
        os.kill(transport.os_pid, signal.SIGINT)
        os.kill(transport.os_pid, signal.SIGTERM)
        transport.send(protocol.Ping(9))
        assert (await receive_until(transport, protocol.Pong)).request_id == 9


async def test_llama_cpps_log_comes_as_messages_and_the_output_stays_empty(tiny_model_path: Path) -> None:
    async with open_transport("process") as transport:
        assert isinstance(transport, ProcessTransport)
        transport.send(protocol.Load(str(tiny_model_path), {}, {"n_ctx": 256, "n_seq_max": 1}))
        lines = []
        while not isinstance(message := await transport.receive(), protocol.Loaded):
            if isinstance(message, protocol.Log):
                lines.append(message)
        assert {line.level for line in lines} <= {"info", "warning", "error"}
        assert any("llama" in line.text for line in lines)
        assert transport._output.text() == ""


async def end_of(os_pid: int) -> None:
    """Waits for the end of a process that is nobody's child here."""
    try:
        descriptor = os.pidfd_open(os_pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


PARENT = """
import ctypes, sys, trio
from paddock.engine.worker.transport import open_transport
from paddock.engine.worker import protocol

async def main():
    async with open_transport("process") as one, open_transport("process") as other:
        one.send(protocol.Load(sys.argv[1], {}, {"n_ctx": 2048, "n_seq_max": 4, "n_batch": 2048}))
        while not isinstance(await one.receive(), protocol.Loaded):
            pass
        if sys.argv[2] == "decoding":
            chunk = protocol.Chunk(0, 1, 0, [300 + i % 1000 for i in range(2000)], 1)
            opening = protocol.OpenSequence(0, 1, {"temperature": 0.0, "seed": 1})
            one.send(protocol.Step(1, [], [opening], [chunk]))
        relative = 0
        if sys.argv[2] == "forked":
            # The C library's fork: Python's hooks, which would close the sockets in the child, do not run.
            relative = ctypes.CDLL(None).fork()
            if relative == 0:
                while True:
                    ctypes.CDLL(None).pause()
        print(one.os_pid, other.os_pid, relative, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("state", ["idle", "decoding", "forked"])
async def test_no_worker_outlives_a_parent_that_is_killed(tiny_model_path: Path, state: str) -> None:
    parent = await trio.lowlevel.open_process([sys.executable, "-c", PARENT, str(tiny_model_path), state], stdout=-1)
    assert parent.stdout is not None
    line = b""
    with trio.fail_after(30):
        while not line.endswith(b"\n"):
            line += await parent.stdout.receive_some()
    *workers, relative = [int(word) for word in line.split()]
    assert len(workers) == 2
    assert all(is_running(worker) for worker in workers)
    parent.kill()
    await parent.wait()
    await parent.stdout.aclose()
    try:
        with trio.fail_after(2):
            for worker in workers:
                await end_of(worker)
    finally:
        if relative:
            os.kill(relative, signal.SIGKILL)


def seen_by_a_fork(descriptor: int) -> bytes:
    """Whether a forked child has this file descriptor: b"open" or b"closed"."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
            os.write(writer, b"open")
        except OSError:
            os.write(writer, b"closed")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(reader, 16)
    os.close(reader)
    os.close(writer)
    return answer


async def test_a_fork_of_the_parent_does_not_hold_the_workers_socket() -> None:
    """A child made by fork that outlives the parent would keep the worker from seeing the end of the
    stream."""
    async with open_transport("process", command=CHATTY, environment={"SCRIPT": "os.read(connection, 1)"}) as transport:
        assert isinstance(transport, ProcessTransport)
        answer = seen_by_a_fork(transport._connection.fileno())
        transport.kill()
    assert answer == b"closed"
