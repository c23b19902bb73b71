"""A pytest plugin that writes down how long each test took, and each of its three parts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

WARM_UP = 10
"""So many tests at the beginning are not counted; nor is the last, which pays for what ends with the run."""


class Recorder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: list[list[float]] = []
        self._parts: list[float] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self._parts = []
        began = time.perf_counter()
        result = yield
        self._tests.append([*self._parts, time.perf_counter() - began])
        return result

    def _part(self) -> Generator[None, object, object]:
        began = time.perf_counter()
        try:
            return (yield)
        finally:
            self._parts.append(time.perf_counter() - began)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        return (yield from self._part())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        return (yield from self._part())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        return (yield from self._part())

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._tests[WARM_UP:-1]), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(Path(os.environ["BENCH_RECORD"])))
