"""The port and its worker, the same for a worker process and a worker thread."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from port_harness import exists, open_port, opening, prompt

import supervisors as sup
from paddock.engine.worker import protocol
from paddock.engine.worker.messages import (
    AbortDecode,
    LoadProgressed,
    LogitsDone,
    PingWorker,
    RunSampleLogits,
    StartWorker,
    StepDone,
    TokenizeText,
    WorkerInfo,
    WorkerReady,
    WorkerRefused,
)
from paddock.engine.worker.transport import Isolation
from paddock.errors import (
    DecodeAborted,
    InvalidBatch,
    ModelNotFound,
    NotGguf,
    WorkerDied,
)
from paddock.native.batch import Chunk, SampleMode

pytestmark = pytest.mark.parametrize("isolation", ["process", "thread"])


async def test_a_port_says_that_it_is_up_and_starts_nothing_by_itself(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path, start=False) as setting:
        status = await sup.call(setting.port, WorkerInfo())
        assert (status.isolation, status.state, status.os_pid) == (isolation, "idle", None)


async def test_loading_reports_progress_and_then_what_was_loaded(isolation: Isolation, tiny_model_path: Path) -> None:
    async with open_port(isolation, tiny_model_path, start=False) as setting:
        sup.cast(setting.port, StartWorker(0.0))
        fractions: list[float] = []
        while not isinstance(message := await setting.next(LoadProgressed | WorkerReady), WorkerReady):
            fractions.append(message.fraction)
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        loaded = message.loaded
        assert message.port is setting.port
        assert (loaded.n_vocab, loaded.n_ctx, loaded.n_seq_max, loaded.n_batch) == (2048, 2048, 4, 2048)
        assert len(loaded.offsets) == 4 * (loaded.n_vocab + 1)
        assert loaded.special["bos"] == 1
        assert loaded.eog
        assert loaded.memory["kv"] > 0
        assert (await sup.call(setting.port, WorkerInfo())).state == "ready"


async def test_a_text_becomes_the_same_tokens_every_time(isolation: Isolation, tiny_model_path: Path) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        first = await sup.call(setting.port, TokenizeText(b"a llama", True, False))
        again = await sup.call(setting.port, TokenizeText(b"a llama", True, False))
        bare = await sup.call(setting.port, TokenizeText(b"a llama", False, False))
        assert first == again == [1, *bare]
        assert len(bare) >= 1


async def test_a_step_opens_decodes_and_samples_and_releases(isolation: Isolation, tiny_model_path: Path) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        done = await setting.step([prompt(7)], [opening(0)])
        assert done.error is None
        (sampled,) = done.sampled
        assert (sampled.sequence_id, sampled.generation) == (0, 1)
        assert 0 <= sampled.token < 2048
        assert done.seconds > 0
        again = await setting.step([prompt(7, generation=2)], [opening(0, 2)], [protocol.SequenceRef(0, 1)])
        assert [item.token for item in again.sampled] == [sampled.token]
        nothing = await setting.step()
        assert (nothing.error, nothing.sampled) == (None, [])


async def test_a_step_that_is_no_batch_is_refused_and_changes_nothing(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        first = await setting.step([prompt(5)], [opening(0)])
        wrong = Chunk(0, 1, 3, [400], SampleMode.TOKEN)
        refused = await setting.step([wrong])
        assert isinstance(refused.error, InvalidBatch)
        assert refused.sampled == []
        assert refused.positions == {0: 5}
        stale = await setting.step([Chunk(0, 9, 5, [400], SampleMode.TOKEN)])
        assert isinstance(stale.error, InvalidBatch)
        following = await setting.step([Chunk(0, 1, 5, [first.sampled[0].token], SampleMode.TOKEN)])
        assert following.error is None


async def test_steps_answer_in_the_order_in_which_they_were_cast(isolation: Isolation, tiny_model_path: Path) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        wanted = [setting.cast_step([prompt(40, sequence_id=i)], [opening(i)]) for i in range(3)]
        wanted += [setting.cast_step() for _ in range(5)]
        assert [(await setting.next(StepDone)).step_id for _ in wanted] == wanted


async def test_a_logits_row_comes_back_and_is_sampled_after_a_hook(isolation: Isolation, tiny_model_path: Path) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        asked = await setting.step([prompt(6, sample=SampleMode.LOGITS)], [opening(0)])
        assert asked.error is None
        row = asked.sampled[0].logits
        assert row is not None
        assert len(row) == 4 * 2048
        sup.cast(setting.port, RunSampleLogits(setting.owner, 77, 0, 1, row))
        done = await setting.next(LogitsDone)
        assert (done.step_id, done.error) == (77, None)
        plain = await setting.step([prompt(6, sequence_id=1)], [opening(1)])
        assert done.sampled.token == plain.sampled[0].token
        sup.cast(setting.port, RunSampleLogits(setting.owner, 78, 0, 1, b"short"))
        assert (await setting.next(LogitsDone)).error is not None


async def test_a_text_is_tokenized_and_a_ping_answered_while_the_worker_decodes(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        setting.cast_step([prompt(2000)], [opening(0)])
        pong = await setting.decoding()
        await sup.call(setting.port, TokenizeText(b"a llama", True, False))
        with pytest.raises(trio.WouldBlock):
            setting.inbox.receive_nowait()
        done = await setting.next(StepDone)
        assert done.error is None
        assert 0.0 < pong.decoding_seconds < done.seconds
        idle = await sup.call(setting.port, PingWorker())
        assert idle.decoding_seconds == 0.0


async def test_an_abort_ends_the_decode_call_and_the_step_after_it_runs(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        whole = await setting.step([prompt(2000)], [opening(0)])
        assert whole.error is None
        setting.cast_step([prompt(2000, sequence_id=1)], [opening(1)])
        await setting.decoding()
        sup.cast(setting.port, AbortDecode())
        aborted = await setting.next(StepDone)
        assert isinstance(aborted.error, DecodeAborted)
        assert aborted.seconds < whole.seconds
        assert aborted.positions[1] < 2000
        again = await setting.step([prompt(30, sequence_id=1, generation=2)], [opening(1, 2)])
        assert again.error is None


async def test_an_abort_behind_its_step_is_never_lost_and_never_hits_the_next_one(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        for generation in range(1, 6):
            setting.cast_step([prompt(2000, generation=generation)], [opening(0, generation)])
            sup.cast(setting.port, AbortDecode())
            setting.cast_step([prompt(9, sequence_id=1, generation=generation)], [opening(1, generation)])
            assert isinstance((await setting.next(StepDone)).error, DecodeAborted)
            assert (await setting.next(StepDone)).error is None
        sup.cast(setting.port, AbortDecode())
        assert (await setting.step([prompt(9, sequence_id=2)], [opening(2)])).error is None


@pytest.mark.parametrize(
    ("content", "error"), [(None, ModelNotFound), (b"once upon a time", NotGguf)], ids=["missing", "text"]
)
async def test_a_model_that_cannot_be_loaded_is_refused_and_the_port_lives_on(
    isolation: Isolation, tmp_path: Path, content: bytes | None, error: type[Exception]
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    async with open_port(isolation, path, start=False) as setting:
        for _ in range(2):
            sup.cast(setting.port, StartWorker(0.0))
            refused = await setting.next(WorkerRefused)
            assert refused.port is setting.port
            assert type(refused.error) is error
            status = await sup.call(setting.port, WorkerInfo())
            assert (status.state, status.os_pid) == ("idle", None)


async def test_a_model_whose_name_is_no_unicode_is_loaded_too(
    isolation: Isolation, tmp_path: Path, tiny_model_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"cria-\xff.gguf")
    path.symlink_to(tiny_model_path)
    async with open_port(isolation, path) as setting:
        assert (await setting.step([prompt(3)], [opening(0)])).error is None
    path.unlink()
    async with open_port(isolation, path, start=False) as setting:
        sup.cast(setting.port, StartWorker(0.0))
        assert type((await setting.next(WorkerRefused)).error) is ModelNotFound


async def test_a_context_that_cannot_be_made_is_refused(isolation: Isolation, tiny_model_path: Path) -> None:
    async with open_port(isolation, tiny_model_path, start=False, context={"n_seq_max": 0}) as setting:
        sup.cast(setting.port, StartWorker(0.0))
        refused = await setting.next(WorkerRefused)
        assert "n_seq_max" in str(refused.error)


async def test_what_is_asked_before_there_is_a_worker_is_answered_with_a_typed_error(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path, start=False) as setting:
        with pytest.raises(WorkerDied, match="not running"):
            await sup.call(setting.port, TokenizeText(b"x", True, False))
        assert isinstance((await setting.step()).error, WorkerDied)
        sup.cast(setting.port, AbortDecode())
        assert (await sup.call(setting.port, WorkerInfo())).state == "idle"


async def test_a_port_stops_while_its_worker_waits_loads_serves_or_decodes(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path, start=False) as setting:
        await sup.stop(setting.port)
    async with open_port(isolation, tiny_model_path, start=False) as setting:
        sup.cast(setting.port, StartWorker(3600.0))
        assert (await sup.call(setting.port, WorkerInfo())).state == "starting"
        await sup.stop(setting.port)
    async with open_port(isolation, tiny_model_path, start=False) as setting:
        sup.cast(setting.port, StartWorker(0.0))
        await setting.next(LoadProgressed)
        await sup.stop(setting.port)
    async with open_port(isolation, tiny_model_path) as setting:
        await sup.stop(setting.port)
    async with open_port(isolation, tiny_model_path) as setting:
        setting.cast_step([prompt(2000)], [opening(0)])
        await setting.decoding()
        await sup.stop(setting.port)


async def test_a_port_that_is_sent_an_exit_signal_ends_its_worker_first(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        os_pid = (await sup.call(setting.port, WorkerInfo())).os_pid
        sup.exit(setting.port, sup.Shutdown("load timed out"))
        assert await sup.wait_down(setting.port) == sup.Shutdown("load timed out")
        assert os_pid is None or not exists(os_pid)


async def test_a_second_start_while_there_is_a_worker_changes_nothing(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        before = await sup.call(setting.port, WorkerInfo())
        sup.cast(setting.port, StartWorker(0.0))
        after = await sup.call(setting.port, WorkerInfo())
        assert (after.state, after.os_pid) == ("ready", before.os_pid)


async def test_two_ports_serve_at_once(isolation: Isolation, tiny_model_path: Path, tiny_f16_model_path: Path) -> None:
    async with (
        open_port(isolation, tiny_model_path) as one,
        open_port(isolation, tiny_f16_model_path) as other,
    ):
        one.cast_step([prompt(50)], [opening(0)])
        other.cast_step([prompt(50)], [opening(0)])
        for setting in (one, other):
            assert (await setting.next(StepDone)).error is None
        await sup.stop(one.port)
        assert (await other.step([prompt(5, sequence_id=1)], [opening(1)])).error is None


async def test_more_steps_than_a_worker_may_hold_are_answered_as_busy_and_the_rest_run(
    isolation: Isolation, tiny_model_path: Path
) -> None:
    async with open_port(isolation, tiny_model_path) as setting:
        setting.cast_step([prompt(2000)], [opening(0)])
        wanted = [setting.cast_step() for _ in range(80)]
        answers = {done.step_id: done.error for done in [await setting.next(StepDone) for _ in range(81)]}
        busy = [step_id for step_id, error in answers.items() if error is not None]
        assert 0 < len(busy) <= 80 - 63
        assert all(type(answers[step_id]).__name__ == "WorkerBusy" for step_id in busy)
        assert set(wanted) | {1} == set(answers)
