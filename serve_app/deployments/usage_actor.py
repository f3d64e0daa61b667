"""The process that counts what callers use, for all ingress replicas of an application: a named, detached actor."""

import hashlib
import logging
import threading
import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import ray
from ray import serve
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from redis.exceptions import RedisError

from serve_app.api.usage_ledger import USAGE, Lease, UsageLedger, UsageReport
from serve_app.api.usage_store import load_usage, open_store
from serve_app.config import UsageConfig
from serve_app.deployments.shared_usage import UsageConnection

IDLE_SECONDS = 3600.0
"""Where no replica has reported for so long, the application is gone, and the actor ends."""
IDLE_CHECK_SECONDS = 60.0

log = logging.getLogger("darkroom.usage")


class UsageActor:
    """A `UsageLedger` whose changes are stored before they are answered. Calls run one after the other.

    While the store fails, the counts go on in memory, and what changed is stored once it works again.

    Args:
        config: where usage is kept.
        application: whose usage. Others may have the same folder or Redis.

    Raises:
        OSError, RedisError: the usage cannot be read now. The ingress replicas admit their shares, and start another
            actor until it can: one that began anew would write over what is kept.
    """

    def __init__(self, config: UsageConfig, application: str) -> None:
        self._ledger = UsageLedger()
        self._store = open_store(config, application)
        self._unsaved: set[str] = set()
        self._asked_at = time.monotonic()
        self._ledger.load(load_usage(self._store))
        threading.Thread(target=self._end_when_idle, daemon=True).start()

    def admit(self, lease: Lease) -> None:
        """See `UsageLedger`. Raises LimitExceeded."""
        self._asked_at = time.monotonic()
        self._ledger.admit(lease)
        self._save([lease.caller])

    def end(self, caller: str, lease: str) -> None:
        """See `UsageLedger`."""
        self._ledger.end(caller, lease)
        self._save([caller])

    def report(self, report: UsageReport) -> None:
        """See `UsageLedger.take_report`."""
        self._asked_at = time.monotonic()
        changed = self._ledger.take_report(report)
        self._save(changed | self._ledger.expire())

    def _save(self, callers: Iterable[str]) -> None:
        self._unsaved.update(callers)
        try:
            for caller in list(self._unsaved):
                usage = self._ledger.usage_of(caller)
                if usage is None:
                    self._store.delete(caller)
                else:
                    self._store.save(caller, USAGE.dump_json(usage))
                self._unsaved.discard(caller)
        except (OSError, RedisError) as error:
            log.error("the usage of callers cannot be stored: %s", error)

    def _end_when_idle(self) -> None:
        while time.monotonic() - self._asked_at < IDLE_SECONDS:
            time.sleep(IDLE_CHECK_SECONDS)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def connect_usage(config: UsageConfig) -> UsageConnection:
    """Calls of the actor of this replica's application. Raises ConfigError where the actor could not start."""
    open_store(config, "")
    return UsageConnection(lambda: find_usage_actor(config, serve.get_replica_context().app_name))


def find_usage_actor(config: UsageConfig, application: str) -> Any:
    """The actor's handle; it is started where there is none. It blocks: call it in a thread.

    It prefers the caller's node, which has the folder that the config names, if it names one.

    Another URL or version is another actor, as an earlier one may not understand this version's calls. The earlier one
    ends when idle.
    """
    kind = f"{version('darkroom')} {config.model_dump_json()}"
    name = f"usage-{hashlib.sha256(kind.encode()).hexdigest()[:8]}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"name": name, "namespace": application, "lifetime": "detached", "get_if_exists": True}
    actor = ray.remote(UsageActor).options(**options, max_restarts=-1, num_cpus=0, scheduling_strategy=here)
    return actor.remote(config, application)
