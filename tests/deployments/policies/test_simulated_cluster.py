"""The ingress' policies over simulated replicas: no packing, no herding, fair shares, estimates that come true."""

import sys
from collections.abc import Sequence

import pytest

from tests.docs.blocks import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from load import draw_arrivals
from simulated_cluster import SimulatedCluster, SimulatedRun
from simulation import SimulatedImage, capacity, draw_images, quantile
from step_curves import CURVES

from serve_app.requests.work import batched_seconds

CURVE = CURVES["two cores"]
SIDE = CURVE.size[0]
REPLICAS = 4


def image(
    calls: int = 20, side: int = SIDE, due: float = 0.0, owner: str = "", is_batch: bool = False
) -> SimulatedImage:
    return SimulatedImage(
        size=(side, side), model_rows=2, calls=calls, due=due, owner=owner, is_batch=is_batch, parameters=()
    )


def send_workload(cluster: SimulatedCluster, load: float, seconds: float) -> list[SimulatedImage]:
    """The mixed workload at a share of the capacity, to all ingress replicas in turns; then let all of it end."""
    rate = load * len(cluster.replicas) * capacity(cluster.curve)
    images = draw_images(cluster.curve, draw_arrivals("poisson", rate, int(rate * seconds), seed=2))
    for place, one in enumerate(images):
        cluster.send(place % len(cluster.ingresses), one)
    cluster.loop.run(5 * seconds)
    return images


def accepted(cluster: SimulatedCluster) -> list[SimulatedRun]:
    return [run for ingress in cluster.ingresses for run in ingress.accepted]


def waited(run: SimulatedRun) -> float:
    assert run.image.taken_at is not None
    return run.image.taken_at - run.image.due


def replica_of(run: SimulatedRun) -> str:
    assert run.given is not None
    return run.given.view.unique_id


def last_taken(images: Sequence[SimulatedImage]) -> float:
    return max(one.taken_at for one in images if one.taken_at is not None)


