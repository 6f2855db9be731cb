"""The file with all sessions: SQLite, one transaction for each change, synced before it is reported.

A turn's row holds what the turn added and nothing else, so what a turn costs does not grow with the conversation. The
KV cells of the tokens are not here: they come from the block store, or are computed again. See docs/formats.md.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from paddock.errors import (
    RuntimeClosed,
    SessionDamaged,
    SessionExists,
    SessionModelMismatch,
    SessionNotFound,
    SessionStoreUnusable,
)
from paddock.sessions.conversation import Conversation, RecordedTurn, SessionFacts
from paddock.sessions.records import TURN_COLUMNS, row_of, turn_of
from paddock.sessions.turns import SessionKey

__all__ = ["FORMAT_VERSION", "SessionStore", "Stored"]

T = TypeVar("T")

FORMAT_VERSION: Final = 1
_APPLICATION: Final = 0x50444B53  # "PDKS"
_BUSY_SECONDS: Final = 10.0
"""How long a change waits for another process that writes to the file; each takes milliseconds."""

_SCHEMA: Final = (
    """CREATE TABLE sessions(
        session INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL,
        fingerprint TEXT NOT NULL, model TEXT NOT NULL, system TEXT, tools TEXT NOT NULL, created REAL NOT NULL,
        used REAL NOT NULL, UNIQUE(tenant, id))""",
    """CREATE TABLE turns(
        session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE, number INTEGER NOT NULL,
        kept_tokens INTEGER NOT NULL, new_tokens BLOB NOT NULL, reply_tokens BLOB NOT NULL, kept_text INTEGER NOT NULL,
        new_text TEXT NOT NULL, reply TEXT NOT NULL, details TEXT NOT NULL, checksum BLOB NOT NULL,
        PRIMARY KEY(session, number)) WITHOUT ROWID""",
)

_TURN = ", ".join(TURN_COLUMNS)


class Stored:
    """A conversation as it was read or written: ``session`` and ``revision`` tell whether that is how it still is.

    They mean something in one file alone: ``source`` is the connection that it was read through.
    """

    __slots__ = ("conversation", "revision", "session", "source")

    def __init__(self, source: sqlite3.Connection, session: int, revision: int, conversation: Conversation) -> None:
        self.source = source
        self.session = session
        self.revision = revision
        self.conversation = conversation


class SessionStore:
    """One connection, used by one thread at a time; the file is opened by the first call.

    A file that is deleted or replaced under it is noticed: the call that finds out fails, and the next one opens what
    is there then, or makes a new file.

    The async methods are checkpoints. A call that has begun is waited for, whatever becomes of its caller, so that a
    change is made as a whole or not at all. All raise SessionStoreUnusable, and RuntimeClosed once it is closed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "sessions.sqlite3"
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._closed = False
        self._limiter = trio.CapacityLimiter(1)

    @property
    def lock_folder(self) -> Path:
        """Where the locks of sessions lie; exists once a session has been opened."""
        return self._folder / "locks"

    async def open(self, facts: SessionFacts) -> SessionFacts:
        """Makes the session unless there is one; the facts that it is fixed to. Raises SessionModelMismatch."""
        return await self._run(lambda db: _open(db, facts))

    async def read(self, key: SessionKey, known: Stored | None = None) -> Stored:
        """The conversation; ``known`` where that is current. Raises SessionNotFound and SessionDamaged."""
        return await self._run(lambda db: _read(db, key, known))

    async def record(self, stored: Stored, turn: RecordedTurn) -> Stored:
        """Adds a turn to what was read. Raises SessionNotFound where that is not how it is any more."""
        return await self._run(lambda db: _record(db, stored, turn))

    async def rewind(self, stored: Stored, turns: int) -> Stored:
        """Forgets all but the first ``turns`` turns. Raises SessionNotFound as :meth:`record` does."""
        return await self._run(lambda db: _rewind(db, stored, turns))

    async def fork(self, stored: Stored, turns: int, key: SessionKey) -> None:
        """Makes another session of the first turns of this one. Raises SessionExists."""
        await self._run(lambda db: _fork(db, stored, turns, key))

    async def delete(self, key: SessionKey) -> None:
        """Removes the session and its turns, whatever state they are in. Idempotent."""
        await self._run(lambda db: _delete(db, key))

    async def close(self) -> None:
        """Closes the file; nothing can be read or changed after that. Idempotent."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await trio.to_thread.run_sync(connection.close, limiter=self._limiter)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._in_thread, work, limiter=self._limiter)

    def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise RuntimeClosed
        try:
            if self._connection is None:
                self._connection = _connect(self._folder, self._path)
                self._file = _file_at(self._path)
            elif self._file != _file_at(self._path):
                # SQLite would go on with a file that has no name, and what it writes would be gone with the process.
                connection, self._connection = self._connection, None
                connection.close()
                raise SessionStoreUnusable(self._path, "it was deleted or replaced while it was in use")
            return work(self._connection)
        except sqlite3.Error as error:
            raise SessionStoreUnusable(self._path, str(error)) from error
        except OSError as error:
            raise SessionStoreUnusable(error.filename or self._path, error.strerror or str(error)) from error


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _connect(folder: Path, path: Path) -> sqlite3.Connection:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "locks").mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # Autocommit: transactions begin and end where this module says so.
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Checks whose file it is before anything in it is changed, and makes the tables of a new one."""
    with _reading(db):
        ours = _is_ours(db, path)
    if not ours:
        db.execute("PRAGMA journal_mode = WAL")
        with _changing(db):
            if not _is_ours(db, path):  # another process may have been quicker
                for statement in _SCHEMA:
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")


