"""`nox -s utc_check` succeeds on every supported server, even if the server's zone is not UTC."""

import json
import os
import subprocess
import sys

import pytest

from freshpg import choose

from .checkout import ROOT

SETTINGS = ("timezone=Asia/Kathmandu", "datestyle=SQL, DMY")


@pytest.mark.parametrize("image", ["postgres:15", "postgres:18"])
def test_proof_holds_on_a_server_in_another_zone(image: str) -> None:
    with choose("docker", image=image, settings=SETTINGS).start() as server:
        done = subprocess.run(
            [sys.executable, "-m", "devtools.database", "utc", "--json"],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": server.url, "APP_ENV": "test"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["proved"]
    assert "Asia/Kathmandu" in json.dumps(report["server"]), "the report does not name the server's zone"
