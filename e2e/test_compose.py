"""`docker compose up` in a fresh clone: it works for a new user, and survives mistakes and restarts."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from backend.config import ROOT
from backend.tests.support import wait_until
from devtools.doctor import check_compose
from devtools.doctor.docker_cli import examine

from .checkout import HOSTILE, HOSTILE_IN_ENV, Checkout, answers, request


@pytest.fixture(scope="module")
def first(make_checkout: Callable[[], Checkout]) -> Checkout:
    return make_checkout()


@pytest.fixture
def up(first: Checkout) -> Checkout:
    """Start whatever a test before has stopped in the checkout that these tests share."""
    first.compose("up", "--detach")
    wait_until(lambda: answers(f"{first.url}/health/ready"), seconds=120, what="the API being ready")
    return first


def create_company(checkout: Checkout, name: str) -> int:
    answer = request(f"{checkout.url}/api/v1/companies", data={"name": name})
    assert answer.status_code == 201, answer.text
    identifier: int = answer.json()["id"]
    return identifier


def test_wait_returns_when_the_api_is_ready_and_data_survives_down_and_up(up: Checkout) -> None:
    assert request(f"{up.url}/health/ready").status_code == 200
    company = create_company(up, "Survivor")

    up.compose("down")
    assert not answers(f"{up.url}/health/live")
    up.compose("up", "--detach", "--wait")

    assert request(f"{up.url}/api/v1/companies/{company}").json()["name"] == "Survivor"


def test_docs_need_no_network_beyond_the_api(up: Checkout) -> None:
    page = request(f"{up.url}/docs").text

    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{asset}" in page
    assert "SwaggerUIBundle" in request(f"{up.url}/docs/assets/swagger-ui-bundle.js").text


def test_directory_whose_name_gives_no_project_name_is_reported_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    directory = tmp_path / "日本語"
    directory.mkdir()
    shutil.copy(ROOT / "compose.yaml", directory)

    (found,) = check_compose.check(examine(directory))

    assert "cannot derive a project name" in found.finding
    assert found.cure.startswith("Set COMPOSE_PROJECT_NAME='procore' in .env,")


def test_ports_are_open_only_on_loopback(up: Checkout) -> None:
    published = up.compose("ps", "--format", "{{.Ports}}")

    assert f"127.0.0.1:{up.api_port}->8000/tcp" in published
    assert f"127.0.0.1:{up.db_port}->5432/tcp" in published
    assert "0.0.0.0" not in published  # noqa: S104  that is what must not be there


def test_api_runs_without_root_and_without_capabilities(up: Checkout) -> None:
    status = up.compose("exec", "-T", "api", "cat", "/proc/1/status")

    lines = dict(line.split(":\t", 1) for line in status.splitlines())
    assert lines["Uid"].split() == ["10001"] * 4
    assert (lines["CapEff"], lines["CapBnd"], lines["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")


def test_packages_are_compiled_so_that_a_reload_is_quick(up: Checkout) -> None:
    look = "import os, sqlalchemy; print(os.path.exists(sqlalchemy.__cached__))"

    assert up.compose("exec", "-T", "api", "python", "-c", look).strip() == "True"


def test_mistake_in_a_saved_file_is_survived_and_the_next_version_is_served(up: Checkout) -> None:
    health = up.path / "backend" / "routers" / "health.py"
    text = health.read_text()

    health.write_text(text + "\nthis is no Python\n")
    wait_until(lambda: not answers(f"{up.url}/health/live"), seconds=60, what="the mistake taking effect")
    health.write_text(text.replace('prefix="/health"', 'prefix="/well"'))
    wait_until(lambda: answers(f"{up.url}/well/ready"), seconds=60, what="the saved file's answer")
    health.write_text(text)


def test_stop_finishes_the_request_in_flight_and_kills_nothing(up: Checkout) -> None:
    """A lock delays the request until the API has received the signal to stop."""
    database = f"postgresql://postgres:postgres@127.0.0.1:{up.db_port}/procore_integrator"
    # The API's comparison of the schema with the models, just after a start, may wait for the lock too.
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^INSERT'"
    with (
        ThreadPoolExecutor(2) as pool,
        psycopg.connect(database) as holder,
        psycopg.connect(database, autocommit=True) as observer,
    ):
        holder.execute("LOCK TABLE companies")
        in_flight = pool.submit(request, f"{up.url}/api/v1/companies", data={"name": "In flight"})
        wait_until(
            lambda: in_flight.done() or observer.execute(waiting).fetchone() == (1,),
            seconds=20,
            what="the request waiting for the lock",
        )
        assert not in_flight.done(), in_flight.result()
        # An earlier test reloaded the API, which logs the same words.
        shutdowns = up.compose("logs", "api").count("Shutting down")
        stop = pool.submit(up.compose, "stop", "api")
        wait_until(
            lambda: up.compose("logs", "api").count("Shutting down") > shutdowns,
            seconds=20,
            what="the API shutting down",
        )

        assert not in_flight.done(), in_flight.result()
        holder.commit()

        assert in_flight.result().status_code == 201
        stop.result()
    assert up.psql("SELECT count(*) FROM companies WHERE name = 'In flight'") == "1"

    up.compose("stop")
    states = up.compose("ps", "--all", "--format", "{{.Service}} {{.ExitCode}}").split("\n")
    assert set(filter(None, states)) == {"api 0", "db 0"}, "one that was killed exits with 137"


def test_second_checkout_with_its_own_settings_runs_next_to_the_first(
    up: Checkout, checkout: Checkout
) -> None:
    """It has the example's settings, another user, a hostile password, and a token in the environment."""
    example = (checkout.path / ".env.example").read_text()
    settings = f"POSTGRES_USER='appuser'\nPOSTGRES_PASSWORD='{HOSTILE_IN_ENV}'\n"
    (checkout.path / ".env").write_text(example + settings)

    checkout.compose("up", "--detach", "--wait")

    create_company(checkout, "Only here")
    assert "Only here" not in request(f"{up.url}/api/v1/companies").text
    assert checkout.compose("exec", "-T", "api", "printenv", "POSTGRES_PASSWORD").rstrip("\n") == HOSTILE
    verb = (sys.executable, "-m", "devtools.database")
    assert f"Compose's, on DB_PORT {checkout.db_port}" in checkout.run(*verb, "init")
    assert checkout.run(*verb, "shell", "-Atc", "SELECT name FROM companies").endswith("Only here\n")
    # A health check may come just before the server is ready.
    fatal = re.findall(r"FATAL:(?!\s+the database system is starting up).*", checkout.compose("logs", "db"))
    assert fatal == []

    checkout.environment["API_TOKEN"] = "t" * 32
    checkout.compose("up", "--detach", "--wait")
    assert request(f"{checkout.url}/api/v1/companies").status_code == 401


def test_url_for_the_host_in_env_file_is_not_used_in_the_container(checkout: Checkout) -> None:
    (checkout.path / ".env").write_text("DATABASE_URL='postgresql://nobody@127.0.0.1:1/nothing'\n")

    services = json.loads(checkout.compose("config", "--format", "json"))["services"]

    assert services["api"]["environment"]["DATABASE_URL"] == ""


def test_checkout_that_the_container_cannot_read_is_one_plain_line(up: Checkout) -> None:
    (up.path / "backend").chmod(0o700)
    try:
        up.compose("restart", "api")

        said = "run 'chmod -R go+rX backend' on the host"
        wait_until(lambda: said in up.compose("logs", "api"), seconds=20, what="the message")
    finally:
        (up.path / "backend").chmod(0o755)


def test_changed_lock_is_not_ignored_by_up(up: Checkout) -> None:
    lock = up.path / "requirements" / "runtime.txt"
    text = lock.read_text()
    lock.write_text(text + "nonsense==1\n")

    said = up.compose("up", "--detach", "--wait", check=False)

    lock.write_text(text)
    assert "nonsense" in said