def _is_ours(db: sqlite3.Connection, path: Path) -> bool:
    """False for a new file. Raises SessionStoreUnusable for one that is something else. Within a transaction."""
    application, version = _figure(db, "PRAGMA application_id"), _figure(db, "PRAGMA user_version")
    if application == _APPLICATION and version == FORMAT_VERSION:
        return True
    if application == _APPLICATION:
        raise SessionStoreUnusable(path, f"it has format version {version}, this Paddock reads {FORMAT_VERSION}")
    if application or version or _figure(db, "SELECT count(*) FROM sqlite_master"):
        raise SessionStoreUnusable(path, "it is a database of something else")
    return False


def _figure(db: sqlite3.Connection, query: str) -> int:
    with closing(db.execute(query)) as found:
        figure: int = found.fetchone()[0]
        return figure


@contextmanager
def _reading(db: sqlite3.Connection) -> Iterator[None]:
    """All that is read in it is as it was at one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")


@contextmanager
def _changing(db: sqlite3.Connection) -> Iterator[None]:
    """One transaction; takes its place among other processes at once, so that what it reads stays true."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _rows(db: sqlite3.Connection, query: str, *values: object) -> list[Any]:
    with closing(db.execute(query, values)) as found:
        return found.fetchall()


def _session(db: sqlite3.Connection, key: SessionKey) -> tuple[int, int, SessionFacts]:
    columns = "session, revision, fingerprint, model, system, tools"
    found = _rows(db, f"SELECT {columns} FROM sessions WHERE tenant = ? AND id = ?", key.tenant, key.id)
    if not found:
        raise SessionNotFound(key.id)
    session, revision, fingerprint, model, system, tools = found[0]
    if not isinstance(revision, int) or not isinstance(system, str | None):
        raise SessionDamaged(key.id, "what it is fixed to is not as it was written")
    try:
        definitions = json.loads(tools)
    except (ValueError, TypeError) as error:
        raise SessionDamaged(key.id, "its tools are not as they were written") from error
    if not isinstance(definitions, list):
        raise SessionDamaged(key.id, "its tools are not as they were written")
    return session, revision, SessionFacts(key, fingerprint, model, system, tuple(definitions))


