"""OpenAPI against what the application does: no request, however odd, gets a 5xx or an undocumented status."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from serve_app.api.app import create_app
from tests.api.fakes import FakeService

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES = 70

schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(FakeService(), "secret"))


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_case_is_undocumented(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=[not_a_server_error, status_code_conformance, content_type_conformance])
