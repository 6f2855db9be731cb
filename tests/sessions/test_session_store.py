"""The file with the sessions: what is read is what was written, and a file that is not right is left alone."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from talking import SAYINGS, how, talking
from writer import FACTS, recorded

from paddock.errors import (
    SessionDamaged,
    SessionExists,
    SessionModelMismatch,
    SessionNotFound,
    SessionNotSaved,
    SessionStoreUnusable,
)
from paddock.sessions.conversation import Conversation
from paddock.sessions.store import FORMAT_VERSION, SessionStore
from paddock.sessions.turns import SessionKey

FILE = "sessions.sqlite3"


async def filled(folder: Path, turns: int) -> None:
    store = SessionStore(folder)
    await store.open(FACTS)
    stored = await store.read(FACTS.key)
    for number in range(1, turns + 1):
        stored = await store.record(stored, recorded(number))
    await store.close()


async def read(folder: Path, key: SessionKey = FACTS.key) -> Conversation:
    store = SessionStore(folder)
    try:
        return (await store.read(key)).conversation
    finally:
        await store.close()


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as db:
        assert db.execute(statement, values).rowcount == 1


async def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    await filled(tmp_path, 3)
    assert await read(tmp_path) == Conversation.of(FACTS, [recorded(1), recorded(2), recorded(3)])
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_turn_costs_what_it_adds(tmp_path: Path) -> None:
    await filled(tmp_path, 30)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        sizes = db.execute(
            "SELECT length(new_tokens) + length(reply_tokens) + length(new_text) + length(reply) + length(details)"
            " FROM turns ORDER BY number"
        ).fetchall()
    assert max(sizes)[0] < min(sizes)[0] + 8  # the numbers in them have more digits


async def test_what_was_read_before_a_change_of_somebody_else_is_read_again_and_cannot_be_written(
    tmp_path: Path,
) -> None:
    await filled(tmp_path, 1)
    one, other = SessionStore(tmp_path), SessionStore(tmp_path)
    mine = await one.read(FACTS.key)
    assert await one.read(FACTS.key, mine) is mine
    theirs = await other.record(await other.read(FACTS.key), recorded(2))
    for attempt in (one.record(mine, recorded(2)), one.rewind(mine, 0)):
        with pytest.raises(SessionNotFound):
            await attempt
    again = await one.read(FACTS.key, mine)
    assert again.conversation == theirs.conversation
    assert (await one.rewind(again, 1)).conversation == mine.conversation
    await other.delete(FACTS.key)
    await other.delete(FACTS.key)
    with pytest.raises(SessionNotFound):
        await one.read(FACTS.key, again)
    await one.open(FACTS)
    assert (await one.read(FACTS.key, again)).conversation.turns == ()
    await one.close()
    await other.close()


async def test_a_fork_is_a_copy_under_another_name(tmp_path: Path) -> None:
    await filled(tmp_path, 3)
    store = SessionStore(tmp_path)
    stored = await store.read(FACTS.key)
    key = SessionKey("default", "two")
    await store.fork(stored, 2, key)
    with pytest.raises(SessionExists):
        await store.fork(stored, 2, key)
    fork = (await store.read(key)).conversation
    assert fork.turns == stored.conversation.turns[:2]
    assert fork.facts == attrs.evolve(FACTS, key=key)
    await store.delete(FACTS.key)
    assert (await store.read(key)).conversation == fork
    await store.close()


async def test_a_session_is_opened_with_the_model_that_it_was_made_with(tmp_path: Path) -> None:
    store = SessionStore(tmp_path)
    await store.open(FACTS)
    assert await store.open(attrs.evolve(FACTS, model="other name", system=None, tools=())) == FACTS
    with pytest.raises(SessionModelMismatch):
        await store.open(attrs.evolve(FACTS, fingerprint="other"))
    await store.close()


def of_one(statement: str) -> str:
    return statement if "WHERE" in statement else f"{statement} WHERE id = 'one'"


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE turns SET reply = 'rep1y' WHERE number = 2", ()),
        ("UPDATE turns SET reply_tokens = x'00' WHERE number = 2", ()),
        ("UPDATE turns SET new_tokens = zeroblob(28) WHERE number = 2", ()),
        ("UPDATE turns SET kept_tokens = 5 WHERE number = 2", ()),
        ("UPDATE turns SET details = '{}' WHERE number = 2", ()),
        ("UPDATE turns SET checksum = x'' WHERE number = 2", ()),
        ("UPDATE turns SET number = 7 WHERE number = 2", ()),
        ("DELETE FROM turns WHERE number = 1", ()),
        ("UPDATE sessions SET tools = '['", ()),
        ("UPDATE sessions SET tools = '{}'", ()),
        ("UPDATE sessions SET system = x'ff'", ()),
    ],
)
async def test_a_row_that_was_changed_is_not_believed_and_its_session_can_be_deleted(
    statement: str, values: tuple[object, ...], tmp_path: Path
) -> None:
    await filled(tmp_path, 3)
    store = SessionStore(tmp_path)
    fine = attrs.evolve(FACTS, key=SessionKey("default", "fine"))
    await store.open(fine)
    await store.close()
    change(tmp_path, of_one(statement), *values)
    with pytest.raises(SessionDamaged):
        await read(tmp_path)
    assert await read(tmp_path, fine.key) == Conversation(fine)
    async with talking("cria", tmp_path / "runtime") as here:  # the same through a session
        session = await here.held("one", 3)
        change(tmp_path / "runtime" / "state", of_one(statement), *values)
        change(tmp_path / "runtime" / "state", "UPDATE sessions SET revision = revision + 1")
        for attempt in (session.say("Hi"), session.history(), session.rewind(0)):
            with pytest.raises(SessionDamaged):
                await attempt
        session = await here.model.session("one")  # a handle to delete it by, also in the next process
        await session.delete()
        assert (await (await here.model.session("one")).say("Hi", max_tokens=2)).number == 1


@pytest.mark.parametrize("kind", ["no database", "other database", "newer", "older", "torn", "folder"])
async def test_a_file_that_is_not_ours_or_not_whole_is_refused_and_left_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    match kind:
        case "no database":
            path.write_bytes(b"dear diary\n" * 500)
        case "other database":
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE diary(entry TEXT)")
        case "newer" | "older":
            await filled(tmp_path, 1)
            version = FORMAT_VERSION + (1 if kind == "newer" else -1)
            with closing(sqlite3.connect(path)) as db:
                db.execute(f"PRAGMA user_version = {version}")
        case "torn":
            await filled(tmp_path, 40)
            path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 4000)
        case "folder":
            path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    store = SessionStore(tmp_path)
    with pytest.raises(SessionStoreUnusable) as refused:
        await store.read((await store.open(FACTS)).key)
    assert refused.value.path == str(path)
    await store.close()
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_two_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    stores = [SessionStore(tmp_path) for _ in range(8)]
    async with trio.open_nursery() as nursery:
        for number, store in enumerate(stores):
            nursery.start_soon(store.open, attrs.evolve(FACTS, key=SessionKey("default", str(number % 3))))
    for store in stores:
        await store.close()
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT count(*) FROM sessions").fetchone() == (3,)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_turn_that_finds_no_room_is_not_lost_to_who_heard_it_and_the_session_is_as_before(
    tmp_path: Path,
) -> None:
    async with talking("cria", tmp_path, ram=0) as here:
        session = await here.held("one", 2)
        before = await session.history()
        with full_disk(), pytest.raises(SessionNotSaved) as lost:
            await session.say(SAYINGS[2], **how(2))
        assert await session.history() == before
        async with session.stream(SAYINGS[2], **how(2)) as reply:
            with full_disk(), pytest.raises(SessionNotSaved):
                await reply.turn()
            assert await session.history() == before
            turn = await reply.turn()  # once there is room again
        assert turn.text == lost.value.reply
        assert await session.history() == (*before, turn)


async def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the folder's place")
    async with talking("cria", tmp_path) as here:
        with pytest.raises(SessionStoreUnusable, match="state"):
            await here.model.session("one")
        await here.model.complete("Hello", max_tokens=2)


async def test_a_file_that_is_deleted_under_the_store_is_noticed_before_anything_is_lost_with_it(
    tmp_path: Path,
) -> None:
    async with talking("cria", tmp_path, ram=0) as here:
        session, other = await here.held("one", 1), await here.held("two", 1)
        async with session.stream(SAYINGS[1], **how(1)) as reply:
            shutil.rmtree(tmp_path / "state")
            with pytest.raises(SessionStoreUnusable, match="deleted or replaced"):
                await other.say(SAYINGS[1], **how(1))
            again = await here.model.session("one")  # with the same numbers in the new file
            for _ in range(2):
                with pytest.raises(SessionNotSaved, match="deleted or replaced"):
                    await reply.turn()
        assert await again.history() == ()
        assert (await again.say(SAYINGS[0], **how(0))).number == 1
        with pytest.raises(SessionNotFound):
            await other.say(SAYINGS[1], **how(1))
    assert len((await read(tmp_path / "state")).turns) == 1
    with pytest.raises(SessionNotFound):
        await read(tmp_path / "state", SessionKey("default", "two"))


async def test_a_store_goes_on_where_only_its_folder_of_locks_was_deleted(tmp_path: Path) -> None:
    async with talking("cria", tmp_path, ram=0) as here:
        session = await here.held("one", 1)
        shutil.rmtree(tmp_path / "state" / "locks")
        assert (await session.say(SAYINGS[1], **how(1))).number == 2