def _open(db: sqlite3.Connection, facts: SessionFacts) -> SessionFacts:
    with _changing(db):
        try:
            _, _, found = _session(db, facts.key)
        except SessionNotFound:
            _insert(db, facts)
            return facts
        except SessionDamaged:
            return facts  # every use of it says so; but for that it can be deleted there has to be a handle
    if found.fingerprint != facts.fingerprint:
        raise SessionModelMismatch(facts.key.id, found.model, facts.model)
    return found


def _insert(db: sqlite3.Connection, facts: SessionFacts) -> int:
    now = time.time()
    tools = json.dumps(facts.tools, ensure_ascii=False, separators=(",", ":"))
    columns = "tenant, id, revision, fingerprint, model, system, tools, created, used"
    values = (facts.key.tenant, facts.key.id, 0, facts.fingerprint, facts.model, facts.system, tools, now, now)
    with closing(db.execute(f"INSERT INTO sessions({columns}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", values)) as made:
        assert made.lastrowid is not None
        return made.lastrowid


def _read(db: sqlite3.Connection, key: SessionKey, known: Stored | None) -> Stored:
    with _reading(db):
        session, revision, facts = _session(db, key)
        if known is not None and (known.source, known.session, known.revision) == (db, session, revision):
            return known
        rows = _rows(db, f"SELECT {_TURN} FROM turns WHERE session = ? ORDER BY number", session)
    try:
        return Stored(db, session, revision, Conversation.of(facts, [turn_of(row) for row in rows]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SessionDamaged(key.id, str(error)) from error


def _record(db: sqlite3.Connection, stored: Stored, turn: RecordedTurn) -> Stored:
    after = stored.conversation.after(turn)
    row = row_of(turn)
    with _changing(db):
        revision = _changed(db, stored)
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO turns(session, {_TURN}) VALUES(?, {marks})", (stored.session, *row))
    return Stored(db, stored.session, revision, after)


def _rewind(db: sqlite3.Connection, stored: Stored, turns: int) -> Stored:
    conversation = stored.conversation
    after = Conversation.of(conversation.facts, conversation.turns[:turns])
    with _changing(db):
        revision = _changed(db, stored)
        db.execute("DELETE FROM turns WHERE session = ? AND number > ?", (stored.session, turns))
    return Stored(db, stored.session, revision, after)


def _changed(db: sqlite3.Connection, stored: Stored) -> int:
    """Marks the session as changed, if it is as it was read; the new revision."""
    if stored.source is not db:
        raise sqlite3.OperationalError("the file that the session was read from was deleted or replaced")
    update = "UPDATE sessions SET revision = revision + 1, used = ? WHERE session = ? AND revision = ?"
    with closing(db.execute(update, (time.time(), stored.session, stored.revision))) as done:
        if done.rowcount != 1:
            raise SessionNotFound(stored.conversation.facts.key.id)
    return stored.revision + 1


def _fork(db: sqlite3.Connection, stored: Stored, turns: int, key: SessionKey) -> None:
    facts = stored.conversation.facts
    with _changing(db):
        if _rows(db, "SELECT 1 FROM sessions WHERE tenant = ? AND id = ?", key.tenant, key.id):
            raise SessionExists(key.id)
        made = _insert(db, SessionFacts(key, facts.fingerprint, facts.model, facts.system, facts.tools))
        rows = [(made, *row_of(turn)) for turn in stored.conversation.turns[:turns]]
        marks = ", ".join("?" * (len(TURN_COLUMNS) + 1))
        db.executemany(f"INSERT INTO turns(session, {_TURN}) VALUES({marks})", rows)


def _delete(db: sqlite3.Connection, key: SessionKey) -> None:
    with _changing(db):
        db.execute("DELETE FROM sessions WHERE tenant = ? AND id = ?", (key.tenant, key.id))
