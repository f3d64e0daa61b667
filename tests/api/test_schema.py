"""OpenAPI against what the application does: no request, however odd, gets a 5xx or an undocumented status."""

from collections import Counter
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from serve_app.api.app import create_app
from tests.api.fakes import CONFIG, FakeService

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES = 70

FEWEST = 2000

schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(FakeService(), CONFIG))


@pytest.fixture(scope="module")
def sent() -> Iterator[Counter[str]]:
    """Cases by operation. Where every operation was tested, there must have been many cases."""
    found: Counter[str] = Counter()
    yield found
    if len(found) == sum(1 for _ in schema.get_all_operations()):
        assert found.total() >= FEWEST


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_case_is_undocumented(case: schemathesis.Case, sent: Counter[str]) -> None:
    sent[case.operation.label] += 1
    case.call_and_validate(checks=[not_a_server_error, status_code_conformance, content_type_conformance])


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
