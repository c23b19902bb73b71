import json
import os
import signal
import subprocess
import sys

from freshpg import ensure_database, start_ephemeral

from .processes import LIBPQ, NO_DOCKER, is_alive, open_directory, postmaster, query, wait_until

RUN = [sys.executable, "-m", "freshpg", "run"]
REPORT = """
import json, os, psycopg
with psycopg.connect() as by_libpq, psycopg.connect(os.environ["DATABASE_URL"]) as by_url:
    data = [c.execute("select current_database(), current_setting('port')").fetchone() for c in (by_libpq, by_url)]
print(json.dumps([data, {name: value for name, value in os.environ.items() if name.startswith("PG")}]))
raise SystemExit(7)
"""


def finished(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {"DOCKER_HOST": NO_DOCKER} | variables
    return subprocess.run(
        [*RUN, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_finds_the_database_by_url_and_by_libpq_and_its_exit_code_is_returned() -> None:
    result = finished("--", sys.executable, "-c", REPORT, DATABASE_URL="x", **LIBPQ)

    assert result.returncode == 7, result.stderr
    (by_libpq, by_url), variables = json.loads(result.stdout)
    assert by_libpq == by_url == ["postgres", variables["PGPORT"]]
    assert variables.keys() == {"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"}
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("PostgreSQL ")


def test_a_command_that_a_signal_ended_or_that_is_missing_gives_a_shells_exit_code() -> None:
    assert finished("--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    missing = finished("--", "/nonexistent/program")

    assert missing.returncode == 127
    assert missing.stderr.splitlines()[1] == "/nonexistent/program: No such file or directory"


def test_no_server_is_exit_code_69_and_the_reason() -> None:
    result = finished("--postgres", "docker", "--", "true")

    assert result.returncode == 69
    assert result.stderr.startswith(
        f"--postgres docker is not available: Docker does not answer at {NO_DOCKER}"
    )


def test_sigterm_is_passed_on_and_the_server_is_stopped_after_the_command() -> None:
    with open_directory() as place:
        command = [*RUN, "--directory", str(place / "kept"), "--", "sh", "-c", "echo ready; exec sleep 60"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            pid = postmaster(place / "kept" / "data")
            process.terminate()
            assert process.wait(20) == 128 + signal.SIGTERM

        wait_until(lambda: not is_alive(pid), "the server is gone")


def test_on_a_given_server_the_urls_database_is_used_and_the_server_left_running() -> None:
    with start_ephemeral() as server:
        url = ensure_database(server.url, "odd name")
        result = finished("--postgres", url, "--", sys.executable, "-c", REPORT)

        assert result.returncode == 7, result.stderr
        (by_libpq, by_url), _ = json.loads(result.stdout)
        assert by_libpq[0] == by_url[0] == "odd name"
        assert query(server.url, "select 1") == [(1,)]
