"""Changes of a running application, by what Serve does on `serve deploy`: nobody gets an error."""

import time

from tests.ray.faults.apps import PACE_SECONDS
from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.processes import INGRESS, MODEL, pids_of, replicas_of
from tests.ray.test_serving import wait_until

LONG = 400
"""Steps of an image of forty seconds."""
GONE_SECONDS = 5
SOME_SECONDS = 5
"""For the machine, which may be busy."""


def test_a_changed_config_is_applied_during_a_long_image(faults: Faults) -> None:
    faults.use(replicas=2)
    before = {*replicas_of(MODEL), *replicas_of(INGRESS)}
    expected = faults.undisturbed(range(8, 12))
    faults.pace(0)
    expected[7] = faults.callers.post(7, num_inference_steps=LONG).content
    faults.pace(PACE_SECONDS)
    call = faults.callers.pool.submit(faults.callers.post, 7, num_inference_steps=LONG)
    faults.wait_for_steps(images=1, step=50)
    faults.change(replicas=2, model={"lora_cache_mb": 512}, max_waiting=50)
    check_delivered(results(faults.callers.send(range(8, 12))), expected)
    assert not call.done()
    check_delivered([call.result()], expected)
    assert {*replicas_of(MODEL), *replicas_of(INGRESS)} == before


def test_a_downscale_moves_what_runs(faults: Faults) -> None:
    faults.use(replicas=4)
    expected = faults.undisturbed(range(16))
    calls = faults.callers.send(range(16))
    faults.wait_for_steps(images=16)
    began = time.monotonic()
    faults.change(replicas=1)
    wait_until(lambda: len(replicas_of(MODEL)) == 1)
    assert time.monotonic() - began < GONE_SECONDS + SOME_SECONDS
    check_delivered(results(calls), expected)
    check_a_step_redone(faults)


def test_a_rolling_update_with_a_surge_moves_what_runs(faults: Faults) -> None:
    surge = {"max_surge_percent": 100}
    faults.use(replicas=2, options=surge)
    expected = faults.undisturbed(range(8))
    before = set(pids_of(MODEL))
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=8)
    restart = {"ray_actor_options": {"num_cpus": 0.5, "runtime_env": {"env_vars": {"CHANGED": "1"}}}}
    faults.change(replicas=2, options={**surge, **restart})
    check_delivered(results(calls), expected)
    wait_until(lambda: len(replicas_of(MODEL)) == 2 and before.isdisjoint(pids_of(MODEL)), 60)
    check_a_step_redone(faults)


def check_a_step_redone(faults: Faults) -> None:
    """At most, for each image: it is handed over after the step that runs."""
    assert [one for one in faults.redone() if one.steps > 1] == []
