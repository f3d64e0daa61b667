"""A thread keeps the cores that it claimed."""

import threading

import torch

from serve_app.models.cpu_threads import claim_cores


def test_a_thread_keeps_its_cores_when_another_claims_more() -> None:
    device = torch.device("cpu")
    claimed, go, found = threading.Event(), threading.Event(), []

    def first() -> None:
        claim_cores(device, 1)
        claimed.set()
        go.wait()
        torch.ones(8) + 1
        found.append(torch.get_num_threads())

    def second() -> None:
        claim_cores(device, 2)
        go.set()

    one = threading.Thread(target=first)
    one.start()
    claimed.wait()
    other = threading.Thread(target=second)
    other.start()
    for thread in (one, other):
        thread.join()
    assert found == [1]
