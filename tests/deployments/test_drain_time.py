"""The autoscaling policy: as many replicas as the work needs, and never an error."""

from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments.policies.drain_time import DRAIN_SECONDS, DrainTime
from serve_app.deployments.stream_leases import StreamLeases


def scale(metrics: Any, *, current: int = 1, target: int = 1, least: int = 0, most: int = 8, drain_s: Any = 20) -> int:
    """What the policy returns, without its state, which must be a dict."""
    context = SimpleNamespace(
        aggregated_metrics=metrics,
        current_num_replicas=current,
        target_num_replicas=target,
        capacity_adjusted_min_replicas=least,
        capacity_adjusted_max_replicas=most,
    )
    count, state = DrainTime(drain_s)(context)
    assert state == {}
    assert type(count) is int
    return count


def told(work_s: list[Any], queued_s: list[Any]) -> dict[str, dict[str, Any]]:
    return {
        "work_s": {f"r{index}": value for index, value in enumerate(work_s)},
        "queued_s": {f"r{index}": value for index, value in enumerate(queued_s)},
    }


@pytest.mark.parametrize(
    ("work_s", "queued_s", "expected"),
    [
        ([0.0], [0.0], 0),
        ([0.01], [0.0], 1),
        ([20.0], [0.0], 1),
        ([20.0], [0.1], 2),
        ([10.0, 10.0], [30.0, 30.0], 3),  # 20 s run, and the same 30 s wait, whoever tells them
        ([10.0, 0.0], [30.0, 0.0], 2),  # a new replica has not heard of the queue
        ([1e9], [1e9], 8),
    ],
)
def test_running_work_is_added_up_and_a_queue_counts_once(
    work_s: list[float], queued_s: list[float], expected: int
) -> None:
    assert scale(told(work_s, queued_s)) == expected


def test_a_replica_adds_up_the_queues_of_all_ingress_replicas() -> None:
    leases = StreamLeases()
    leases.renew("ingress#a", 12.0)
    leases.renew("ingress#b", 30.0)
    leases.renew("ingress#a", 10.0)
    assert leases.queued_s == 40.0
    assert scale(told([0.0, 0.0], [leases.queued_s] * 2)) == 2


def test_the_number_stays_within_its_limits() -> None:
    assert scale(told([0.0], [0.0]), least=2) == 2
    assert scale(told([500.0], [0.0]), most=3) == 3


@pytest.mark.parametrize("metrics", [None, {}, {"work_s": {}, "queued_s": {}}, {"other": {"r": 1.0}}])
def test_without_metrics_the_number_stays(metrics: Any) -> None:
    assert scale(metrics, current=3, target=3) == 3
    assert scale(metrics, current=0, target=0) == 0, "nothing wakes a model but a call"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, None, "much", [1.0], True, {}, 10**400])
def test_a_value_of_a_wrong_kind_counts_as_nothing(value: Any) -> None:
    assert scale(told([value, 25.0], [value]), target=5) in (2, 5)


@pytest.mark.parametrize(
    "metrics", ["text", 7, [1], {"work_s": "text"}, {"work_s": [1.0]}, {"work_s": 3, "queued_s": None}, object()]
)
def test_metrics_of_a_wrong_kind_change_nothing(metrics: Any) -> None:
    assert scale(metrics, target=4) == 4


def test_a_context_without_limits_changes_nothing() -> None:
    context = SimpleNamespace(
        aggregated_metrics=told([30.0], [0.0]),
        current_num_replicas=2,
        target_num_replicas=2,
        capacity_adjusted_min_replicas=None,
        capacity_adjusted_max_replicas=None,
    )
    assert DrainTime()(context) == (2, {})


@pytest.mark.parametrize("drain_s", [0, -5, "20", None, float("nan"), float("inf")])
def test_a_drain_time_that_cannot_be_used_stops_nothing(drain_s: Any) -> None:
    assert DrainTime(drain_s).drain_s in (0.1, DRAIN_SECONDS)
    assert scale(told([10.0], [0.0]), drain_s=drain_s) >= 1
