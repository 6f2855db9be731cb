"""The runtime: opens the supervision tree, loads and unloads models.

    async with paddock.open_runtime() as runtime:
        model = await runtime.load_model("cria")
        completion = await model.complete("Once upon a time", max_tokens=48, seed=7)

Every method is for the trio task that runs the runtime's event loop; see ``paddock.aio`` for asyncio and
``paddock.blocking`` for threads.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio

import supervisors as sup
from paddock.api.model import Model
from paddock.cache.arena import Arena
from paddock.cache.client import KvStore
from paddock.cache.statistics import CacheStatistics
from paddock.cache.tree import cache_spec
from paddock.config import ModelConfig, RuntimeConfig, read_runtime_config, user_cache_dir, user_state_dir
from paddock.engine.caching.fingerprint import fingerprint_of
from paddock.engine.plan import ModelPlan, plan_model
from paddock.engine.requests.messages import AwaitServing, Drain
from paddock.engine.served import ServedModel
from paddock.engine.tree import ModelSupervisor, machine_key, model_key
from paddock.errors import (
    CacheError,
    InvalidConfiguration,
    InvalidParameter,
    ModelAlreadyLoaded,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotLoaded,
    RuntimeClosed,
)
from paddock.models.facts import ModelFacts, facts_of
from paddock.models.gguf_header import read_header
from paddock.models.references import resolve
from paddock.sessions.host import SessionHost
from paddock.telemetry.loggers import get_logger

__all__ = ["Runtime", "TreeNode", "open_runtime"]


_log = get_logger("paddock.runtime")

_MOST_RAM_CACHE_BYTES = 8 << 30

_TERMINATE_SECONDS = 20.0
"""What a model's subtree may take to end beyond the time that its worker has."""


@attrs.frozen
class TreeNode:
    """One process of the supervision tree: ``status`` is running, restarting or stopped."""

    id: str
    type: str
    status: str
    children: tuple[TreeNode, ...] = ()


