"""The batch policy as a pure function: nobody starves, nobody stalls for more than a chunk, the recipe
holds."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.batching.policy import (
    BatchLimits,
    DecodeRow,
    Plan,
    PrefillRow,
    PrefillSlice,
    chunk_length,
    plan_batch,
)
from paddock.engine.batching.recipes import CANONICAL, FAST, INVARIANT, recipe_for

K_QUANTS = recipe_for("preferred", {"q4_K", "q6_K"})
LIMITS = BatchLimits(n_batch=512, prefill_chunk=128, recipe=CANONICAL)


def test_nothing_to_do_gives_an_empty_plan():
    assert plan_batch([], [], LIMITS, prefill_turn=False).empty


def test_all_decode_rows_go_in_one_call_ordered_by_sequence_id():
    rows = [DecodeRow(5, 0, 0), DecodeRow(1, 0, 3), DecodeRow(3, 9, 1)]
    assert plan_batch(rows, [], LIMITS, prefill_turn=True) == Plan(decode=(1, 3, 5))


def test_prompt_rows_are_in_a_call_of_their_own_and_take_turns_with_decode_rows():
    decode, prefill = [DecodeRow(0, 0, 0)], [PrefillRow(1, 0, 0, 1000)]
    assert plan_batch(decode, prefill, LIMITS, prefill_turn=False) == Plan(decode=(0,))
    assert plan_batch(decode, prefill, LIMITS, prefill_turn=True) == Plan(prefill=(PrefillSlice(1, 128),))


def test_a_prompt_uses_the_whole_batch_while_nobody_decodes():
    assert plan_batch([], [PrefillRow(1, 0, 0, 1000)], LIMITS, prefill_turn=False).prefill == (PrefillSlice(1, 512),)


def test_higher_priority_prompts_go_first_and_equals_take_turns():
    rows = [PrefillRow(0, 0, 1, 50), PrefillRow(1, 5, 9, 50), PrefillRow(2, 5, 2, 50)]
    assert plan_batch([], rows, LIMITS, prefill_turn=True).prefill == (PrefillSlice(2, 50),)


def test_the_decode_cap_of_k_quants_is_kept_and_shared_fairly():
    limits = attrs.evolve(LIMITS, recipe=K_QUANTS)
    served = dict.fromkeys(range(16), 0)
    for step in range(1, 33):
        plan = plan_batch([DecodeRow(i, 0, at) for i, at in served.items()], [], limits, prefill_turn=False)
        assert len(plan.decode) == 7
        served.update(dict.fromkeys(plan.decode, step))
    assert min(served.values()) >= 30


def test_without_exactness_decode_rows_and_prompt_rows_share_a_call():
    limits = attrs.evolve(LIMITS, recipe=FAST)
    plan = plan_batch(
        [DecodeRow(0, 0, 0)], [PrefillRow(1, 0, 0, 100), PrefillRow(2, 0, 1, 100)], limits, prefill_turn=False
    )
    assert plan == Plan(decode=(0,), prefill=(PrefillSlice(1, 100), PrefillSlice(2, 28)))


@given(
    remaining=st.integers(1, 3000),
    budget=st.integers(1, 600),
    minimum=st.integers(1, 8),
)
def test_a_chunk_never_leaves_a_rest_below_the_minimum(remaining: int, budget: int, minimum: int):
    n_batch = max(budget, 32)
    length = chunk_length(remaining, budget, minimum, n_batch)
    rest = remaining - length
    assert 1 <= length <= min(remaining, n_batch)
    assert rest == 0 or rest >= minimum
    assert length >= minimum or length == remaining
    assert length <= max(budget, minimum) + minimum - 1


@given(st.data())
def test_any_mix_of_requests_finishes_and_no_stream_waits_for_more_than_one_chunk(data: st.DataObject):
    recipe = data.draw(st.sampled_from([CANONICAL, FAST, K_QUANTS]))
    limits = BatchLimits(n_batch=64, prefill_chunk=16, recipe=recipe)
    prompts = dict(enumerate(data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=10))))
    replies = {i: data.draw(st.integers(1, 20)) for i in prompts}
    served = dict.fromkeys(prompts, 0)
    prefill_turn, waited, step = False, 0, 0
    while replies:
        step += 1
        assert step < 5000, "somebody starves"
        decode = [DecodeRow(i, 0, served[i]) for i in replies if not prompts[i]]
        prefill = [PrefillRow(i, 0, served[i], prompts[i]) for i in replies if prompts[i]]
        plan = plan_batch(decode, prefill, limits, prefill_turn=prefill_turn)
        assert not plan.empty
        rows = len(plan.decode) + sum(item.length for item in plan.prefill)
        assert rows <= limits.n_batch
        if recipe.separate_prefill:
            assert not (plan.decode and plan.prefill)
            assert len(plan.prefill) <= 1
        waited = waited + 1 if decode and not plan.decode else 0
        assert waited <= 1
        for item in plan.prefill:
            prompts[item.sequence_id] -= item.length
            assert prompts[item.sequence_id] == 0 or prompts[item.sequence_id] >= recipe.minimum_chunk
        for i in plan.decode:
            replies[i] -= 1
            if not replies[i]:
                del replies[i]
        for i in (*plan.decode, *(item.sequence_id for item in plan.prefill)):
            served[i] = step
        prefill_turn = bool(plan.decode)


@pytest.mark.parametrize(
    ("types", "cap", "pairs", "repack"),
    [
        ({"q8_0"}, None, False, True),
        ({"q4_0", "q8_0"}, None, False, True),
        ({"q5_0", "q4_1", "tq2_0"}, None, False, False),
        ({"q4_K", "q6_K"}, 7, False, False),
        ({"q4_0", "q6_K"}, 7, False, True),
        ({"iq4_xs"}, 7, False, False),
        ({"iq4_nl"}, None, True, False),
        ({"f16"}, None, True, False),
        ({"q8_0", "f32"}, None, True, False),
        ({"q6_K", "bf16"}, 5, True, False),
    ],
)
def test_the_canonical_recipe_follows_the_matrix_types(types: set[str], cap: int | None, pairs: bool, repack: bool):
    recipe = recipe_for("preferred", types)
    assert recipe.name == "canonical"
    assert (recipe.decode_row_cap, recipe.pair_rows, recipe.use_extra_bufts) == (cap, pairs, repack)
    assert recipe.minimum_chunk == (2 if cap is None else 8)
    assert recipe.separates_generated
    assert not recipe.flash_attention
    assert not recipe.environment


@pytest.mark.parametrize("n_seq_max", [1, 2, 3])
def test_where_few_sequences_can_run_each_row_is_computed_by_itself_instead_of_in_pairs(n_seq_max: int):
    recipe = recipe_for("preferred", {"f16", "q6_K"}, n_seq_max=n_seq_max)
    assert (recipe.pair_rows, recipe.decode_row_cap) == ((False, 1) if n_seq_max < 3 else (True, 5))
    assert recipe_for("preferred", {"q8_0"}, n_seq_max=n_seq_max).decode_row_cap is None
    assert recipe_for("preferred", {"f16"}, recipe="invariant", n_seq_max=n_seq_max).pair_rows


def test_tiles_are_off_where_the_rows_of_one_expert_would_decide():
    recipe = recipe_for("preferred", {"q4_K", "f32"}, mixture=True)
    assert recipe.environment == (("GGML_CPU_TILED_MM", "0"),)
    assert (recipe.decode_row_cap, recipe.minimum_chunk, recipe.pair_rows) == (None, 2, True)
    assert recipe_for("preferred", {"q8_0", "f32"}, mixture=True).environment == ()


def test_under_the_invariant_recipe_rows_of_all_kinds_share_calls_unless_they_are_paired():
    recipe = recipe_for("required", {"q4_K", "q8_0"}, recipe="invariant")
    assert recipe == INVARIANT
    assert not recipe.separates_generated
    paired = recipe_for("required", {"f16"}, recipe="invariant")
    assert (paired.name, paired.pair_rows, paired.separate_prefill) == ("invariant", True, True)
    assert paired.environment == ()  # a thread of a process that has loaded llama.cpp already can have it, too
    assert not paired.separates_generated


def test_without_exactness_weights_and_recipe_do_not_matter():
    assert recipe_for("off", {"f16"}, recipe="invariant") == FAST


def test_without_exactness_decode_rows_that_fill_every_call_leave_a_row_to_the_prompts():
    limits = BatchLimits(n_batch=32, prefill_chunk=16, recipe=FAST)
    decode = [DecodeRow(number, 0, number) for number in range(40)]
    plan = plan_batch(decode, [PrefillRow(50, 0, 0, 100)], limits, prefill_turn=False)
    assert (len(plan.decode), plan.prefill) == (31, (PrefillSlice(50, 1),))
    assert len(plan_batch(decode, [], limits, prefill_turn=False).decode) == 32
