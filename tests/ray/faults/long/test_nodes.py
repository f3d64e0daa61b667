"""A node dies, or is drained: its images go on in replicas of other nodes."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._raylet import GcsClient

from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.processes import MODEL, ask, replicas_of
from tests.ray.test_serving import wait_until

GPU_EACH = {"ray_actor_options": {"num_cpus": 0.5, "num_gpus": 1}}
"""The first node has two GPUs, so that the third replica is on the second node."""
PREEMPTION = 2
MOST_SECONDS = 60


class Node:
    """A second node of the cluster, on this machine."""

    def __init__(self) -> None:
        known = {node["NodeID"] for node in ray.nodes()}
        self.gcs_address = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", self.gcs_address, "--block"]
        self._process = subprocess.Popen(
            [*command, "--num-cpus", "2", "--num-gpus", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: len(self._new(known)) == 1, 60)
        (self.node_id,) = self._new(known)

    def kill(self) -> None:
        """kill -9 of all its processes."""
        parent = psutil.Process(self._process.pid)
        for process in [*parent.children(recursive=True), parent]:
            process.kill()
        self._process.wait()

    def _new(self, known: set[str]) -> set[str]:
        return {node["NodeID"] for node in ray.nodes() if node["Alive"]} - known


@pytest.fixture
def node(ray_logs: Path) -> Iterator[Node]:
    running = Node()
    yield running
    if psutil.pid_exists(running._process.pid):
        running.kill()


def remove(node: Node) -> None:
    """Without notice."""
    node.kill()


def drain(node: Node) -> None:
    """As a cloud does that takes a machine back in a minute."""
    deadline_ms = int((time.time() + MOST_SECONDS) * 1000)
    accepted, _ = GcsClient(address=node.gcs_address).drain_node(node.node_id, PREEMPTION, "preempted", deadline_ms)
    assert accepted


def find_node(_actor: Any) -> str:
    """Runs in an actor."""
    return ray.get_runtime_context().get_node_id()


@pytest.mark.parametrize(("leave", "most_steps"), [(remove, 10), (drain, 1)])
def test_images_of_a_node_that_goes_are_drawn_on_another(
    faults: Faults, node: Node, leave: Callable[[Node], None], most_steps: int
) -> None:
    faults.use(replicas=3, options=GPU_EACH)
    assert [ask(actor, find_node) for actor in replicas_of(MODEL).values()].count(node.node_id) == 1
    expected = faults.undisturbed(range(12))
    calls = faults.callers.send(range(12))
    faults.wait_for_steps(images=12)
    leave(node)
    began = time.monotonic()
    answers = results(calls)
    check_delivered(answers, expected)
    assert max(answer.finished for answer in answers) - began < MOST_SECONDS
    redone = faults.redone()
    assert redone or leave is drain
    assert [one for one in redone if one.steps > most_steps] == []