class Runtime:
    """A supervision tree of models; made by :func:`open_runtime`."""

    def __init__(
        self,
        config: RuntimeConfig,
        node: sup.Node,
        root: sup.Pid[Any],
        models: sup.Pid[Any],
        sessions: SessionHost,
        store: KvStore | None = None,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._store = store
        self._node = node
        self._root = root
        self._models_supervisor = models
        self._models: dict[str, Model] = {}
        self._loading: set[str] = set()
        self._closed = False

    @property
    def config(self) -> RuntimeConfig:
        return self._config

    @property
    def models(self) -> dict[str, Model]:
        """The loaded models by name. A model whose subtree gave up is gone from it."""
        # A copy first: the facades read this from other threads.
        return {name: model for name, model in self._models.copy().items() if model.supervisor.alive}

    def model(self, name: str) -> Model:
        """The loaded model of this name. Raises ModelNotLoaded."""
        self._check_open()
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotLoaded(name) from None

    async def load_model(
        self,
        source: str | Path | ModelConfig,
        *,
        on_progress: Callable[[float], None] | None = None,
        **options: Any,
    ) -> Model:
        """Loads a model and returns once it serves.

        ``source`` is a model name, a path, or a :class:`ModelConfig`; ``options`` are fields of ModelConfig.
        ``on_progress`` is told the fraction loaded, 0.0 to 1.0, on the trio thread; it must be quick. It is not called
        after this method has ended, nor when the model is loaded again after a crash.

        Raises ModelAlreadyLoaded, ModelNotFound, InvalidModelFile and its kinds (before llama.cpp sees the file),
        InvalidConfiguration, ModelLoadFailed, WorkerDied. A checkpoint; cancelling it undoes the load.
        """
        self._check_open()
        if on_progress is not None and not callable(on_progress):
            raise InvalidConfiguration("on_progress", f"{on_progress!r} is no function")
        config = _config(source, options)
        name = config.served_name
        if name in self._loading or name in self.models:
            raise ModelAlreadyLoaded(name)
        self._loading.add(name)
        try:
            return await self._load(name, config, on_progress)
        finally:
            self._loading.discard(name)

    async def _load(self, name: str, config: ModelConfig, on_progress: Callable[[float], None] | None) -> Model:
        # Both only read: a pipe or a file system that hangs must not hold up a load that is cancelled.
        path = await trio.to_thread.run_sync(resolve, config.source, abandon_on_cancel=True)
        facts = await trio.to_thread.run_sync(_read_facts, path, abandon_on_cancel=True)
        fingerprint = ""
        if config.exactness != "off":
            fingerprint = await trio.to_thread.run_sync(_fingerprint, path, abandon_on_cancel=True)
        plan = plan_model(
            config,
            facts,
            fingerprint=fingerprint,
            certificates=_cache_dir(self._config) / "certificates",
            block_tokens=0 if self._store is None else self._config.cache_block_tokens,
        )
        registry = self._node.registry
        progress = _Progress(on_progress)
        arena = self._arena(plan)
        spec = sup.child(
            ModelSupervisor,
            plan,
            registry,
            progress,
            arena,
            id=name,
            restart="temporary",
            name=registry.via(model_key(name)),
        )
        supervisor = await self._start(name, spec)
        served: ServedModel | None = None
        try:
            served = await sup.call(registry.via(machine_key(name)), AwaitServing(), timeout=math.inf)
        except ModelLoadFailed:
            self._check_open()  # closing takes the worker away first, which the machine takes for a failure
            raise
        except (sup.NoProc, sup.ServerExited) as gone:
            self._check_open()
            raise ModelLoadFailed(name, f"its supervision tree ended: {gone}") from gone
        finally:
            progress.end()
            if served is None:
                with trio.CancelScope(shield=True):
                    await self._terminate(supervisor, config)
        assert served is not None
        model = Model(name, config, served, registry, supervisor, self._sessions, self._store)
        self._models[name] = model
        return model

    def _arena(self, plan: ModelPlan) -> Arena | None:
        """Where the blocks of a model will be kept; nothing in it costs memory before it is used."""
        if plan.load.block_tokens == 0:
            return None
        try:
            return Arena(ram_cache_bytes(self._config))
        except CacheError as error:
            _log.warning("no prefix cache for this model", model=plan.name, problem=str(error))
            return None

    async def unload_model(self, name: str, *, cancel: bool = False, timeout: float = math.inf) -> None:
        """Unloads a model: no new requests, then waits for those accepted (``cancel=True`` ends them).

        After ``timeout`` seconds what still runs is cancelled (RequestCancelled with origin "unload"). The name is
        free when this returns. Raises ModelNotLoaded. A checkpoint; when cancelled, the model is unloaded at once.
        """
        model = self.model(name)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
            raise InvalidParameter("timeout", timeout, "a number of seconds, 0 or more")
        if not isinstance(cancel, bool):
            raise InvalidParameter("cancel", cancel, "True or False")
        machine = self._node.registry.via(machine_key(name))
        try:
            try:
                await sup.call(machine, Drain(cancel), timeout=timeout)
            except sup.CallTimeout:
                await sup.call(machine, Drain(True), timeout=1.0)
        except (sup.NoProc, sup.ServerExited, sup.CallTimeout):
            pass  # what is left goes with the subtree
        finally:
            with trio.CancelScope(shield=True):
                await self._terminate(model.supervisor, model.config)
            if self._models.get(name) is model:
                del self._models[name]

    async def tree(self) -> TreeNode:
        """The supervision tree as it stands. A checkpoint."""
        self._check_open()
        await trio.lowlevel.checkpoint()
        try:
            return _tree_node(sup.tree(self._root))
        except sup.NoProc:  # it has ended by itself
            return TreeNode("paddock", "supervisor", "stopped")

    async def _start(self, name: str, spec: sup.ChildSpec) -> sup.Pid[Any]:
        """Its supervisor starts it whether or not anybody waits: to be able to undo it, wait. Loading comes later."""
        try:
            with trio.CancelScope(shield=True):
                return await sup.start_child(self._models_supervisor, spec)
        except sup.AlreadyStarted:
            raise ModelAlreadyLoaded(name) from None
        except (sup.NoProc, sup.ServerExited):
            raise RuntimeClosed from None
        except sup.StartFailed as failed:
            self._check_open()
            raise ModelLoadFailed(name, f"its supervision tree did not start: {failed}") from failed
        raise AssertionError("nobody cancels this scope")

    async def cache_statistics(self) -> CacheStatistics | None:
        """What the prefix cache of all models holds and has done; None where there is none. A checkpoint.

        Raises RuntimeClosed, and CacheError while the cache is being restarted.
        """
        self._check_open()
        return None if self._store is None else await self._store.statistics()

    async def _terminate(self, supervisor: sup.Pid[Any], config: ModelConfig) -> None:
        """Ends a model's subtree; shielded by its callers, and therefore bounded."""
        try:
            seconds = config.shutdown_timeout + _TERMINATE_SECONDS
            await sup.terminate_child(self._models_supervisor, supervisor, timeout=seconds)
        except (sup.NotFound, sup.NoProc, sup.ServerExited):
            pass  # it has ended by itself
        except sup.CallTimeout:
            _log.error("model does not end", model=config.served_name)
            sup.exit(supervisor, sup.Killed())

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeClosed

    def _close(self) -> None:
        self._closed = True

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"models: {', '.join(self.models) or 'none'}"
        return f"<paddock.Runtime {state}>"


def ram_cache_bytes(config: RuntimeConfig) -> int:
    """The budget of the RAM tier: what is configured, or a tenth of the machine's memory, at most 8 GiB."""
    if config.ram_cache_bytes is not None:
        return config.ram_cache_bytes
    installed: int = psutil.virtual_memory().total
    return min(_MOST_RAM_CACHE_BYTES, installed // 10)


def _read_facts(path: Path) -> ModelFacts:
    return facts_of(read_header(path))


def _fingerprint(path: Path) -> str:
    try:
        return fingerprint_of(path)
    except OSError as error:
        raise ModelNotFound(path, f"it cannot be read: {error}") from error


def _cache_dir(config: RuntimeConfig) -> Path:
    if config.cache_dir is not None:
        return Path(config.cache_dir)
    return user_cache_dir()


def _state_dir(config: RuntimeConfig) -> Path:
    if config.state_dir is not None:
        return Path(config.state_dir)
    return user_state_dir()


def _config(source: str | Path | ModelConfig, options: dict[str, Any]) -> ModelConfig:
    known = sorted(field.name for field in attrs.fields(ModelConfig) if field.name != "source")
    for name in options:
        if name not in known:
            raise InvalidConfiguration(name, f"unknown option; known are {', '.join(known)}")
    return attrs.evolve(source, **options) if isinstance(source, ModelConfig) else ModelConfig(source=source, **options)


class _Progress:
    """Passes on how far a load is, until it has ended or the listener fails, which must not bring the model down."""

    def __init__(self, listener: Callable[[float], None] | None) -> None:
        self._listener = listener

    def __call__(self, fraction: float) -> None:
        if self._listener is not None:
            try:
                self._listener(fraction)
            except Exception:
                self.end()
                _log.exception("on_progress raised and is not called again")

    def end(self) -> None:
        self._listener = None


def _tree_node(process: sup.ProcessInfo) -> TreeNode:
    """What a supervisor supervises; a worker's own helpers are its own affair."""
    supervises = process.type == "supervisor"
    return TreeNode(
        str(process.id),
        "supervisor" if supervises else "worker",
        process.status if process.status in ("restarting", "stopped") else "running",
        tuple(map(_tree_node, process.children)) if supervises else (),
    )


@asynccontextmanager
async def open_runtime(config: RuntimeConfig | str | Path | None = None) -> AsyncIterator[Runtime]:
    """Opens a runtime; ``config`` is a RuntimeConfig, the path of a TOML file, or None for defaults.

    Models named in the configuration are loaded before the block begins. When the block ends, by return, error or
    cancellation, everything is stopped in reverse order and no process is left.
    """
    if config is None:
        config = RuntimeConfig()
    elif not isinstance(config, RuntimeConfig):
        config = await trio.to_thread.run_sync(read_runtime_config, config)
    async with sup.open_node(label="paddock") as node:
        models = node.registry.via("models")
        flags = sup.SupervisorFlags(strategy="rest_for_one")
        store = None
        children = [sup.child(sup.DynamicSupervisor, id="models", name=models)]
        ram_bytes = ram_cache_bytes(config)
        if ram_bytes > 0:
            store = KvStore(node.registry)
            cache = cache_spec(
                node.registry,
                ram_cache_bytes=ram_bytes,
                disk_cache_bytes=config.disk_cache_bytes,
                cache_dir=None if config.cache_dir is None else Path(config.cache_dir),
            )
            children.insert(0, cache)
        root = await node.start(sup.Supervisor, flags, children, label="paddock")
        pid = node.registry.whereis("models")
        assert pid is not None
        sessions = SessionHost(_state_dir(config), node.registry, root)
        runtime = Runtime(config, node, root, pid, sessions, store)
        try:
            for model in config.models:
                await runtime.load_model(model)
            yield runtime
        finally:
            runtime._close()
            await _stop_tree(root, config.shutdown_timeout)
            with trio.CancelScope(shield=True):
                await sessions.close()


async def _stop_tree(root: sup.Pid[Any], seconds: float) -> None:
    """Stops the tree from its root. The node would stop the newest of all processes first, such as the one that
    attends to a worker, and its owner would take that for a crash."""
    with trio.CancelScope(shield=True):
        try:
            await sup.stop(root, sup.Shutdown(), timeout=seconds)
        except (sup.NoProc, sup.ServerExited):
            pass  # it has ended by itself
        except sup.CallTimeout:
            sup.exit(root, sup.Killed())
