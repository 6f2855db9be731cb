"""The fetcher pool."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import trio

import supervisors as sup
from supervisors.testing import assert_no_process_left, run_in_virtual_time, virtual_clock


@pytest.fixture
def pool(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("supervisors/fetcher_pool")


def test_the_program_prints_every_page(pool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    sup.run(pool.main)
    assert capsys.readouterr().out.splitlines() == [f"page {n:02}: this is page {n:02}" for n in range(12)]


def test_no_more_pages_a_second_than_the_rate_allows(pool: ModuleType) -> None:
    times: list[float] = []

    async def fetch(page: str) -> str:
        times.append(trio.current_time())
        await trio.sleep(10)
        return page.upper()

    async def main(node: sup.Node) -> None:
        results = await pool.crawl(node, ["a", "b", "c", "d", "e"], fetch, rate=2)
        assert results == {page: page.upper() for page in "abcde"}
        assert_no_process_left(node)

    sup.run(main, clock=virtual_clock())
    assert times == [0, 0.5, 1, 1.5, 2], "spaced by the limiter, but side by side"


def test_a_page_is_tried_three_times_and_then_given_up(pool: ModuleType) -> None:
    tries: list[str] = []

    async def fetch(page: str) -> str:
        tries.append(page)
        if page == "bad" or tries.count(page) < 3:
            raise ConnectionResetError("hung up")
        return "good"

    async def main() -> None:
        async with sup.open_node() as node:
            results = await pool.crawl(node, ["bad", "flaky"], fetch)
            assert results["flaky"] == "good"
            assert results["bad"].startswith("given up: Crashed")

    run_in_virtual_time(main)
    assert sorted(tries) == ["bad"] * 3 + ["flaky"] * 3


def test_a_fetch_that_was_stopped_takes_no_turn(pool: ModuleType) -> None:
    async def main() -> None:
        async with sup.open_node() as node:
            limiter = await node.start(pool.RateLimiter, 1)
            await sup.call(limiter, pool.Permit())
            given_up, waiting = (sup.send_request(limiter, pool.Permit()) for _ in range(2))
            given_up.abandon()
            await waiting.wait()
            assert trio.current_time() == 1

    run_in_virtual_time(main)


def test_results_asked_for_late_are_there_at_once(pool: ModuleType) -> None:
    async def main() -> None:
        async with sup.open_node() as node:
            crawl = await node.start(pool.Crawl, [], None)
            assert await sup.call(crawl, pool.Results()) == {}

    run_in_virtual_time(main)
