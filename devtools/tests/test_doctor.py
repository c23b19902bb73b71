"""The doctor: its command line, its exit code and its page."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from backend.config import ROOT
from devtools.doctor import __main__ as doctor
from devtools.doctor.docker_cli import Docker, Machine
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong
from devtools.doctor.report import print_report

SECRET = "do-not-print-this"
BARE_PYTHON = str(Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"))
MACHINE = Machine(Path(), Docker())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the checkout, without an environment."""
    for name in ("backend", "devtools", "requirements"):
        ignored = shutil.ignore_patterns("__pycache__", "tests")
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=ignored)
    for name in ("compose.yaml", ".env.example"):
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def run(copy: Path, *arguments: str, python: str = sys.executable, **variables: str) -> tuple[int, str]:
    """Run the doctor without Docker; return its exit code and output."""
    # The tests set the settings to empty values, which would hide those in a file.
    kept = {name: value for name, value in os.environ.items() if value}
    environment = kept | {"DOCKER_HOST": "unix:///nonexistent"} | variables
    done = subprocess.run(
        [python, "-B", "-m", "devtools.doctor", *arguments],
        cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_doctor_without_an_environment_says_how_to_create_one_and_changes_nothing(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}

    code, page = run(copy, python=BARE_PYTHON)

    assert code == 0, page
    assert (
        "warning  environment/packages: There is no .venv yet, or its Python does not exist any more." in page
    )
    assert "unknown  database/check: This Python lacks the project's packages." in page
    assert page.endswith("`nox -s tests` installs the environment, like every other session that uses it.\n")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_json_has_name_state_finding_and_cure_for_every_subject(copy: Path) -> None:
    found = json.loads(run(copy, "--json")[1])

    assert list(dict.fromkeys(each["name"].partition("/")[0] for each in found)) == list(doctor.SUBJECTS)
    for each in found:
        assert list(each) == ["name", "state", "finding", "cure"]
        assert each["state"] in ("ok", "warning", "wrong", "unknown")
        assert each["cure"] or each["state"] in ("ok", "unknown")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["page", "json"])
def test_wrong_finding_gives_exit_code_1_and_no_secret_is_shown(form: list[str], copy: Path) -> None:
    (copy / ".env").write_text(
        f"API_PORT='{SECRET}'\nPOSTGRES_PASSWORD=\"{SECRET}$X\"\nAPI_TOKEN='{SECRET}'\n{SECRET}='1'\n"
        f"DATABASE_URL='postgresql://u:{SECRET}@127.0.0.1:1'\n",
        encoding="utf-8",
    )
    given = f"postgresql://u:{SECRET}@127.0.0.1:1/x"

    code, page = run(copy, *form, TEST_DATABASE_URL=given, DOCKER_HOST=f"tcp://u:{SECRET}@127.0.0.1:1")

    assert code == 1
    assert "API_PORT is invalid" in page
    assert SECRET not in page


def test_option_only_selects_a_subject(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _: MACHINE)
    monkeypatch.setitem(doctor.CHECKS, "disk", lambda _: [ok("checkout", "Yes.")])

    assert doctor.main(["--json", "--only", "disk"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["disk/checkout"]


def test_failed_check_does_not_stop_the_others_and_its_message_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(_: Machine) -> list[Finding]:
        raise ValueError(SECRET)

    monkeypatch.setitem(doctor.CHECKS, "disk", check)

    assert doctor.look("disk", MACHINE) == [unknown("disk/check", "The check failed with ValueError.")]


def drawn(*found: Finding) -> str:
    output = io.StringIO()
    print_report(found, Console(file=output, width=62))
    return re.sub(" +$", "", output.getvalue(), flags=re.MULTILINE)


def test_page_shows_findings_by_subject_with_their_cures() -> None:
    assert drawn(
        ok("docker/engine", "It answers."),
        wrong("disk/checkout", "Only 0.1 GB free [for the checkout], at /home/me.", "Make room."),
        warning("disk/x", "So.", "Do."),
        unknown("tests/y", "No engine.", "Start it."),
    ).splitlines() == [
        "Docker",
        "  ✓ engine    It answers.",
        "",
        "Disk space",
        "  ✗ checkout  Only 0.1 GB free [for the checkout], at",
        "              /home/me.",
        "              → Make room.",
        "  ! x         So.",
        "              → Do.",
        "",
        "Tests",
        "  ? y         No engine.",
        "              → Start it.",
        "",
        "Some checks fail. To be fixed: disk/checkout. Worth a look:",
        "disk/x. Not checked: tests/y.",
    ]


def test_everything_is_fine_only_without_warnings() -> None:
    assert drawn(ok("a/b", "")).endswith("\nEverything is fine.\n")
    assert drawn(warning("a/c", "", "-")).endswith("\nNothing fails. Worth a look: a/c.\n")
