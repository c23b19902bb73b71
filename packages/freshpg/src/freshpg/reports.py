"""The plugin's words: on a test that fails, on what a test leaves behind, on a server that dies, and on the whole run.

What a worker of xdist has to say travels with the reports of its tests, and so nothing of it is lost with a worker
that is killed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from . import death, failures, keeping
from .figures import Figures
from .leaks import Leak, Sightings, Watch, fail_afterwards, sentence, still_there
from .ledger import ledger_of
from .run_state import RUN

if TYPE_CHECKING:
    from collections.abc import Generator

    from .ledger import Use
    from .server import Server

_BEGAN = pytest.StashKey[float]()
_FAILED = pytest.StashKey[bool]()
_LEAKS = pytest.StashKey[dict[str, Any]]()
_ATTRIBUTE = "postgres"
"""Of a report: what its process has to say of the database, as plain values."""


class Reports:
    """The hooks of one run, in the controller, in a worker, or in the only process that there is."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._run = config.stash[RUN]
        self._is_worker = hasattr(config, "workerinput")
        self._began = time.perf_counter()
        self._watch: Watch | None = None
        self._last_word: str | None = None
        self._told = False
        self._current: pytest.Item | None = None
        self._figures = Figures()
        self._sightings: Sightings = {}

    # While tests run, in the process that runs them.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        item.stash[_BEGAN] = time.time()
        if self._watch is not None:
            self._watch.began(item.nodeid, item.stash[_BEGAN])
        self._current = item

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self,
        fixturedef: pytest.FixtureDef[Any],
        request: pytest.FixtureRequest,  # noqa: ARG002 (the hook's)
    ) -> Generator[None, object, object]:
        result = yield
        if fixturedef.scope != "function" and (watch := self._watching()) is not None:
            watch.forgive()
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
        yield
        if self._last_word is None and (watch := self._watching()) is not None:
            watch.over(time.time())
            self._look_for_leaks(item, watch, last=nextitem is None)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        server = self._run.started
        if server is not None and _uses_postgres(item):
            said: dict[str, Any] = {}
            if report.failed:
                self._report_failure(item, call, report, server, said)
            if report.when == "teardown":
                said |= self._close_the_books(item)
            if said:
                setattr(report, _ATTRIBUTE, said)
        return report

    # Where the reports arrive: in the controller, or in the only process.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said: dict[str, Any] | None = getattr(report, _ATTRIBUTE, None)
        if said is None or self._is_worker:
            return
        for database, test in said.get("kept", []):
            self._run.kept[database] = test
        for tier, seconds in said.get("uses", []):
            self._figures.seconds.setdefault(tier, []).append(seconds)
        self._figures.workers.add(getattr(report, "worker_id", "main"))
        self._figures.faulty += said.get("faulty", [])
        self._figures.leaks += said.get("leaks", [])
        for thing, tests, timed in said.get("sightings", []):
            self._sightings.setdefault(thing, {True: [], False: []})[timed].extend(tests)
        if "died" in said:
            self._end_the_run(report, said["died"])

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Leave out, of the tests that met the end of the server at the same time, all but the first."""
        return ("", "", "") if "repeated" in getattr(report, _ATTRIBUTE, {}) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._sightings and self._last_word is None and self._run.started is not None:
            self._judge_sightings(session, self._run.started)
        if self._watch is not None:
            self._watch.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        server = self._run.started
        if self._is_worker or server is None:
            return
        if self._run.kept:
            self._say_what_is_kept(terminalreporter, server)
        # As with pytest's own last line, -qq and not -q keeps it quiet.
        if self._config.get_verbosity() >= -1 and self._last_word is None:
            line = self._figures.line(
                server,
                boot_seconds=self._run.boot_seconds,
                run_seconds=time.perf_counter() - self._began,
            )
            if line is not None:
                terminalreporter.write_line(line)

    # What the hooks do.

    def _watching(self) -> Watch | None:
        """Return what looks for leaks, once there is a server of ours."""
        server = self._run.started
        if self._watch is None and server is not None and server.kind != "given":
            self._watch = Watch(server.url)
            if self._current is not None:
                # It is the first that needed the server.
                self._watch.began(self._current.nodeid, self._current.stash[_BEGAN])
        return self._watch

    def _report_failure(
        self,
        item: pytest.Item,
        call: pytest.CallInfo[None],
        report: pytest.TestReport,
        server: Server,
        said: dict[str, Any],
    ) -> None:
        if self._last_word is not None:
            # What a dead server does to the rest of the same test is no news.
            report.outcome, report.longrepr = "passed", None
            return
        word = death.last_word(server, call.excinfo.value if call.excinfo is not None else None)
        if word is not None:
            self._last_word = said["died"] = word
            report.longrepr = death.with_log(server, word)
            item.session.shouldfail = word
            if report.when == "teardown":
                # It looked, before this was known, as if more tests would come: the wider fixtures are left, and
                # those that fail on the dead server would end pytest itself by a traceback.
                with suppress(Exception):
                    item.session._setupstate.teardown_exact(None)  # noqa: SLF001 (pytest has no other way)
        elif not item.stash.get(_FAILED, False):
            item.stash[_FAILED] = True
            for use in ledger_of(self._config).of(item.nodeid):
                kept = self._keep(use, server, said)
                text = failures.section(use, server, item.stash.get(_BEGAN, report.start), kept=kept)
                report.sections.append(("PostgreSQL", text))

    def _keep(self, use: Use, server: Server, said: dict[str, Any]) -> str | None:
        if not self._config.getoption("--keep-database"):
            return None
        said.setdefault("kept", []).append([use.kept_as or use.database, use.test])
        return keeping.keep(use, server)

    def _close_the_books(self, item: pytest.Item) -> dict[str, Any]:
        uses = ledger_of(self._config).of(item.nodeid)
        for use in uses:
            # Nobody reads them any more, and a run of thousands of tests would pile them up.
            use.statements.clear()
        said = {
            "uses": [[use.tier, use.seconds] for use in uses],
            "faulty": [item.nodeid] if any(use.faults for use in uses) else [],
        }
        return said | item.stash.get(_LEAKS, {})

    def _look_for_leaks(self, item: pytest.Item, watch: Watch, *, last: bool) -> None:
        uses = ledger_of(self._config).of(item.nodeid)
        if any(use.server_changed is False for use in uses):
            watch.nothing_came()
        at_once = any(
            use.server_changed or (use.server_changed is None and use.tier != "session") for use in uses
        )
        if not (at_once or last or watch.due() or (not uses and _uses_postgres(item))):
            return
        failed = item.stash.get(_FAILED, False)
        own = [use.database for use in uses if use.tier in ("clone", "empty")]
        # A failed test's connections live on in its traceback.
        sessions = watch.left_open(own) if own and not failed else []
        leaks = watch.ended()
        mine: list[Leak] = []
        sightings = []
        for leak in leaks:
            if self._is_worker or len(leak.tests) > 1:
                # Another worker's test may have made it, and may yet remove it.
                sightings.append([leak.thing, list(leak.tests), leak.timed])
            elif leak.tests == (item.nodeid,):
                mine.append(leak)
            else:
                self._figures.leaks.append(str(leak))
                fail_afterwards(item.config, leak)
        named = [*map(str, mine), *(f"an open session ({item.nodeid})" for _ in sessions)]
        item.stash[_LEAKS] = {"leaks": named, "sightings": sightings}
        if (mine or sessions) and not failed:
            pytest.fail(sentence(mine, sessions), pytrace=False)

    def _judge_sightings(self, session: pytest.Session, server: Server) -> None:
        """Fail the test that left a thing which is still there, or the run where one of several tests did."""
        for leak in still_there(server.url, self._sightings):
            self._figures.leaks.append(str(leak))
            if len(leak.tests) == 1:
                fail_afterwards(self._config, leak)
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _end_the_run(self, report: pytest.TestReport, word: str) -> None:
        if self._told:
            getattr(report, _ATTRIBUTE)["repeated"] = True
            return
        self._told = True
        controller = self._config.pluginmanager.getplugin("dsession")
        server = self._run.started
        if controller is not None and server is not None:
            # This process started the server, and can tell more of its end than a worker.
            self._last_word = death.last_word(server, None) or word
            report.longrepr = death.with_log(server, self._last_word)
            controller.shouldstop = self._last_word

    def _say_what_is_kept(self, terminal: pytest.TerminalReporter, server: Server) -> None:
        terminal.section("databases kept")
        for database, test in self._run.kept.items():
            terminal.write_line(f"{failures.psql(server, database)}  # {test}")
        end = server.leave_running()
        terminal.write_line(
            f"The server runs on. To end it, and what it holds: {end}"
            if end
            else "They stay until you drop them."
        )


def _uses_postgres(item: pytest.Item) -> bool:
    return any(name.lstrip("_").startswith("postgres_") for name in getattr(item, "fixturenames", ()))
