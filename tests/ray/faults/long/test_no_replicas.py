"""From no replica to one and back: who waits is answered."""

from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.processes import MODEL, replicas_of
from tests.ray.test_serving import wait_until

SCALING = {
    "min_replicas": 0,
    "max_replicas": 1,
    "policy": {
        "policy_function": "serve_app.deployments.policies.drain_time:DrainTime",
        "policy_kwargs": {"drain_s": 5},
    },
    "upscale_delay_s": 1,
    "downscale_delay_s": 2,
    "look_back_period_s": 2,
    "metrics_interval_s": 1,
}


def test_requests_that_wait_wake_a_model_which_then_sleeps_again(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(4))
    faults.change(replicas=None, options={"autoscaling_config": SCALING})
    for _ in range(2):
        wait_until(lambda: not replicas_of(MODEL), 60)
        check_delivered(results(faults.callers.send(range(4))), expected)
    wait_until(lambda: not replicas_of(MODEL), 60)
