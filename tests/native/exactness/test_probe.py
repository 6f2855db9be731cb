"""The probe passes what is exact and finds what is not, on real llama.cpp."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.batching.recipes import CANONICAL, FAST, INVARIANT, Recipe, recipe_for
from paddock.errors import ExactnessNotProven
from paddock.native.context import Context
from paddock.native.exactness.certificate import ProbeOrder
from paddock.native.exactness.certify import certify
from paddock.native.exactness.conversation import Rules, random_sizes
from paddock.native.exactness.probe import ProbeFindings, probe_context
from paddock.native.model import ModelLoadParameters, NativeModel

PATIENCE = 60.0


def rules_of(recipe: Recipe) -> Rules:
    return Rules(
        separate_prefill=recipe.separate_prefill,
        minimum_chunk=recipe.minimum_chunk,
        decode_row_cap=recipe.decode_row_cap,
        tokens_alone=recipe.tokens_alone,
    )


def probe(path: Path, recipe: Recipe, *, rules: Rules | None = None, seconds: float = PATIENCE) -> ProbeFindings:
    model = NativeModel.load(path, {"use_extra_bufts": recipe.use_extra_bufts})
    context = Context.create(
        model,
        {
            "n_ctx": 512,
            "n_seq_max": 9,
            "n_threads": 1,
            "n_threads_batch": 1,
            "flash_attention": recipe.flash_attention,
            "type_v": recipe.type_v,
            "pair_rows": recipe.pair_rows,
        },
    )
    found = probe_context(context, model.n_vocab, rules or rules_of(recipe), seconds=seconds)
    assert [context.position(name) for name in range(9)] == [0] * 9
    context.free()
    model.free()
    return found


def outcomes(found: ProbeFindings) -> dict[str, str]:
    return {check.name: check.outcome for check in found.checks}


CANONICAL_CHECKS = ["save_restore", "sequence_id", "neighbours", "chunks", "threads"]
INVARIANT_CHECKS = [
    "save_restore",
    "sequence_id",
    "neighbours",
    "chunks",
    "token_by_token",
    "reply_as_prompt",
    "threads",
]


@pytest.fixture
def path_of(tiny_model_path: Path, tiny_f16_model_path: Path, tiny_k_quant_model_path: Path) -> Callable[[str], Path]:
    paths = {"q8_0": tiny_model_path, "f16": tiny_f16_model_path, "k": tiny_k_quant_model_path}
    return paths.__getitem__


@pytest.mark.parametrize(("weights", "types"), [("q8_0", {"q8_0"}), ("f16", {"f16"}), ("k", {"q4_K", "q6_K"})])
def test_the_canonical_recipe_of_each_kind_of_weights_passes(
    path_of: Callable[[str], Path], weights: str, types: set[str]
) -> None:
    found = probe(path_of(weights), recipe_for("required", types))
    assert outcomes(found) == dict.fromkeys(CANONICAL_CHECKS, "passed")
    assert {check.tokens for check in found.checks} == {296}
    assert found.thread_counts == (1, 2)


@pytest.mark.parametrize(("weights", "types"), [("q8_0", {"q8_0"}), ("f16", {"f16"})])
def test_the_invariant_recipe_passes(path_of: Callable[[str], Path], weights: str, types: set[str]) -> None:
    """Of K-quants it needs a variable in the environment, hence a process of its own: see the engine's tests."""
    found = probe(path_of(weights), recipe_for("required", types, recipe="invariant"))
    assert outcomes(found) == dict.fromkeys(INVARIANT_CHECKS, "passed")


@pytest.mark.parametrize(
    ("weights", "recipe", "rules", "failing"),
    [
        ("f16", CANONICAL, None, {"neighbours"}),
        ("k", attrs.evolve(CANONICAL, use_extra_bufts=False), None, {"neighbours", "chunks"}),
        ("q8_0", FAST, rules_of(INVARIANT), {"neighbours", "chunks", "threads"}),
        ("f16", INVARIANT, None, {"neighbours", "chunks"}),
    ],
    ids=["f16 rows alone", "k-quants in tiles", "fast settings", "f16 without pairs"],
)
def test_what_is_not_exact_is_found_and_named(
    path_of: Callable[[str], Path], weights: str, recipe: Recipe, rules: Rules | None, failing: set[str]
) -> None:
    found = probe(path_of(weights), recipe, rules=rules)
    failed = {check.name: check for check in found.checks if check.outcome == "failed"}
    assert failing <= failed.keys()
    assert all("differ" in check.detail for check in failed.values())
    assert "save_restore" not in failed