def test_many_small_requests_behind_few_large_ones_go_to_the_free_replicas() -> None:
    cluster = SimulatedCluster(CURVE, replicas=REPLICAS)
    cluster.send(0, image(50, side=4 * SIDE), image(50, side=4 * SIDE))
    for place in range(24):
        cluster.send(0, image(4, side=SIDE // 2, due=0.1 + 0.01 * place))
    cluster.loop.run(60.0)
    runs = accepted(cluster)
    large, small = {replica_of(run) for run in runs[:2]}, [replica_of(run) for run in runs[2:]]
    assert len(large) == 2
    assert not large & set(small), "two replicas are free"
    assert abs(small.count(small[0]) - 12) <= 4
    assert max(run.image.seconds for run in runs[2:]) < 1.0


@pytest.mark.parametrize("load", [0.4, 0.8])
def test_ingress_replicas_with_stale_views_use_all_replicas_alike(load: float) -> None:
    cluster = SimulatedCluster(CURVE, replicas=REPLICAS, ingresses=2)
    send_workload(cluster, load, 40.0)
    work = {replica.name: 0.0 for replica in cluster.replicas}
    for run in accepted(cluster):
        work[replica_of(run)] += batched_seconds(run.image.work, CURVE)
    assert max(work.values()) < 1.2 * min(work.values())
    assert all(run.image.done_at is not None for run in accepted(cluster))


def test_two_ingress_replicas_do_not_begin_with_the_same_replica() -> None:
    cluster = SimulatedCluster(CURVE, replicas=REPLICAS, ingresses=4)
    for place in range(4):
        cluster.send(place, image())
    cluster.loop.run(20.0)
    assert len({replica_of(run) for run in accepted(cluster)}) >= 2


def test_a_request_at_another_ingress_replica_does_not_wait_for_the_end_of_a_long_queue() -> None:
    cluster = SimulatedCluster(CURVE, replicas=2, ingresses=2, max_waiting=1000)
    for _ in range(300):
        cluster.send(0, image(30))
    lone = [image(10, due=3.0 + place) for place in range(5)]
    for one in lone:
        cluster.send(1, one)
    cluster.loop.run(300.0)
    assert max(run.image.seconds for run in cluster.ingresses[0].accepted) > 30.0
    assert max(one.seconds for one in lone) < 6.0


def test_owners_share_device_time_whatever_they_send() -> None:
    cluster = SimulatedCluster(CURVE, max_waiting=1000)
    flood = [image(30, owner="flood") for _ in range(200)]
    few = [image(30, due=2.0, owner="few") for _ in range(20)]
    for one in (*flood, *few):
        cluster.send(0, one)
    cluster.loop.run(300.0)
    taken_before = sum(one.taken_at is not None and 2.0 < one.taken_at <= last_taken(few) for one in flood)
    assert 10 <= taken_before <= 40, "as many of one as of the other"


def test_short_requests_of_an_owner_pass_long_ones_that_wait() -> None:
    cluster = SimulatedCluster(CURVE, max_waiting=1000)
    long = [image(50, side=2 * SIDE) for _ in range(60)]
    short = [image(4, due=1.0) for _ in range(10)]
    for one in (*long, *short):
        cluster.send(0, one)
    cluster.loop.run(600.0)
    assert last_taken(short) < last_taken(long) / 3


def test_the_class_batch_gives_way_for_a_minute_and_no_longer() -> None:
    cluster = SimulatedCluster(CURVE, max_waiting=10_000)
    late = image(30, due=20.0, is_batch=True)
    for place in range(1200):
        cluster.send(0, image(30, due=0.1 * place))
    cluster.send(0, late)
    cluster.loop.run(300.0)
    assert late.taken_at is not None
    assert 80.0 <= late.taken_at < 110.0


def test_all_images_of_a_request_are_accepted_or_none() -> None:
    cluster = SimulatedCluster(CURVE, max_waiting=10)
    for place in range(40):
        cluster.send(0, *(image(50, due=0.01 * place) for _ in range(4)))
    cluster.loop.run(300.0)
    ingress = cluster.ingresses[0]
    assert len(ingress.accepted) % 4 == 0
    assert len(ingress.refused) % 4 == 0
    assert ingress.accepted
    assert ingress.refused


@pytest.mark.parametrize("name", ["two cores", "saturated"])
@pytest.mark.parametrize("ingresses", [1, 2])
@pytest.mark.parametrize("load", [1.3, 3.0])
def test_estimated_starts_come_true_within_a_factor_of_two(name: str, ingresses: int, load: float) -> None:
    cluster = SimulatedCluster(CURVES[name], replicas=2, ingresses=ingresses, deadline_s=20.0, max_waiting=10_000)
    send_workload(cluster, load, 60.0)
    ratios = [waited(run) / run.estimate.start_s for run in accepted(cluster) if run.estimate.start_s > 1.0]
    assert len(ratios) > 50
    assert sum(0.5 <= ratio <= 2.0 for ratio in ratios) >= (0.8 if ingresses == 1 else 0.65) * len(ratios)
    assert 0.7 < quantile(ratios, 0.5) < 1.4


@pytest.mark.parametrize("name", ["two cores", "saturated"])
def test_with_little_load_nobody_is_told_to_wait(name: str) -> None:
    cluster = SimulatedCluster(CURVES[name], replicas=2, deadline_s=30.0)
    send_workload(cluster, 0.3, 60.0)
    runs = accepted(cluster)
    assert quantile([run.estimate.start_s for run in runs], 0.9) == 0.0
    assert quantile([waited(run) for run in runs], 0.9) == 0.0
    assert not cluster.ingresses[0].refused


@pytest.mark.parametrize("name", ["two cores", "saturated"])
def test_in_overload_what_is_accepted_is_in_time_and_the_devices_are_not_idle(name: str) -> None:
    deadline_s = 20.0
    cluster = SimulatedCluster(CURVES[name], replicas=2, deadline_s=deadline_s, max_waiting=10_000)
    images = send_workload(cluster, 3.0, 90.0)
    runs = [run for run in accepted(cluster) if run.image.due > 10.0]
    assert quantile([run.image.seconds for run in runs], 0.95) <= 1.05 * deadline_s
    in_time = [one for one in images if one.seconds <= deadline_s]
    done_s = sum(batched_seconds(one.work, CURVES[name]) for one in in_time) / len(cluster.replicas)
    assert done_s > 0.75 * images[-1].due
    refused = cluster.ingresses[0].refused
    assert all(error.estimated_finish_s is not None for _, error in refused)


def test_retry_after_grows_with_the_queue() -> None:
    told: list[int] = []
    for waiting in (20, 80, 320):
        cluster = SimulatedCluster(CURVE, max_waiting=10_000)
        for _ in range(waiting):
            cluster.send(0, image(50))
        late = image(50, due=0.5)
        late.deadline_s = 2.0
        cluster.send(0, late)
        cluster.loop.run(1.0)
        told.append(cluster.ingresses[0].refused[0][1].retry_after_s)
    assert told == sorted(told)
    assert told[2] > 2 * told[1] > 2 * told[0]
