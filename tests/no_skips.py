"""A pytest plugin: with CI=true, a test that would be skipped fails, so that nothing goes untested unseen.

What may be skipped: `gpu`, and `slow` without --slow.
"""

import os
from collections.abc import Generator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(SkipsFail(config))


class SkipsFail:
    """The hooks that turn a skip into a failure."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        excused = item.get_closest_marker("gpu") or (
            item.get_closest_marker("slow") and not self._config.getoption("--slow", default=False)
        )
        if report.skipped and not hasattr(report, "wasxfail") and not excused:
            refuse(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if report.skipped:
            refuse(report)
        return report


def refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a skip a failure, and keep its reason."""
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"with CI=true nothing may be skipped here ({reason})"
