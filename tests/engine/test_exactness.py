"""Recipes and certificates through the engine: what a model says of itself, and what its replies depend on."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import all_at_once, mixed_requests, one_after_another
from structlog.testing import capture_logs

import paddock
from paddock.config import ModelConfig
from paddock.engine.batching.recipes import INVARIANT
from paddock.engine.worker_environment import worker_environment
from paddock.errors import ExactnessNotProven, InvalidConfiguration

TILES = "GGML_CPU_TILED_MM"


@asynccontextmanager
async def serving(path: Path, cache_dir: Path | None = None, **options: Any) -> AsyncIterator[paddock.Model]:
    options = {"n_ctx": 512, "n_seq_max": 4, "n_threads": 1, **options}
    async with paddock.open_runtime(paddock.RuntimeConfig(cache_dir=cache_dir)) as runtime:
        yield await runtime.load_model(path, name="tiny", **options)


async def test_a_model_carries_its_certificate_and_later_loads_read_it(tiny_model_path: Path, tmp_path: Path) -> None:
    async with serving(tiny_model_path, tmp_path, exactness="required") as model:
        made = model.certificate
        assert made is not None
        assert made.holds
        assert not made.stored
        assert (made.recipe, dict(made.weights)) == ("canonical", {"q8_0": 30})
        assert made.model
        assert (await model.complete("abc", max_tokens=2, seed=1)).exactness == "canonical"
    async with serving(tiny_model_path, tmp_path, exactness="required") as model:
        assert model.certificate is not None
        assert model.certificate.stored
        assert model.certificate.checks == made.checks
    async with serving(tiny_model_path, tmp_path, n_seq_max=5) as model:
        assert model.certificate is not None
        assert not model.certificate.stored


async def test_without_exactness_nothing_is_probed_and_nothing_claimed(tiny_model_path: Path, tmp_path: Path) -> None:
    async with serving(tiny_model_path, tmp_path, exactness="off") as model:
        assert model.certificate is None
        assert model.exactness == "off"
    assert not (tmp_path / "certificates").exists()


async def test_what_the_probe_had_no_time_for_is_unproven_or_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    async with serving(tiny_model_path, tmp_path, probe_seconds=0.0) as model:
        assert model.exactness == "unproven"
        assert (await model.complete("abc", max_tokens=2, seed=1)).exactness == "unproven"
        assert model.certificate is not None
        assert not model.certificate.holds
    with pytest.raises(ExactnessNotProven, match="was not run") as caught:
        async with serving(tiny_model_path, tmp_path, probe_seconds=0.0, exactness="required"):
            pass
    assert caught.value.check == "save_restore"


async def test_k_quants_under_the_invariant_recipe_equal_the_same_requests_alone(
    tiny_k_quant_model_path: Path,
) -> None:
    """Their tiles are switched off in the worker's environment."""
    requests = mixed_requests(10, seed=11, longest=150)
    options: dict[str, Any] = {"exactness": "required", "exactness_recipe": "invariant", "n_seq_max": 10}
    async with serving(tiny_k_quant_model_path, **options) as model:
        assert model.exactness == "invariant"
        assert model.certificate is not None
        assert model.certificate.parameters[TILES] == "0"
        alone = await one_after_another(model, requests)
        together = await all_at_once(model, requests, arrivals=random.Random(12))
    assert together == alone


# --- what a certificate promises: docs/exactness.md -------------------------------------------------------------


async def next_token(model: paddock.Model, tokens: Sequence[int]) -> tuple[object, ...]:
    """The token that follows ``tokens``, sent as a prompt, and its log-probabilities."""
    completion = await model.complete(list(tokens), max_tokens=1, temperature=0.0, logprobs=5, seed=1)
    return completion.token_ids, completion.logprobs


PROMPT = [random.Random(3).randrange(300, 2048) for _ in range(90)]


@pytest.mark.parametrize("weights", ["q8_0", "f16"])
async def test_under_the_invariant_recipe_a_reply_sent_again_as_prompt_goes_on_like_the_reply_itself(
    weights: str, tiny_model_path: Path, tiny_f16_model_path: Path
) -> None:
    path = {"q8_0": tiny_model_path, "f16": tiny_f16_model_path}[weights]
    async with serving(path, exactness="required", exactness_recipe="invariant") as model:
        whole = await model.complete(PROMPT, max_tokens=24, temperature=0.0, logprobs=5, seed=1, ignore_eos=True)
        assert whole.logprobs is not None
        for cut in (1, 5, 23):
            token, logprobs = await next_token(model, [*PROMPT, *whole.token_ids[:cut]])
            assert (token, logprobs) == (whole.token_ids[cut : cut + 1], whole.logprobs[cut : cut + 1])


async def test_under_the_canonical_recipe_the_same_prompt_has_the_same_bytes_whoever_wrote_it(
    tiny_f16_model_path: Path,
) -> None:
    """A conversation sent again is prompt from its first token to its last. It need not have the bytes of the reply
    that was generated; it has the bytes of every other request with these tokens."""
    async with serving(tiny_f16_model_path, exactness="required") as model:
        whole = await model.complete(PROMPT, max_tokens=24, temperature=0.0, seed=1, ignore_eos=True)
        again = [*PROMPT, *whole.token_ids[:20]]
        expected = await next_token(model, again)
        requests = mixed_requests(3, seed=5, longest=200)
        for _ in range(3):
            others = [{**request, "max_tokens": 8} for request in requests]
            sent = {"prompt": again, "max_tokens": 1, "temperature": 0.0, "logprobs": 5, "seed": 1}
            *_, completion = await all_at_once(model, [*others, sent])
            assert (completion.token_ids, completion.logprobs) == expected


# --- the environment --------------------------------------------------------------------------------------------


def config(**options: Any) -> ModelConfig:
    return ModelConfig(source="cria", exactness_recipe="invariant", **options)


def test_a_worker_process_gets_the_environment_of_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TILES, raising=False)
    assert worker_environment(config(), INVARIANT) == {TILES: "0"}


def test_a_thread_is_given_no_environment_when_the_library_is_loaded_already(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "llama_cpp" in sys.modules or monkeypatch.setitem(sys.modules, "llama_cpp", sys) is None
    monkeypatch.delenv(TILES, raising=False)
    with capture_logs() as logs:
        assert worker_environment(config(isolation="thread"), INVARIANT) == {}
    assert [log["variables"] for log in logs] == [[TILES]]
    monkeypatch.setenv(TILES, "0")
    assert worker_environment(config(isolation="thread"), INVARIANT) == {TILES: "0"}


async def test_a_thread_that_would_need_another_environment_is_refused_where_exactness_is_required(
    tiny_k_quant_model_path: Path,
) -> None:
    assert os.environ.get(TILES) is None
    import llama_cpp  # noqa: F401  (as an earlier model in this process would have)

    with pytest.raises(InvalidConfiguration, match=f"needs {TILES}=0 .* isolation='process'"):
        async with serving(
            tiny_k_quant_model_path, isolation="thread", exactness="required", exactness_recipe="invariant"
        ):
            pass
    with capture_logs():
        async with serving(tiny_k_quant_model_path, isolation="thread", exactness_recipe="invariant") as model:
            assert model.exactness == "unproven"
            assert model.certificate is not None
            assert model.certificate.shortfall is not None
