"""The suite on a server that is given, for a role that may create databases and nothing else."""

import os
import re
import subprocess
import sys

import psycopg

from freshpg import start_ephemeral

from .checkout import ROOT


def test_suite_passes_on_a_given_server_and_leaves_nothing_there() -> None:
    with start_ephemeral() as server:
        with psycopg.connect(server.url, autocommit=True) as administrator:
            administrator.execute("CREATE ROLE tester LOGIN CREATEDB PASSWORD 'tester'")
        place = server.url.rpartition("@")[2]

        done = subprocess.run(
            # The plugin's own tests start servers of their own, whatever the run's is.
            [sys.executable, "-m", "pytest", "-n", "2", "--ignore=packages/freshpg/tests"],
            cwd=ROOT,
            env=os.environ | {"TEST_DATABASE_URL": f"postgresql://tester:tester@{place}"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        with psycopg.connect(server.url) as administrator:
            left = {name for (name,) in administrator.execute("SELECT datname FROM pg_database")}

    assert done.returncode == 0, done.stdout
    announced = r"^PostgreSQL \d+\.\d+, given \(127\.0\.0\.1:\d+/postgres\), as TEST_DATABASE_URL names it$"
    assert re.search(announced, done.stdout, re.MULTILINE), done.stdout[:2000]
    assert left == {"postgres", "template0", "template1"}
