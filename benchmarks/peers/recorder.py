"""A pytest plugin that writes the seconds of setup and teardown of each test, by its id, to `around.json`."""

import json
from pathlib import Path

import pytest

_around: dict[str, float] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call":
        _around[report.nodeid] = _around.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    Path("around.json").write_text(json.dumps(_around), encoding="utf-8")
