"""The supervision tree of one model.

    model "cria"     rest_for_one
    ├── arena        keeps the memory of cached blocks; only where the model has a prefix cache
    ├── machine      what state the model is in; the admission queue
    ├── requests     dynamic: one temporary actor per request
    ├── port         owns the worker
    └── batch        issues decode_and_sample_batch calls

The order matters. When the worker dies its port stops, so port and batch are restarted, while machine and requests
live on. The machine decides how often (see ``restarts.py``): beyond that a port is left idle, so this supervisor's
own intensity is only a second line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import supervisors as sup
from paddock.cache.arena import Arena
from paddock.cache.client import KvStore
from paddock.config import ModelConfig
from paddock.engine.batching.actor import BatchActor, CacheWiring
from paddock.engine.caching.keeper import KEEPER_SECONDS, ArenaKeeper, ModelCache
from paddock.engine.machine import ModelMachine
from paddock.engine.plan import ModelPlan
from paddock.engine.statistics import CacheUse, StepCounters
from paddock.engine.suspicion import MOST_FURTHER_DEATHS
from paddock.engine.worker.heartbeat import Patience
from paddock.engine.worker.port import Port
from paddock.engine.worker_environment import worker_environment

__all__ = ["RESTART_SECONDS", "ModelSupervisor", "machine_key", "model_key", "port_of", "requests_key"]


RESTART_SECONDS = 0.01
"""How long whoever finds a process of the subtree restarting waits before looking again."""


def model_key(name: str) -> tuple[str, str]:
    """The registry key of a model's supervisor: it keeps a name from being loaded twice."""
    return ("model", name)


def machine_key(name: str) -> tuple[str, str]:
    """The registry key of a model's machine."""
    return ("machine", name)


def requests_key(name: str) -> tuple[str, str]:
    """The registry key of the supervisor of a model's request actors."""
    return ("requests", name)


def _keeper_key(name: str) -> tuple[str, str]:
    return ("arena", name)


async def port_of(supervisor: sup.Pid[Any]) -> sup.Pid[Any]:
    """The model's port as it is now. Raises NoProc while there is none."""
    child = await sup.which_child(supervisor, "port", timeout=math.inf)
    if not isinstance(child.pid, sup.Pid):
        raise sup.NoProc(supervisor)
    return child.pid


def _patience_of(config: ModelConfig) -> Patience | None:
    if not config.heartbeat_timeout:
        return None
    return Patience(config.heartbeat_timeout, config.step_timeout, config.step_timeout_max)


class ModelSupervisor(sup.Supervisor):
    """``model_tree(plan)`` as a supervisor of its own; ``registry`` names machine and requests.

    ``arena`` is where the model's blocks are kept, None for a model without a prefix cache; it is closed at the end of
    the subtree.
    """

    def __init__(
        self,
        plan: ModelPlan,
        registry: sup.Registry,
        on_progress: Callable[[float], None],
        arena: Arena | None = None,
    ) -> None:
        super().__init__()
        self._plan = plan
        self._registry = registry
        self._on_progress = on_progress
        self._arena = arena

    def init(self) -> tuple[sup.SupervisorFlags, list[sup.ChildSpec]]:
        plan, config = self._plan, self._plan.config
        machine = self._registry.via(machine_key(plan.name))
        requests = self._registry.via(requests_key(plan.name))
        counters, use = StepCounters(), CacheUse()
        children: list[sup.ChildSpec] = []
        keeper: sup.Target | None = None
        caching: CacheWiring | None = None
        if self._arena is not None:
            cache = ModelCache(KvStore(self._registry), self._arena)
            keeper = self._registry.via(_keeper_key(plan.name))
            caching = CacheWiring(cache.store, use, config.save_every)
            children = [sup.child(ArenaKeeper, plan, cache, id="arena", name=keeper, shutdown=KEEPER_SECONDS)]
        flags = sup.SupervisorFlags(
            strategy="rest_for_one",
            intensity=(config.max_restarts + 1) * (1 + MOST_FURTHER_DEATHS) + 5,
            period=config.restart_period,
        )
        return flags, [
            *children,
            sup.child(ModelMachine, plan, counters, self._on_progress, keeper, use, id="machine", name=machine),
            sup.child(sup.DynamicSupervisor, id="requests", name=requests),
            sup.child(
                Port,
                machine,
                config.isolation,
                plan.load,
                environment=worker_environment(config, plan.recipe),
                stop_seconds=config.shutdown_timeout,
                arena=self._arena,
                patience=_patience_of(config),
                id="port",
                shutdown=config.shutdown_timeout + 1.0,
            ),
            sup.child(BatchActor, machine, plan.limits, counters, caching, id="batch"),
        ]
