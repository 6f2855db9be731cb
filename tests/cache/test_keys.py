from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.cache.keys import Chain, Identity

IDENTITY = Identity(model="m", build="b", context="c", recipe="r", block_tokens=4, payload_bytes=64)

TOKENS = st.lists(st.integers(0, 3), max_size=8)
SEGMENTS = st.lists(st.tuples(st.booleans(), TOKENS), max_size=8)
"""(generated?, tokens) one after another."""


def chain_of(segments: list[tuple[bool, list[int]]], minimum: int = 1, root: bytes | None = None) -> Chain:
    chain = Chain(root or IDENTITY.root(), 4, minimum_chunk=minimum)
    for generated, tokens in segments:
        (chain.append_generated if generated else chain.append_prompt)(tokens)
    chain.seal()
    return chain


def history(segments: list[tuple[bool, list[int]]], minimum: int) -> list[tuple[int, object]]:
    """Each token with how it is computed: generated, as a prompt row, or as one of a short segment of so many."""
    flat = [(token, generated) for generated, tokens in segments for token in tokens]
    result: list[tuple[int, object]] = []
    start = 0
    while start < len(flat):
        end = start
        while end < len(flat) and flat[end][1] == flat[start][1]:
            end += 1
        short = not flat[start][1] and end - start < minimum
        how: object = ("short", end - start) if short else flat[start][1]
        result += [(token, how) for token, _ in flat[start:end]]
        start = end
    return result


@given(SEGMENTS, SEGMENTS, st.integers(1, 6))
def test_two_sequences_share_a_key_exactly_when_they_share_everything_up_to_the_block_s_end(
    one: list[tuple[bool, list[int]]], other: list[tuple[bool, list[int]]], minimum: int
) -> None:
    first, second = chain_of(one, minimum), chain_of(other, minimum)
    histories = history(one, minimum), history(other, minimum)
    for block in range(min(len(first.keys), len(second.keys))):
        end = (block + 1) * 4
        assert (first.keys[block] == second.keys[block]) == (histories[0][:end] == histories[1][:end])


@given(SEGMENTS, st.integers(1, 6), st.data())
def test_keys_do_not_depend_on_how_the_tokens_were_appended_or_when_keys_were_read(
    segments: list[tuple[bool, list[int]]], minimum: int, data: st.DataObject
) -> None:
    whole = chain_of(segments, minimum)
    piecemeal = Chain(IDENTITY.root(), 4, minimum_chunk=minimum)
    for generated, tokens in segments:
        for token in tokens:
            (piecemeal.append_generated if generated else piecemeal.append_prompt)([token])
            if data.draw(st.booleans()):
                piecemeal.seal()
            if data.draw(st.booleans()):
                _ = piecemeal.keys
    piecemeal.seal()
    assert list(piecemeal.keys) == list(whole.keys)


@given(SEGMENTS, st.integers(1, 6), st.data())
def test_a_prefix_has_the_keys_of_a_chain_made_of_its_tokens(
    segments: list[tuple[bool, list[int]]], minimum: int, data: st.DataObject
) -> None:
    whole = chain_of(segments, minimum)
    length = data.draw(st.integers(0, len(whole)))
    cut = whole.prefix(length)
    cut.seal()
    flat = [(generated, [token]) for generated, tokens in segments for token in tokens][:length]
    assert list(cut.keys) == list(chain_of(flat, minimum).keys)
    assert len(whole) == sum(len(tokens) for _, tokens in segments)


def test_keys_of_a_short_segment_wait_until_it_is_known_to_be_one() -> None:
    chain = Chain(IDENTITY.root(), 4, minimum_chunk=6)
    chain.append_prompt([1, 2, 3, 4])
    assert list(chain.keys) == []
    chain.append_prompt([5, 6])
    long = list(chain.keys)
    assert len(long) == 1
    short = Chain(IDENTITY.root(), 4, minimum_chunk=6)
    short.append_prompt([1, 2, 3, 4])
    short.seal()
    assert len(short.keys) == 1
    assert list(short.keys) != long


def test_no_difference_in_anything_that_decides_bits_gives_the_same_root() -> None:
    others = [attrs.evolve(IDENTITY, **{field: "x"}) for field in ("model", "build", "context", "recipe")] + [
        attrs.evolve(IDENTITY, block_tokens=5),
        attrs.evolve(IDENTITY, payload_bytes=65),
        attrs.evolve(IDENTITY, adapters=("a",)),
        attrs.evolve(IDENTITY, adapters=("a", "b")),
        attrs.evolve(IDENTITY, adapters=("ab",)),
        attrs.evolve(IDENTITY, model="mb", build=""),
    ]
    roots = {other.root() for other in [IDENTITY, *others]}
    assert len(roots) == len(others) + 1
    assert IDENTITY.root("alice") != IDENTITY.root("bob") != IDENTITY.root()


def test_tenants_share_no_key_for_the_same_tokens() -> None:
    segments = [(False, [1, 2, 3, 4, 5, 6, 7, 8])]
    keys = [chain_of(segments, root=IDENTITY.root(tenant)).keys for tenant in ("", "alice", "bob")]
    assert len({key for chain in keys for key in chain}) == 6


def test_by_tokens_alone_makes_no_difference_between_prompt_and_generated() -> None:
    mixed = Chain(IDENTITY.root(), 4, minimum_chunk=3, by_tokens_alone=True)
    mixed.append_prompt([1])
    mixed.append_generated([2, 3])
    mixed.append_prompt([4])
    plain = Chain(IDENTITY.root(), 4, by_tokens_alone=True)
    plain.append_prompt([1, 2, 3, 4])
    assert list(mixed.keys) == list(plain.keys)
    assert not mixed.generated.any()


def test_content_is_what_the_key_was_made_of() -> None:
    chain = chain_of([(False, [1, -2, 3, 4]), (True, [5, 6, 7, 8, 9])])
    content = chain.content(1)
    assert content.parent == chain.keys[0]
    assert np.frombuffer(content.tokens, "<i4").tolist() == [5, 6, 7, 8]
    assert content.classes == b"\x01\x01\x01\x01"
    with pytest.raises(IndexError):
        chain.content(2)


def test_hashing_can_be_done_a_few_blocks_at_a_time() -> None:
    chain = Chain(IDENTITY.root(), 4)
    chain.append_prompt(list(range(40)))
    steps = 1
    while chain.hash_some(3):
        steps += 1
    assert steps == 4
    assert list(chain.keys) == list(chain_of([(False, list(range(40)))]).keys)


@pytest.mark.parametrize("field", ["block_tokens", "payload_bytes"])
@pytest.mark.parametrize("value", [0, -1, True, "4"])
def test_an_identity_with_an_absurd_size_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        attrs.evolve(IDENTITY, **{field: value})


@pytest.mark.parametrize("minimum", [0, 255])
def test_a_minimum_chunk_that_no_class_can_hold_is_refused(minimum: int) -> None:
    with pytest.raises(ValueError, match="minimum_chunk"):
        Chain(IDENTITY.root(), 4, minimum_chunk=minimum)
