import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg

from freshpg import Server, choose, run

from .support import environment, finished, is_alive, python, query, wait_until

RUN = python("-m", "freshpg", "run")

REPORT = """
import os, psycopg
url = os.environ["DATABASE_URL"]
with psycopg.connect(url) as connection:
    data = connection.execute("select current_database(), current_setting('data_directory')").fetchone()
print(*data, *sorted(name for name in os.environ if name.startswith("POSTGRES_")), flush=True)
"""


def test_the_command_gets_a_database_and_its_exit_code_is_returned() -> None:
    result = finished(
        [*RUN, "--", *python("-c", REPORT + "raise SystemExit(7)")],
        POSTGRES_HOST="elsewhere",
        POSTGRES_PORT="1",
        DATABASE_URL="postgresql://elsewhere/d",
    )

    assert result.returncode == 7, result.stderr
    name, data = result.stdout.split()
    assert name == "procore_integrator"
    assert not Path(data).exists()
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("PostgreSQL ")


def test_what_libpq_reads_from_the_environment_reaches_no_server_of_ours() -> None:
    result = finished(
        [*RUN, "--postgres", "embedded", "--", *python("-c", REPORT)],
        PGSSLMODE="require",
        PGHOSTADDR="127.0.0.2",
        PGOPTIONS="-c no_such_setting=1",
        PGSERVICE="nowhere",
        PGREQUIREAUTH="none",
    )

    assert result.returncode == 0, result.stderr


def test_a_directory_keeps_its_data_between_commands(kept: Path) -> None:
    options = ["--directory", str(kept / "kept"), "--database", "odd name"]

    made = finished([*RUN, *options, "--", *python("-c", _executing("create table kept ()"))])
    found = finished([*RUN, *options, "--", *python("-c", _executing("table kept"))])

    assert made.returncode == 0, made.stderr
    assert found.returncode == 0, found.stderr
    assert found.stderr.endswith(f", embedded, in {kept / 'kept'}\n")


def test_a_command_that_is_not_there_is_one_line_and_127() -> None:
    result = finished([*RUN, "--postgres", "embedded", "--", "no-such-command"], PATH="/usr/bin:/bin")

    assert result.returncode == 127
    assert result.stderr.splitlines()[1:] == ["no-such-command: No such file or directory"]


def test_a_server_that_cannot_be_had_is_told_without_a_traceback() -> None:
    result = finished([*RUN, "--postgres", "docker", "--", "true"])

    assert result.returncode == 69
    assert result.stderr.startswith(
        "--postgres docker was asked for and cannot be had: Docker does not answer"
    )
    assert "Traceback" not in result.stderr


def test_ctrl_c_reaches_the_command_first_and_the_server_outlives_it() -> None:
    """The command answers the interrupt by using its database once more."""
    command = python(
        "-c",
        "import time\n"
        "try:\n"
        f"    exec({REPORT!r})\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    with psycopg.connect(os.environ['DATABASE_URL']) as connection:\n"
        "        connection.execute('select 1')\n"
        "    print('still there', flush=True)\n"
        "    raise SystemExit(5)\n",
    )
    with _running([*RUN, "--postgres", "embedded", "--", *command]) as process:
        assert process.stdout is not None
        data = Path(process.stdout.readline().split()[1])
        # As a terminal does it: to every process of the foreground group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "still there\n"
        process.wait(20)

    assert process.returncode == 5
    assert not data.exists()


def test_a_request_to_terminate_is_passed_on() -> None:
    command = python("-c", REPORT + "import time; time.sleep(60)")
    with _running([*RUN, "--postgres", "embedded", "--", *command]) as process:
        assert process.stdout is not None
        data = Path(process.stdout.readline().split()[1])
        process.terminate()
        process.wait(20)

    assert process.returncode == 128 + signal.SIGTERM
    assert not data.exists()


def test_a_killed_runner_takes_the_server_along() -> None:
    command = python("-c", REPORT + "import sys; sys.stdin.read()")
    with _running([*RUN, "--postgres", "embedded", "--", *command]) as process:
        assert process.stdout is not None
        data = Path(process.stdout.readline().split()[1])
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        process.kill()
        wait_until(lambda: not is_alive(pid), "the server is gone")
        wait_until(lambda: not data.parent.exists(), "the directory is gone")


def test_the_function_behind_it_takes_a_choice(embedded: Server) -> None:
    code = run(choose(embedded.url), "by_function", python("-c", _executing("create table here ()")))

    assert code == 0
    with psycopg.connect(embedded.url, dbname="by_function") as connection:
        assert connection.execute("select to_regclass('here')::text").fetchone() == ("here",)
    query(embedded.url, "drop database by_function")


def _executing(statement: str) -> str:
    return (
        "import os, psycopg\n"
        "with psycopg.connect(os.environ['DATABASE_URL']) as connection:\n"
        f"    connection.execute({statement!r})\n"
    )


def _running(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
