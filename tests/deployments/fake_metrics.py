"""Ray's metrics without Ray: what was counted and set, by name and labels."""

from collections.abc import Mapping
from typing import Any

import pytest

from serve_app.deployments import metrics, queue_metrics

Key = tuple[str, ...]


class FakeMetrics:
    """Stands in for Counter, Gauge and Histogram. `values` are by name and label values, without those below 1e-6.

    A histogram has its observations as a list in `observed`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._values: dict[Key, float] = {}
        self.observed: list[float] = []
        for module in (metrics, queue_metrics):
            for kind in ("Counter", "Gauge", "Histogram"):
                monkeypatch.setattr(module, kind, lambda name, *_, **__: FakeMetric(self, name))

    @property
    def names(self) -> set[str]:
        """Every metric that has a value, also where that is as good as zero."""
        return {key[0] for key in self._values}

    @property
    def values(self) -> Mapping[Key, float]:
        """What is not zero."""
        return {key: round(value, 6) for key, value in self._values.items() if value > 1e-6}

    def add(self, key: Key, value: float) -> None:
        self._values[key] = self._values.get(key, 0.0) + value

    def set(self, key: Key, value: float) -> None:
        self._values[key] = value


class FakeMetric:
    """One metric."""

    def __init__(self, found: FakeMetrics, name: str) -> None:
        self._found = found
        self._name = name.removeprefix("darkroom_")

    def _key(self, tags: Any) -> Key:
        return (self._name, *(value for key, value in tags.items() if key != "model"))

    def inc(self, value: float = 1.0, tags: Any = None) -> None:
        assert value > 0
        self._found.add(self._key(tags), value)

    def set(self, value: float, tags: Any = None) -> None:
        self._found.set(self._key(tags), value)

    def observe(self, value: float, tags: Any = None) -> None:
        self._found.observed.append(value)
        self._found.add(self._key(tags), 1)
