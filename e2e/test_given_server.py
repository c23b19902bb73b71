"""The suite on a given server, for a role that may create databases and nothing else."""

import os
import re
import subprocess
import sys

import psycopg

from freshpg import choose

from .checkout import ROOT


def test_suite_passes_on_a_given_server_and_leaves_nothing_there() -> None:
    with choose("embedded").start() as server:
        with psycopg.connect(server.url, autocommit=True) as administrator:
            administrator.execute("CREATE ROLE tester LOGIN CREATEDB PASSWORD 'tester'")
        place = server.url.rpartition("@")[2]

        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "2"],
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
    assert re.search(r"^PostgreSQL .*TEST_DATABASE_URL", done.stdout, re.MULTILINE), done.stdout[:2000]
    assert left == {"postgres", "template0", "template1"}
