"""The pytest plugin: one PostgreSQL server for the whole run, chosen once and started at first use.

Under xdist the controller starts it, before the workers, and hands them its URL. Nothing is probed, pulled or started
where no test will run (`--collect-only`, `--help`, `--fixtures` and their like).
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from .choose import DEFAULT_IMAGE
from .reports import Reports
from .run_state import RUN, TEMPLATE_INPUTS, URL_VARIABLE, WORKER_INPUT, Run
from .server import PostgresUnavailable
from .standing import NOW, Now

if TYPE_CHECKING:
    from types import FrameType

    from xdist.workermanage import WorkerController  # type: ignore[import-untyped] # it has no types

pytest_plugins = [f"{__package__}.tiers", f"{__package__}.fixtures"]

_NO_TEST_RUNS = ("collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow", "setupplan")


def _tests_will_run(config: pytest.Config) -> bool:
    return not any(config.getoption(name, default=False) for name in _NO_TEST_RUNS)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("postgres", "PostgreSQL")
    group.addoption(
        "--postgres",
        metavar="auto|docker|embedded|URL",
        help=f"the server to test on; auto, the default, is Docker, else binaries on this machine (${URL_VARIABLE}, "
        "where it is set, is the default instead)",
    )
    group.addoption(
        "--postgres-image", metavar="IMAGE", default=DEFAULT_IMAGE, help="Docker image (default: %(default)s)"
    )
    group.addoption(
        "--postgres-pull-seconds",
        metavar="SECONDS",
        type=float,
        help="how long pulling that image may take (default: $POSTGRES_PULL_SECONDS, else 120)",
    )
    group.addoption(
        "--keep-database",
        action="store_true",
        help="leave the database of each failed test as it was then, with the server that it is on, and say how "
        "to open it and how to end the server",
    )
    parser.addini(
        TEMPLATE_INPUTS,
        "files, directories and patterns below rootdir that decide what postgres_prepare makes: where they are as they "
        "were, a server of ours begins with that template, from the user's cache (~/.cache/postgres-for-tests) or from "
        "an image made for it (postgres-for-tests)",
        type="linelist",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUN] = Run(config)
    config.pluginmanager.register(Reports(config), "postgres-reports")
    config.stash[NOW] = Now()
    config.pluginmanager.register(config.stash[NOW], "postgres-standing")
    if threading.current_thread() is threading.main_thread() and not hasattr(config, "workerinput"):
        _end_as_ctrl_c_does(config)


def _end_as_ctrl_c_does(config: pytest.Config) -> None:
    """Have SIGTERM and SIGHUP end the run as Ctrl-C does, or they would leave databases and containers behind."""
    owner = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        # A forked child of a test ends as it would without us.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # One that somebody handles, or ignores as nohup does, is not ours.
    ours = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL
    ]

    def restore() -> None:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)

    for number in ours:
        signal.signal(number, interrupt)
    config.add_cleanup(restore)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if _tests_will_run(config) and not hasattr(config, "workerinput"):
        # A server that cannot be had ends the run here, before the header.
        _ = config.stash[RUN].choice


def pytest_report_header(config: pytest.Config) -> str | None:
    return config.stash[RUN].choice.announcement if _tests_will_run(config) else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    if not _tests_will_run(node.config):
        return
    try:
        handed = node.config.stash[RUN].for_worker(node.gateway.id)
    except PostgresUnavailable as error:
        # Gateways that are open as the process ends are terminated by execnet, which in Python 3.12 prints a traceback.
        node.nodemanager.teardown_nodes()
        raise pytest.UsageError(str(error)) from None
    node.workerinput[WORKER_INPUT] = handed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # Said at the start as well, but a server that a test starts does that while its output is captured.
    for note in config.stash[RUN].notes:
        terminalreporter.write_line(note)


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        run.end()
