"""The keeper of a model's arena: it gives the model its place in the KV store, and takes it back at the end.

It is the first process of the model's subtree, so it is the last to be stopped, when no worker can touch a slot any
more. Arena and handle outlive it in a :class:`ModelCache`: a worker or a machine that is restarted finds every block.
"""

from __future__ import annotations

import attrs
import trio

import supervisors as sup
from paddock.cache.arena import Arena
from paddock.cache.block_store import ModelHandle
from paddock.cache.client import KvStore
from paddock.cache.keys import Identity
from paddock.engine.caching.fingerprint import fingerprint_of
from paddock.engine.caching.identity import identity_of
from paddock.engine.caching.messages import CacheOpened, OpenCache, ServedCache
from paddock.engine.caching.prefix import ChainRules
from paddock.engine.plan import ModelPlan
from paddock.engine.worker.protocol import Loaded
from paddock.errors import CacheError
from paddock.telemetry.loggers import get_logger

__all__ = ["KEEPER_SECONDS", "ArenaKeeper", "ModelCache"]

_log = get_logger("paddock.cache")

_OPEN_SECONDS = 10.0
"""How long a model that has been loaded waits for its place in the store before it serves without one."""

_FLUSH_SECONDS = 5.0
"""How long the end of a model waits until its blocks are on disk."""

KEEPER_SECONDS = _FLUSH_SECONDS + 3.0
"""How long the keeper may take to end."""


@attrs.define(eq=False)
class ModelCache:
    """What belongs to a model's subtree and to no process in it."""

    store: KvStore
    arena: Arena
    handle: ModelHandle | None = None


class ArenaKeeper(sup.GenServer):
    """Opens the model for the store whenever a worker has loaded it. Nothing that fails here keeps it from serving."""

    def __init__(self, plan: ModelPlan, cache: ModelCache) -> None:
        self._plan = plan
        self._cache = cache

    async def init(self) -> sup.Continue:
        sup.trap_exits(True)  # so that terminate runs
        return sup.Continue("fingerprint")  # while the worker loads

    async def handle_continue(self, content: object) -> None:
        try:
            await self._fingerprint()
        except OSError:
            pass  # the worker will say what is wrong with the file

    async def handle_cast(self, message: object) -> None:
        if not isinstance(message, OpenCache):
            raise TypeError(f"unknown message {type(message).__name__}")
        served: ServedCache | None = None
        try:
            with trio.fail_after(_OPEN_SECONDS):
                served = await self._open(message.loaded)
        except (CacheError, OSError, trio.TooSlowError) as error:
            _log.warning("no prefix cache for this model", model=self._plan.name, problem=str(error))
        sup.cast(message.reply_to, CacheOpened(message.port, message.loaded, served))

    async def _open(self, loaded: Loaded) -> ServedCache | None:
        cache, plan = self._cache, self._plan
        if loaded.state != "blocks":
            problem = f"its state is stored as {loaded.state!r}: {loaded.state_problem}"
            _log.warning("no prefix cache for this model", model=plan.name, problem=problem)
            return None
        # Asked for each time: a worker that is started again loads what is there now.
        identity = identity_of(await self._fingerprint(), plan.load, loaded, plan.recipe)
        if cache.handle is None or cache.handle.identity != identity:
            await self._close()
            cache.arena.shape(identity.payload_bytes)
            if cache.arena.capacity == 0:
                raise CacheError(f"ram_cache_bytes holds no block of {identity.payload_bytes} bytes")
            cache.handle = await cache.store.open_model(identity, cache.arena)
        return ServedCache(cache.handle, self._rules(identity))

    def _rules(self, identity: Identity) -> ChainRules:
        recipe = self._plan.recipe
        return ChainRules(
            identity=identity.digest(),
            block_tokens=identity.block_tokens,
            minimum_chunk=recipe.minimum_chunk,
            by_tokens_alone=not recipe.separates_generated,
        )

    async def _fingerprint(self) -> str:
        return await trio.to_thread.run_sync(fingerprint_of, self._plan.facts.path, abandon_on_cancel=True)

    async def _close(self) -> None:
        handle, self._cache.handle = self._cache.handle, None
        if handle is not None:
            await self._cache.store.close_model(handle)

    async def handle_info(self, message: object) -> sup.Stop | None:
        return sup.Stop(message.reason) if isinstance(message, sup.ExitSignal) else None

    async def terminate(self, reason: object) -> None:
        """At the end of the model its blocks are written to disk, where there is one, and its memory is given back."""
        if not isinstance(reason, sup.Shutdown):
            return  # started again, it goes on with every block
        cache = self._cache
        with sup.cleanup_scope():
            try:
                if cache.handle is not None:
                    await cache.store.flush(cache.handle, timeout=_FLUSH_SECONDS)
            except CacheError:
                pass  # what is not on disk is lost, and computed again
            try:
                await self._close()
            except CacheError:
                pass
        cache.arena.close()
