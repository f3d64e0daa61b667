"""One application for all fault tests. Each test gets it whole, with the number of replicas that it asks for."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from ray import serve

from tests.checkpoints import save_safety_checker
from tests.ray.apps import Section
from tests.ray.conftest import apply
from tests.ray.faults.apps import DEFAULTS, LONG_STEPS, PACE_SECONDS, STEPS, faulty_application
from tests.ray.faults.faulty_steps import LOG, PACE, Condition, LoggedStep
from tests.ray.faults.load import Answer, Callers
from tests.ray.faults.processes import (
    INGRESS,
    MODEL,
    SAFETY,
    ask,
    count_able_replicas,
    count_images,
    pids_of,
    replicas_of,
)
from tests.ray.test_serving import wait_until

WHOLE_SECONDS = 90
LONG_TIMEOUT_SECONDS = 1200
ANYTHING = Condition()
NOTHING: Section = {}


@dataclass(frozen=True)
class Redone:
    """Steps of one image that were done again: how many, their seconds in all, and the longest one's."""

    seed: int
    steps: int
    seconds: float
    longest_s: float


class Faults:
    """The application under test, and what tests do to it.

    Args:
        url: the server's.
        folder: what the test and the replicas share.
        num_steps: of each image.
    """

    def __init__(self, url: str, folder: Path, num_steps: int) -> None:
        self.url = url
        self.num_steps = num_steps
        self.folder = folder
        self.callers = Callers(url)
        self._checker = save_safety_checker(folder / "checker", flags=False)
        self._applied: Section = {}
        self._undisturbed: dict[int, bytes] = {}

    def use(
        self,
        *,
        replicas: int,
        ingresses: int = 2,
        model: Section = NOTHING,
        options: Section = NOTHING,
        **settings: Any,
    ) -> None:
        """Have so many replicas, all of them whole, and no work. See `change`."""
        self.change(replicas=replicas, ingresses=ingresses, model=model, options=options, **settings)
        self._wait_until_whole(replicas, ingresses)
        (self.folder / LOG).write_text("")

    def change(
        self,
        *,
        replicas: int | None,
        ingresses: int = 2,
        model: Section = NOTHING,
        options: Section = NOTHING,
        **settings: Any,
    ) -> None:
        """Give Serve another config if it is another one, and wait until it is applied.

        Args:
            replicas: of the model; None where `options` scale it.
            ingresses: replicas of the ingress.
            model: more of the model's `user_config`.
            options: Serve's options of the model's deployment.
            settings: the model's at the ingress, such as `max_waiting`.
        """
        wanted = faulty_application(
            self.folder,
            self._checker,
            model=model,
            options={**({"num_replicas": replicas} if replicas else {}), **options},
            ingresses=ingresses,
            settings={"defaults": {**DEFAULTS, "num_inference_steps": self.num_steps}, **settings},
        )
        if wanted != self._applied:
            apply(wanted)
            self._applied = wanted

    def arm(self, fault: str, condition: Condition = ANYTHING) -> None:
        """See `FaultyDevice`."""
        part = self.folder / f"{fault}.part"
        part.write_text(json.dumps(asdict(condition)))
        part.rename(self.folder / fault)

    def disarm(self) -> None:
        """No fault strikes any more."""
        for fault in ("poison", "hang", "memory", "device"):
            (self.folder / fault).unlink(missing_ok=True)

    def pace(self, seconds: float) -> None:
        """How long a forward takes from now on."""
        part = self.folder / "pace.part"
        part.write_text(str(seconds))
        part.rename(self.folder / PACE)

    def undisturbed(self, seeds: Iterable[int]) -> dict[int, bytes]:
        """The images of these seeds, when nothing fails. They are drawn once for all tests, and fast."""
        missing = [seed for seed in seeds if seed not in self._undisturbed]
        self.pace(0)
        for answer in results(self.callers.send(missing)):
            assert answer.status == 200, answer.content[:300]
            self._undisturbed[answer.seed] = answer.content
        self.pace(PACE_SECONDS)
        (self.folder / LOG).write_text("")
        return {seed: self._undisturbed[seed] for seed in seeds}

    def steps(self) -> list[LoggedStep]:
        """Those done since `use`, of every replica, also of dead ones."""
        lines = (self.folder / LOG).read_text().splitlines(keepends=True)
        return [LoggedStep(**json.loads(line)) for line in lines if line.endswith("\n")]

    def wait_for_steps(self, images: int, step: int = 10) -> None:
        """Until so many images have done this step.

        Two ingress replicas hear of each other's images a second later: of eight, two or three may be in one of two
        replicas beyond what its steps take at once, and begin only when others have ended.
        """
        wait_until(lambda: len({one.seed for one in self.steps() if one.step >= step}) >= images)

    def wait_for_new_steps(self, count: int = 20) -> None:
        """Until so many more rows have done a step."""
        before = len(self.steps())
        wait_until(lambda: len(self.steps()) >= before + count)

    def redone(self) -> list[Redone]:
        """The work that was done again, of each image."""
        done: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for one in self.steps():
            done[one.seed][one.step].append(one.seconds)
        again = {seed: [took for times in steps.values() for took in times[1:]] for seed, steps in done.items()}
        return [Redone(seed, len(took), sum(took), max(took)) for seed, took in again.items() if took]

    def _wait_until_whole(self, replicas: int, ingresses: int) -> None:
        """Until every replica runs and is idle, and every ingress replica may use every model's replica."""
        wanted = [{MODEL: replicas, INGRESS: ingresses, SAFETY: 1}, [0] * replicas, [replicas] * ingresses]
        deadline = time.monotonic() + WHOLE_SECONDS
        while (found := find_state()) != wanted:
            assert time.monotonic() < deadline, (found, serve.status())
            time.sleep(0.1)


def find_state() -> list[object]:
    """How many replicas answer, the images in the model's, and how many of those each ingress replica may use."""
    return [
        {name: len(pids_of(name)) for name in (MODEL, INGRESS, SAFETY)},
        [ask(actor, count_images) for actor in replicas_of(MODEL).values()],
        [ask(actor, count_able_replicas) for actor in replicas_of(INGRESS).values()],
    ]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is in the folder `long` runs only if it is asked for."""
    return True if collection_path.name == "long" and not config.getoption("--long-faults") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test so many times."""
    times = metafunc.config.getoption("--long-faults")
    if times and "faults" in metafunc.fixturenames:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(times))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long-faults"):
        for item in (item for item in items if "faults" in item.path.parts):
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_SECONDS))


def results(calls: "Iterable[Future[Answer]]") -> list[Answer]:
    """All answers, once they have come."""
    return [call.result() for call in calls]


def check_delivered(answers: Iterable[Answer], expected: dict[int, bytes]) -> None:
    """Every answer is the image that nothing had disturbed."""
    wrong = [(one.seed, one.status, one.content[:300]) for one in answers if one.status != 200]
    assert wrong == []
    assert [one.seed for one in answers if one.content != expected[one.seed]] == []


@pytest.fixture(scope="package")
def application_under_test(
    base_url: str, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Faults]:
    num_steps = LONG_STEPS if pytestconfig.getoption("--long-faults") else STEPS
    faults = Faults(base_url, tmp_path_factory.mktemp("faults"), num_steps)
    yield faults
    faults.callers.close()
    serve.delete("darkroom")


@pytest.fixture
def faults(application_under_test: Faults) -> Iterator[Faults]:
    """The application; nothing is armed after the test."""
    yield application_under_test
    application_under_test.disarm()
