"""With CI=true a skip fails the run, wherever it comes from; elsewhere it does not."""

import pytest

MODULE = """
import pytest

def test_runs(): pass
def test_skips_inside(): pytest.skip("no such program")
@pytest.mark.skipif(True, reason="no such library")
def test_is_marked(): pass
@pytest.fixture
def tool(): pytest.skip("no such tool")
def test_asks_for(tool): pass
@pytest.mark.xfail(reason="known")
def test_known(): assert False
@pytest.mark.gpu
@pytest.mark.skipif(True, reason="no GPU")
def test_gpu(): pass
"""
WHOLE = "import pytest\npytest.importorskip('no_such_module')\ndef test_never(): pass\n"


@pytest.fixture
def run(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nmarkers =\n  gpu: a GPU\n  slow: slow\n")
    pytester.makepyfile(test_some=MODULE, test_whole=WHOLE)
    return pytester


def test_in_ci_a_skip_fails_and_says_why(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    some = run.runpytest("-p", "tests.no_skips", "test_some.py")
    # A fixture's skip is an error: it comes before the test.
    some.assert_outcomes(passed=1, failed=1, errors=2, skipped=1, xfailed=1)
    for reason in ("no such program", "no such library", "no such tool"):
        some.stdout.fnmatch_lines([f"*with CI=true nothing may be skipped here (*{reason})*"])
    assert some.ret == pytest.ExitCode.TESTS_FAILED
    whole = run.runpytest("-p", "tests.no_skips", "test_whole.py")
    whole.assert_outcomes(errors=1)
    whole.stdout.fnmatch_lines(["*nothing may be skipped here (*no_such_module*"])
    assert whole.ret != pytest.ExitCode.OK


def test_elsewhere_a_skip_is_a_skip(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    outcome = run.runpytest("-p", "tests.no_skips")
    outcome.assert_outcomes(passed=1, skipped=5, xfailed=1)
    assert outcome.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(("option", "ends"), [((), pytest.ExitCode.OK), (("--slow",), pytest.ExitCode.TESTS_FAILED)])
def test_slow_tests_may_be_skipped_without_the_option(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], ends: pytest.ExitCode
) -> None:
    monkeypatch.setenv("CI", "true")
    run.makeconftest("def pytest_addoption(parser): parser.addoption('--slow', action='store_true')")
    run.makepyfile(test_slow="import pytest\n@pytest.mark.slow\ndef test_it(): pytest.skip('no such thing')\n")
    assert run.runpytest("-p", "tests.no_skips", "test_slow.py", *option).ret == ends
