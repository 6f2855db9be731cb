"""Who is suspected, tried and convicted: the rules alone, with every way in which a worker can die."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.suspicion import MOST_FURTHER_DEATHS, Inquiry, after_death, certain_signal, without


def play(n: int, poison: set[int], *, certain: bool, in_step: dict[int, bool]) -> tuple[list[int], int, int]:
    """Runs requests 0 to n - 1 until all are convicted or cleared; ``poison`` kills whenever it is computed.

    The convicted, all deaths, and those that count against the model.
    """
    running = list(range(n))
    inquiry: Inquiry[int] | None = None
    convicted: list[int] = []
    deaths = counted = 0
    while running:
        computed = running if inquiry is None or inquiry.tried is None else [inquiry.tried]
        deadly = [key for key in computed if key in poison]
        if deadly:
            # A step holds whoever is deadly and some of the others.
            in_flight = [key for key in computed if key in deadly or in_step.get(key, True)]
            verdict = after_death(inquiry, in_flight, certain=certain)
            deaths += 1
            counted += verdict.counts
            inquiry = verdict.inquiry
            if verdict.culprit is not None:
                convicted.append(verdict.culprit)
                running.remove(verdict.culprit)
            continue
        if inquiry is None:
            break
        for key in computed:
            inquiry = without(inquiry, key)
    return convicted, deaths, counted


@given(n=st.integers(1, 40), data=st.data(), certain=st.booleans())
def test_one_culprit_is_found_by_three_further_deaths_at_most(n: int, data: st.DataObject, certain: bool) -> None:
    poison = data.draw(st.integers(0, n - 1))
    in_step = data.draw(st.dictionaries(st.integers(0, n - 1), st.booleans()))
    convicted, deaths, counted = play(n, {poison}, certain=certain, in_step=in_step)
    assert convicted == [poison]
    assert deaths - 1 == (2 if certain else 3) <= MOST_FURTHER_DEATHS
    assert counted == 1, "the model is not to blame for the further ones"


@given(n=st.integers(1, 20), data=st.data(), certain=st.booleans())
def test_several_culprits_are_found_one_after_another(n: int, data: st.DataObject, certain: bool) -> None:
    poison = data.draw(st.sets(st.integers(0, n - 1)))
    convicted, deaths, counted = play(n, poison, certain=certain, in_step={})
    assert set(convicted) == poison
    assert len(convicted) == len(poison)
    assert deaths <= len(poison) * (1 + MOST_FURTHER_DEATHS)
    assert counted == len(poison)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), max_size=5, unique=True), st.booleans(), st.lists(st.integers(0, 9))),
        max_size=60,
    )
)
def test_whatever_kills_it_only_so_many_deaths_in_a_row_say_nothing_against_the_model(
    deaths: list[tuple[list[int], bool, list[int]]],
) -> None:
    inquiry: Inquiry[int] | None = None
    forgiven = 0
    for in_flight, certain, cleared in deaths:
        seen = in_flight if inquiry is None or inquiry.tried is None else [k for k in in_flight if k == inquiry.tried]
        verdict = after_death(inquiry, seen, certain=certain)
        forgiven = 0 if verdict.counts else forgiven + 1
        assert forgiven <= MOST_FURTHER_DEATHS
        assert verdict.culprit is None or verdict.culprit in seen
        inquiry = verdict.inquiry
        for key in cleared:
            inquiry = without(inquiry, key)
        assert inquiry is None or (inquiry.suspects and len(set(inquiry.suspects)) == len(inquiry.suspects))


def test_a_single_death_convicts_nobody_and_lets_all_go_on_together() -> None:
    verdict = after_death(None, [3, 2, 1], certain=True)
    assert verdict.culprit is None
    assert verdict.inquiry == Inquiry((3, 2, 1))
    assert verdict.inquiry.tried is None
    assert verdict.counts


def test_a_death_with_nothing_in_flight_has_no_suspects() -> None:
    assert after_death(None, [], certain=True).inquiry is None
    tried = Inquiry((1, 2), alone=True, deaths=1)
    verdict = after_death(tried, [], certain=True)
    assert (verdict.inquiry, verdict.culprit, verdict.counts) == (tried, None, True)


def test_two_deaths_of_different_requests_are_two_inquiries() -> None:
    first = after_death(None, [1, 2], certain=True).inquiry
    verdict = after_death(first, [3], certain=True)
    assert (verdict.inquiry, verdict.counts) == (Inquiry((3,)), True)


def test_only_who_was_in_flight_both_times_is_tried() -> None:
    first = after_death(None, [4, 3, 2, 1], certain=True).inquiry
    second = after_death(without(first, 4), [5, 3, 1], certain=True).inquiry
    assert second is not None
    assert (second.tried, second.suspects) == (3, (3, 1))


def test_who_is_cleared_makes_room_for_the_next_with_a_clean_slate() -> None:
    tried = Inquiry((1, 2), alone=True, deaths=2, strikes=1)
    after = without(tried, 1)
    assert after == Inquiry((2,), alone=True, deaths=2, strikes=0)
    assert without(after, 2) is None
    assert without(after, 9) is after


def test_a_kill_from_outside_is_weaker_evidence_than_a_fault() -> None:
    assert certain_signal("signal SIGSEGV")
    assert certain_signal("exit code 1")
    assert not certain_signal("signal SIGKILL")
    assert not certain_signal("it hung: no answer to a ping for 30 s, so it was killed")
