"""The API does what its OpenAPI schema says: checked by Schemathesis and by a generated client."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.tests.application import TOKEN
from backend.tests.loopback import free_port
from backend.tests.support import wait_until

from .checkout import ROOT, answers

BIN = Path(sys.executable).parent


def run(*command: str, directory: Path) -> str:
    """Run a program of the environment, which must succeed, and return its output."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=directory,
        env=os.environ | {"PATH": path, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["", TOKEN], ids=["open", "with a token"])
def token(request: pytest.FixtureRequest) -> str:
    given: str = request.param
    return given


@pytest.fixture(scope="module")
def address(engine: Engine, token: str) -> Iterator[str]:
    """Serve the API, and give its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    url = engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "backend.scripts.serve", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url, "APP_ENV": "test", "API_TOKEN": token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(f"{address}/health/ready"), seconds=60, what="the API being ready")
        yield address
    finally:
        process.terminate()
        process.wait()


def test_schemathesis_finds_nothing(address: str, token: str, tmp_path: Path) -> None:
    # Coverage takes most of the time, and the routes are the same with and without a token.
    mode = ("--header", f"Authorization: Bearer {token}") if token else ("--phases", "fuzzing,stateful")
    options = ("--checks", "all", "--max-examples", "20", "--seed", "1", "--request-timeout", "60")

    run("schemathesis", "run", "--no-color", *options, *mode, f"{address}/openapi.json", directory=tmp_path)


USE_OF_THE_CLIENT = """
import sys
from procore_integrator_client import AuthenticatedClient
from procore_integrator_client.api.companies import create_company, list_companies
from procore_integrator_client.models import CompanyCreate

with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2], raise_on_unexpected_status=True) as client:
    create_company.sync(client=client, body=CompanyCreate(name="Acme"))
    print([company.name for company in list_companies.sync(client=client).items])
"""


def test_generated_client_compiles_and_lists_companies(address: str, token: str, tmp_path: Path) -> None:
    client = str(tmp_path / "client")
    source = ("--url", f"{address}/openapi.json", "--output-path", client)
    run("openapi-python-client", "generate", "--fail-on-warning", *source, directory=tmp_path)
    run("python", "-W", "error", "-m", "compileall", "-q", client, directory=tmp_path)

    listed = run("python", "-c", USE_OF_THE_CLIENT, address, token or "none", directory=Path(client))

    assert listed == "['Acme']\n"
