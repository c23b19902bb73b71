"""What the doctor finds in Compose and Docker: one project, in which one thing after another is made wrong."""

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config

from backend.config import LiteralDotEnv, Settings
from devtools.doctor import containers
from devtools.doctor.finding import State
from devtools.doctor.settings import read_file
from freshpg import reaper

from .checkout import Checkout

SECRET = "do-not-print-this"
VALUES = [
    "", "b", "b c", "b # c", "b#c", "b\t#c", "#b", " #b", "b'c", 'b"c', "b`c", "b=c", "b!c", "b;c", "ä€",
    "b\\c", "b\\nc", "b\\", "$b", "b$", "a$1", "${b}", "${b:-c}", "a$$b", "\\$b",
    "''", "'b'", "'b' # c", "'b'#c", "'$b ${c} # d \"'", "'b\\'c'", "'b\\\\c'", "'b\\nc'", "'b\\\\'", "'b\nc'", "' b '",
    '""', '"b"', '"b" # c', '"b#c"', '"$b"', '"${b}"', '"b\'c"', '"b\\"c"', '"b\\nc"', '"b\\tc"', '"b\\\\c"', '"b\\$c"',
    '"b\\qc"', '" b "', '"b\nc"', "'\\t'", '"b\\0c"', '"b\\\'c"', "b$.c", "b\\#c", '"b\\$1"', "b\\$1", '"$"', "b$ c",
    "p@ss:w/rd%20?&*()[]{}<>|~^+,.-_",
]  # fmt: skip


def findings(checkout: Checkout, only: str = "*", **variables: str) -> dict[str, dict[str, str]]:
    """Return what is found, by name; where several bear one, the last."""
    command = (sys.executable, "-m", "devtools.doctor", "--json", "--only", only)
    said = checkout.run(
        "env", *(f"{name}={value}" for name, value in variables.items()), *command, check=False
    )
    assert SECRET not in said
    return {each["name"]: each for each in json.loads(said)}


def wrong(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: each["finding"] for name, each in found.items() if each["state"] == "wrong"}


def up(checkout: Checkout) -> None:
    checkout.compose("up", "--detach", "--wait", "db")


def teach(checkout: Checkout, cure: str, password: str) -> None:
    """Do what the cure says, and answer what it asks."""
    command = cure[cure.index("docker compose exec") : cure.index("'\\password'")].split()
    subprocess.run(
        [*command[:3], "-T", *command[3:], "\\password"],
        cwd=checkout.path, env=checkout.environment, input=f"{password}\n{password}\n", text=True, check=True,
    )  # fmt: skip


def test_database_that_is_up_is_well_and_a_checkout_of_its_name_and_port_is_in_its_way(
    checkout: Checkout, tmp_path: Path
) -> None:
    project = checkout.environment["COMPOSE_PROJECT_NAME"]
    volume = f"{project}_db"
    found = findings(checkout)
    assert wrong(found) == {}
    assert found["compose/volume"]["finding"] == f"There is no volume {volume} yet; the first start makes it."

    up(checkout)
    found = findings(checkout)
    assert wrong(found) == {}
    assert found["compose/services"]["finding"] == "db is running, healthy."
    assert found["compose/password"]["state"] == found["docker/clock"]["state"] == "ok"
    assert (
        found["compose/volume"]["finding"] == f"{volume} holds data of PostgreSQL 18, which postgres:18 runs."
    )
    assert found["ports/DB_PORT"]["finding"] == (
        f"{checkout.db_port} is held by Compose's db (container {project}-db-1), of this checkout."
    )
    assert found["database/server"]["finding"].endswith(
        f", Compose's, which answers on DB_PORT {checkout.db_port}."
    )
    assert found["database/schema"]["cure"] == "`nox -s db_init`."

    # Another checkout of the same name, and of the same port.
    other = copy(checkout)
    other.path = shutil.copytree(checkout.path, tmp_path / "other")
    mistakes = wrong(findings(other, "[cp]*"))
    assert str(checkout.path) in mistakes["compose/project"]
    assert f"of the project {project} in {checkout.path}" in mistakes["ports/DB_PORT"]


def test_password_and_user_that_the_volume_does_not_know_are_found_and_the_cure_cures(
    checkout: Checkout,
) -> None:
    """The volume keeps what it was made with."""
    up(checkout)
    (checkout.path / ".env").write_text(f"POSTGRES_PASSWORD='$ \" {SECRET}'\n")
    up(checkout)
    found = findings(checkout, "[cd]*")
    assert (
        "does not know the POSTGRES_PASSWORD that Compose gives for user 'postgres'"
        in wrong(found)["compose/password"]
    )
    assert "refuses user 'postgres'" in wrong(found)["database/server"]
    teach(checkout, found["compose/password"]["cure"], f'$ " {SECRET}')
    found = findings(checkout, "[cd]*")
    assert wrong(found) == {}
    assert found["database/server"]["state"] == "ok"

    (checkout.path / ".env").write_text("POSTGRES_USER='somebody'\n")
    up(checkout)
    assert "does not know user 'somebody'" in wrong(findings(checkout, "compose/*"))["compose/password"]


