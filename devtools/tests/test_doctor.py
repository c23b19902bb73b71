"""The doctor's command and its page."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from backend.config import ROOT
from devtools.doctor import __main__ as doctor
from devtools.doctor.docker_cli import Docker, Machine
from devtools.doctor.finding import Finding, State, ok, unknown, warning, wrong
from devtools.doctor.report import print_page


SECRET = "do-not-print-this"
NEEDED = ("backend", "devtools", "compose.yaml", ".env.example", "requirements")
BARE_PYTHON = str(Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"))
MACHINE = Machine(Path(), Docker())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Give a checkout of its own, without an environment."""
    ignored = shutil.ignore_patterns("__pycache__", "tests")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def run(
    directory: Path, *arguments: str, python: str = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOCKER_HOST": "unix:///nonexistent", "COLUMNS": "80"} | variables
    for name in ("API_PORT", "DB_PORT", "POSTGRES_PASSWORD", "API_TOKEN"):
        environment.pop(name)  # they are emptied for tests, which would hide what a file says
    return subprocess.run(
        [python, "-B", "-m", "devtools.doctor", *arguments],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def snapshot(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*")}


def test_outside_the_environment_it_says_how_to_make_one_and_changes_nothing(copy: Path) -> None:
    before = snapshot(copy)

    page = run(copy, python=BARE_PYTHON)
    found = {each["name"]: each for each in json.loads(run(copy, "--json", python=BARE_PYTHON).stdout)}

    assert page.returncode == 0, page.stderr
    assert "`nox -s tests`, like any session that works in it, makes it." in page.stdout
    assert found["environment/packages"]["finding"] == "There is no .venv yet, or its Python is gone."
    assert {found[f"{each}/check"]["state"] for each in ("settings", "ports", "database", "tests")} == {
        "unknown"
    }
    assert found["disk/checkout"]["state"] in ("ok", "warning")
    assert snapshot(copy) == before


def test_json_is_a_list_of_four_texts_each_about_every_subject(copy: Path) -> None:
    found = json.loads(run(copy, "--json").stdout)

    assert list(dict.fromkeys(each["name"].partition("/")[0] for each in found)) == list(doctor.SUBJECTS)
    for each in found:
        assert list(each) == ["name", "state", "finding", "cure"]
        assert each["state"] in ("ok", "warning", "wrong", "unknown")
        assert each["cure"] or each["state"] in ("ok", "unknown")


def test_what_is_wrong_ends_with_code_1_and_no_secret_is_shown(copy: Path) -> None:
    (copy / ".env").write_text(
        f"API_PORT='{SECRET}'\nPOSTGRES_PASSWORD=\"{SECRET}$X\"\nAPI_TOKEN='{SECRET}'\n{SECRET}='1'\n"
        f"DATABASE_URL='postgresql://u:{SECRET}@127.0.0.1:1'\n",
        encoding="utf-8",
    )
    variables = {
        "TEST_DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:1/x",
        "DOCKER_HOST": f"tcp://u:{SECRET}@x",
    }

    page = run(copy, **variables)

    assert page.returncode == 1
    assert page.stdout.splitlines()[-1].startswith("Something is wrong: ")
    assert SECRET not in page.stdout + page.stderr
    assert SECRET not in run(copy, "--json", **variables).stdout


@pytest.mark.parametrize(
    ("only", "code", "says"),
    [("disk", 0, "disk/checkout"), ("disk/check*", 0, "disk/checkout"), ("disk/x", 2, ""), ("x", 2, "")],
)
def test_only_chooses_a_subject_or_a_finding(
    only: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _: MACHINE)
    monkeypatch.setitem(doctor.CHECKS, "disk", lambda _: [ok("checkout", "Yes.")])

    assert doctor.main(["--json", "--only", only]) == code
    assert says in capsys.readouterr().out


def test_check_that_fails_ends_no_other_and_its_text_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_: Machine) -> list[Finding]:
        raise ValueError(SECRET)

    monkeypatch.setitem(doctor.CHECKS, "disk", check)

    assert doctor.look("disk", MACHINE) == [unknown("disk/check", "The check failed with ValueError.")]


def drawn(*found: Finding, width: int = 60, **options: bool) -> str:
    output = io.StringIO()
    print_page(found, Console(file=output, width=width, **options))  # type: ignore[arg-type]
    return output.getvalue()


def test_page_has_findings_by_subject_with_their_cures() -> None:
    page = drawn(
        ok("docker/engine", "It answers."),
        wrong("disk/checkout", "Only 0.1 GB free [for the checkout], at /a/long/path.", "Make room: `du -sh ~`, and so on."),
        warning("disk/x", "So.", "Do."),
    )  # fmt: skip

    assert page == (
        "Docker\n"
        "  ✓ engine    It answers.\n"
        "\n"
        "Disk space\n"
        "  ✗ checkout  Only 0.1 GB free [for the checkout], at\n"
        "              /a/long/path.\n"
        "              → Make room: `du -sh ~`, and so on.\n"
        "  ! x         So.\n"
        "              → Do.\n"
        "\n"
        "Something is wrong: 1 well, 1 warning, 1 wrong.\n"
    )


def test_what_is_unknown_for_one_reason_is_said_once() -> None:
    page = drawn(
        ok("a/b", "Yes."),
        unknown("a/c", "No engine.", "Start it."),
        unknown("a/d", "No engine.", "Start it."),
    )

    assert page.count("No engine.") == page.count("Start it.") == 1
    assert "  ? c, d" in page


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    sentence = "`docker compose exec db` " * 8 + "日本語" * 30
    lines = drawn(wrong("a/b", sentence, sentence), width=width).splitlines()

    assert max(cell_len(line) for line in lines) <= width


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([ok("a/b", "")], "All is well: 1 well."),
        (
            [ok("a/b", ""), warning("a/c", "", "-"), warning("a/c", "", "-")],
            "Nothing is wrong: 1 well, 2 warnings.",
        ),
        ([unknown("a/b", "")], "Nothing is wrong: 1 unknown."),
        ([Finding("a/b", State.WRONG, "")], "Something is wrong: 1 wrong."),
    ],
)
def test_page_ends_with_a_verdict(found: list[Finding], verdict: str) -> None:
    assert drawn(*found).splitlines()[-1] == verdict


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert "\x1b[" not in drawn(wrong("a/b", "No.", "Do."))
    assert "\x1b[31m✗" in drawn(wrong("a/b", "No.", "Do."), force_terminal=True)