def test_what_there_is_no_time_for_is_not_called_passed(tiny_model_path: Path) -> None:
    found = probe(tiny_model_path, CANONICAL, seconds=0.0)
    assert set(outcomes(found).values()) == {"not_run"}
    assert found.thread_counts == (1,)


def test_it_ends_when_it_is_told_to(model: NativeModel, make_context: Callable[..., Context]) -> None:
    calls = iter([False] * 5)
    found = probe_context(
        make_context(), model.n_vocab, rules_of(CANONICAL), seconds=PATIENCE, stopping=lambda: next(calls, True)
    )
    assert set(outcomes(found).values()) == {"not_run"}


@pytest.mark.parametrize("n_ctx", [16, 40])
def test_a_small_context_is_probed_as_far_as_it_goes(
    model: NativeModel, make_context: Callable[..., Context], n_ctx: int
) -> None:
    found = probe_context(make_context(n_ctx=n_ctx), model.n_vocab, rules_of(CANONICAL), seconds=PATIENCE)
    assert outcomes(found) == dict.fromkeys(CANONICAL_CHECKS, "passed")
    assert max(check.tokens for check in found.checks) == n_ctx


def test_with_one_sequence_there_are_no_neighbours_to_ask_about(
    model: NativeModel, make_context: Callable[..., Context]
) -> None:
    found = probe_context(make_context(n_seq_max=1), model.n_vocab, rules_of(CANONICAL), seconds=PATIENCE)
    assert outcomes(found) == {
        "save_restore": "passed", "sequence_id": "not_applicable", "neighbours": "not_applicable", "chunks": "passed",
        "threads": "passed",
    }  # fmt: skip


@given(st.integers(1, 2000), st.integers(1, 64), st.integers(1, 200), st.integers(0, 100))
def test_random_chunks_add_up_and_are_never_below_the_least(total: int, least: int, most: int, seed: int) -> None:
    sizes = random_sizes(random.Random(seed), total, least, most)
    assert sum(sizes) == total
    assert min(sizes) >= min(total, least)


# --- certificates ---------------------------------------------------------------------------------------------


def order(recipe: Recipe, folder: Path | str = "", *, seconds: float = PATIENCE, required: bool = False) -> ProbeOrder:
    return ProbeOrder(
        recipe=recipe.name,
        rules=attrs.asdict(rules_of(recipe)),
        seconds=seconds,
        required=required,
        model="fingerprint",
        folder=str(folder),
    )


def test_a_certificate_says_what_it_is_of_and_is_made_once(
    model: NativeModel, make_context: Callable[..., Context], tmp_path: Path
) -> None:
    context = make_context()
    made = certify(model, context, ModelLoadParameters(), order(CANONICAL, tmp_path))
    assert made.holds
    assert not made.stored
    assert (made.recipe, made.model, dict(made.weights)) == ("canonical", "fingerprint", {"q8_0": 30})
    assert made.parameters["n_threads"] == "1"
    assert made.parameters["use_extra_bufts"] == "False"
    assert len(made.build) == 32
    again = certify(model, context, ModelLoadParameters(), order(CANONICAL, tmp_path))
    assert again == attrs.evolve(made, stored=True)
    other = certify(model, make_context(n_ctx=256), ModelLoadParameters(), order(CANONICAL, tmp_path))
    assert not other.stored


def test_without_a_folder_nothing_is_kept(model: NativeModel, make_context: Callable[..., Context]) -> None:
    context = make_context(n_ctx=64)
    for _ in range(2):
        assert not certify(model, context, ModelLoadParameters(), order(CANONICAL)).stored


def test_what_is_required_and_does_not_hold_is_an_error_that_names_the_check(
    model: NativeModel, make_context: Callable[..., Context], tmp_path: Path
) -> None:
    context = make_context(flash_attention=True)
    for _ in range(2):  # found, and read from disk
        with pytest.raises(ExactnessNotProven, match="'neighbours' failed \\(other logits") as caught:
            certify(model, context, ModelLoadParameters(), order(INVARIANT, tmp_path, required=True))
        assert (caught.value.recipe, caught.value.check) == ("invariant", "neighbours")
    with pytest.raises(ExactnessNotProven, match="was not run") as caught:
        certify(model, context, ModelLoadParameters(), order(CANONICAL, required=True, seconds=0.0))
    assert caught.value.check == "save_restore"