def test_image_of_another_version_and_a_service_that_ended_badly_are_found(checkout: Checkout) -> None:
    up(checkout)
    volume = f"{checkout.environment['COMPOSE_PROJECT_NAME']}_db"

    # By that image a database of its own would be made beside the volume's.
    compose = checkout.path / "compose.yaml"
    text = compose.read_text()
    compose.write_text(text.replace("postgres:18", "postgres:17"))
    assert wrong(findings(checkout, "compose/volume")) == {
        "compose/volume": f"{volume} holds data of PostgreSQL 18, and postgres:17 runs 17."
    }
    compose.write_text(text)

    # And a service that ended badly.
    checkout.compose("kill", "db")
    assert wrong(findings(checkout, "[cp]*")) == {"compose/services": "db is exited, with exit code 137."}

    # What Compose cannot read it quotes.
    (checkout.path / ".env").write_text(f"API_TOKEN='{SECRET}\n")
    assert wrong(findings(checkout, "compose/*")) == {
        "compose/files": "Compose cannot read compose.yaml and .env."
    }


def test_data_where_images_before_18_kept_them_are_found(checkout: Checkout) -> None:
    volume = f"{checkout.environment['COMPOSE_PROJECT_NAME']}_db"
    checkout.compose("create", "db")
    write = ("docker", "run", "--rm", "--volume", f"{volume}:/v", "--entrypoint", "sh", "postgres:18", "-c")
    checkout.run(*write, "echo 16 > /v/PG_VERSION && mkdir -p /v/base/5 && echo 16 > /v/base/5/PG_VERSION")

    assert wrong(findings(checkout, "compose/volume")) == {
        "compose/volume": f"{volume} holds data of PostgreSQL 16, and postgres:18 runs 18."
    }


@pytest.fixture
def own_reaper() -> Iterator[str]:
    """Give the reaper's image under a name of this test's, by which its containers are known."""
    name = f"e2e-ryuk-{uuid.uuid4().hex[:8]}:1"
    subprocess.run(["docker", "tag", "testcontainers/ryuk:0.8.1", name], check=True)
    yield name
    subprocess.run(["docker", "rmi", name], check=True, stdout=subprocess.DEVNULL)


def test_reaper_is_asked_and_gone_again(checkout: Checkout, own_reaper: str) -> None:
    found = findings(checkout, "tests/*", RYUK_CONTAINER_IMAGE=own_reaper)

    assert found["tests/reaper"]["finding"] == f"Ryuk starts and answers ({own_reaper})."
    assert found["tests/connection"]["state"] == "ok"
    assert own_reaper not in checkout.run("docker", "ps", "--all", "--format", "{{.Image}}")


@pytest.mark.parametrize(
    ("variables", "state", "says"),
    [
        ({"TESTCONTAINERS_RYUK_DISABLED": "true"}, "warning", "is disabled by TESTCONTAINERS_RYUK_DISABLED"),
        ({"RYUK_CONTAINER_IMAGE": "nowhere/ryuk:1"}, "unknown", "nowhere/ryuk:1 is not here yet."),
    ],
)
def test_reaper_that_cannot_be_had_is_told(
    variables: dict[str, str], state: str, says: str, checkout: Checkout
) -> None:
    found = findings(checkout, "tests/reaper", **variables)["tests/reaper"]

    assert found["state"] == state
    assert says in found["finding"]


def test_reaper_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL says something else on that port, which is nothing."""
    monkeypatch.setattr(testcontainers_config, "ryuk_image", "postgres:18")
    monkeypatch.setattr(reaper, "ACK_SECONDS", 0.5)

    found = containers.reaper()

    assert found.state is State.WARNING
    assert found.finding.startswith("Ryuk does not answer: ")


def test_way_to_containers_is_told_with_what_chose_it(checkout: Checkout) -> None:
    mode = "TESTCONTAINERS_CONNECTION_MODE"

    chosen = findings(checkout, "tests/connection", **{mode: "bridge_ip"})["tests/connection"]["finding"]
    assert chosen.endswith(f"(bridge_ip), as {mode} says.")
    mistaken = findings(checkout, "tests/connection", **{mode: "by-magic"})["tests/connection"]
    assert mistaken["state"] == "wrong"
    assert f"{mode} is one of docker_host, gateway_ip, bridge_ip." in mistaken["cure"]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_value_that_is_not_told_to_differ_is_the_same_to_compose_and_python(
    end: str, checkout: Checkout
) -> None:
    """Both are asked for each value, and the doctor beside them."""
    named = {f"A{number}": value for number, value in enumerate(VALUES)}
    env_file = checkout.path / ".env"
    env_file.write_bytes("".join(f"{name}={value}{end}" for name, value in named.items()).encode())
    ours = LiteralDotEnv(Settings, env_file=env_file)
    theirs = checkout.run("docker", "compose", "config", "--environment")
    read = read_file(env_file, ".env")
    assert read is not None

    assert {name: line.value for name, line in read.values.items()} == {
        name: ours.env_vars[name.lower()] for name in named
    }
    differing = {
        value for name, value in named.items() if f"{name}={read.values[name].value}\n" not in theirs
    }

    assert {value for name, value in named.items() if read.values[name].difference} >= differing
    assert {"${b}", '"$b"', "'b\\\\c'", "b\t#c"} <= differing
