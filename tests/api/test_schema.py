"""OpenAPI against what the application does: no request, however odd, gets a 5xx or an undocumented status."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from serve_app.api.app import create_app
from tests.api.fakes import CONFIG, FakeService

QUIET: Any = list(HealthCheck)
pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES, MANY_EXAMPLES = 70, 450
"""Cases of each operation: over 2,000 in all, and over 10,000 with `--slow`."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]

schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(FakeService(), CONFIG))


def with_examples(count: int) -> settings:
    """Only generated cases, `count` of each operation."""
    phases = [Phase.explicit, Phase.generate]
    return settings(max_examples=count, deadline=None, derandomize=True, phases=phases, suppress_health_check=QUIET)


@pytest.fixture(scope="module")
def sent() -> Iterator[Counter[str]]:
    """Cases by operation. Where every operation was tested, there must have been many cases."""
    found: Counter[str] = Counter()
    yield found
    operations = sum(1 for _ in schema.get_all_operations())
    for examples, fewest in ((EXAMPLES, 2000), (MANY_EXAMPLES, 10_000)):
        counts = [count for label, count in found.items() if label.endswith(f" {examples}")]
        assert len(counts) < operations or sum(counts) >= fewest, sum(counts)


@schema.parametrize()
@with_examples(EXAMPLES)
def test_no_case_is_undocumented(case: schemathesis.Case, sent: Counter[str]) -> None:
    sent[f"{case.operation.label} {EXAMPLES}"] += 1
    case.call_and_validate(checks=CHECKS)


@pytest.mark.slow
@schema.parametrize()
@with_examples(MANY_EXAMPLES)
def test_no_case_of_many_is_undocumented(case: schemathesis.Case, sent: Counter[str]) -> None:
    sent[f"{case.operation.label} {MANY_EXAMPLES}"] += 1
    case.call_and_validate(checks=CHECKS)


class Links(schema.as_state_machine()):
    """Requests that follow OpenAPI's links: a request and its DELETE, a list and its first entry."""

    def validate_response(self, response: Any, case: Any, additional_checks: Any = (), **options: Any) -> None:
        """Check each answer as the single cases are checked."""
        case.validate_response(response, checks=CHECKS, **options)


TestLinks = Links.TestCase
TestLinks.settings = settings(
    max_examples=30, stateful_step_count=4, deadline=None, derandomize=True, suppress_health_check=QUIET
)


def test_links_lead_to_operations() -> None:
    document = create_app(FakeService(), CONFIG).openapi()  # schemathesis adds links of its own to what it reads
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    names = {one["operationId"]: one for one in operations}
    links = [link for one in operations for link in one["responses"]["200"].get("links", {}).values()]
    assert len(links) >= 4
    for link in links:
        known = {parameter["name"] for parameter in names[link["operationId"]]["parameters"]}
        assert link["parameters"].keys() <= known


def test_every_field_is_described() -> None:
    document = schema.raw_schema
    ours = {name: one for name, one in document["components"]["schemas"].items() if "properties" in one}
    silent = [
        f"{name}.{field}"
        for name, one in ours.items()
        for field, about in one["properties"].items()
        if "description" not in about and not name.startswith(("HTTPValidation", "ValidationError", "Body_"))
    ]
    assert silent == []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            described = operation.get("description") or operation["summary"]
            assert described, (method, path)
            assert "partial(" not in described, (method, path)
