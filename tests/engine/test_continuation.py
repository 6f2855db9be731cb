"""A reply that goes on somewhere else: its tokens are replayed as they were computed, its sampler as it stood."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from batch_harness import Batch, open_batch
from serving import serving

import paddock
from paddock.errors import InvalidParameter
from paddock.native.batch import Sampled
from paddock.sampling.parameters import SamplingParameters

SAMPLINGS = {
    "greedy": SamplingParameters(temperature=0.0, seed=5, logprobs=2),
    "penalties, DRY and XTC": SamplingParameters(
        temperature=1.0,
        seed=6,
        logprobs=2,
        repeat_penalty=1.2,
        presence_penalty=0.3,
        dry_multiplier=0.8,
        xtc_probability=0.5,
        xtc_threshold=0.05,
    ),
    "mirostat": SamplingParameters(temperature=1.0, seed=7, logprobs=2, mirostat=2),
}


@pytest.fixture(params=["q8_0", "q4_k_m"])
def model_path(request: pytest.FixtureRequest) -> Path:
    name = "tiny_model_path" if request.param == "q8_0" else "tiny_k_quant_model_path"
    path: Path = request.getfixturevalue(name)
    return path


def prompt_of(seed: int, length: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(300, 2048) for _ in range(length)]


def bits(rows: list[Sampled]) -> list[object]:
    return [(row.token, row.logprob, row.top, row.sampler_state) for row in rows]


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
async def test_a_reply_that_was_broken_off_goes_on_as_if_it_had_not_been(
    model_path: Path, sampling: SamplingParameters
) -> None:
    prompt = prompt_of(1, 90)
    async with open_batch(model_path) as batch:
        unbroken = await batch.run(prompt, sampling, 40)

        async def broken_at(cut: int) -> None:
            first = await batch.run(prompt, sampling, 40, until=cut)
            rest = await batch.run(
                prompt,
                sampling,
                40,
                reply=[row.token for row in first],
                sampler_state=first[-1].sampler_state,
            )
            assert bits(first + rest) == bits(unbroken)

        async def neighbour(batch: Batch, number: int) -> None:
            await batch.run(prompt_of(number, 20 * number), SAMPLINGS["greedy"], 30)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(neighbour, batch, number + 1)
            for cut in (1, 17, 39):
                nursery.start_soon(broken_at, cut)


async def test_tokens_of_an_earlier_turn_are_computed_as_they_were_then(tiny_k_quant_model_path: Path) -> None:
    prompt, more = prompt_of(2, 70), prompt_of(3, 30)
    greedy = {"temperature": 0.0, "seed": 1, "ignore_eos": True, "logprobs": 1}

    async def complete(model: paddock.Model, tokens: list[int], generated: bytes | None) -> paddock.Completion:
        request = model._request(tokens, {**greedy, "max_tokens": 20}, streaming=False, generated=generated)
        async with request:
            return await request.result()

    async with serving(tiny_k_quant_model_path, isolation="thread", n_ctx=512, n_seq_max=2) as model:
        whole = await model.complete(prompt, max_tokens=40, **greedy)
        reply = list(whole.token_ids[:20])
        flags = bytes(len(prompt)) + b"\1" * len(reply)
        before = await model.statistics()
        rest = await complete(model, prompt + reply, flags)
        after = await model.statistics()
        assert rest.token_ids == whole.token_ids[20:]
        assert rest.logprobs == whole.logprobs[20:]
        assert after.prefill_rows - before.prefill_rows == len(prompt)
        as_prompt = await complete(model, prompt + reply, None)
        assert as_prompt.logprobs != rest.logprobs, "the flags would make no difference here"
        turn = await complete(model, prompt + reply + more, flags + bytes(len(more)))
        assert turn == await complete(model, prompt + reply + more, flags + bytes(len(more)))


@pytest.mark.parametrize("generated", [b"\0", b"\0\2\0", b""])
async def test_flags_that_do_not_fit_the_prompt_are_refused(tiny_model_path: Path, generated: bytes) -> None:
    async with serving(tiny_model_path, isolation="thread", n_ctx=256, n_seq_max=1) as model:
        with pytest.raises(InvalidParameter, match="generated"):
            model._request([300, 301, 302], {}, streaming=False, generated=generated)
