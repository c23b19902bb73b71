"""The doctor's door: where it works, what it says to whom, and that it leaves everything as it was."""

import ast
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from devtools.doctor import checkup, containers, inside, probes
from devtools.doctor.checkout import Checkout
from devtools.doctor.command import Said
from devtools.doctor.finding import Finding, ok, unknown
from devtools.doctor.probes import Probe, gather
from devtools.doctor.python import Environment

from .doctoring import DOOR, Skeleton
from .support import ROOT, is_alive, wait_until

SECRET = "do-not-print-this"
ANY_OLD = ("python3.6", "python3.7", "python3.8", "python3.9", "python3.10")


def test_page_of_a_bare_checkout_has_each_thing_once_and_says_how_to_go_on(skeleton: Skeleton) -> None:
    """No Docker, no environment, no home: nothing is wrong, and each thing is said to be so."""
    found = {each["name"]: each for each in skeleton.ask(API_PORT="1", DB_PORT="2")}
    expected = [name for probe in checkup.probes(skeleton.checkout) for name in probe.names]

    assert sorted(found) == sorted(expected)
    assert {each["state"] for each in found.values()} <= {"ok", "warning", "unknown"}
    assert "embedded PostgreSQL" in found["docker/engine"]["cure"]
    assert found["python/environment"]["state"] == "warning"
    assert found["database/server"]["finding"] == "No environment has the project's packages to ask with."
    assert "nox -s venv" in found["database/server"]["cure"]


def test_names_that_are_asked_inside_an_environment_are_those_that_are_found_there() -> None:
    assert (inside.SETTINGS, *inside.NAMES) == (*checkup.SETTINGS_CHECKED, *checkup.DATABASE)
    assert containers.NAMES == checkup.TESTS


def test_without_any_program_on_path_the_page_is_there(skeleton: Skeleton) -> None:
    found = {each["name"]: each["state"] for each in skeleton.ask(PATH="", HOME="")}

    assert found["docker/command"] == "warning"
    assert found["docker/compose"] == found["compose/volume"] == "unknown"
    assert found["disk/checkout"] == "ok"


@pytest.mark.parametrize("door", ["path", "module"])
def test_nothing_is_written(door: str, skeleton: Skeleton) -> None:
    skeleton.write(".env", "API_PORT='1'\nDB_PORT='2'\n")
    before = snapshot(skeleton.root.parent)

    if door == "path":
        done = skeleton.run()
    else:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "devtools.doctor"],
            cwd=skeleton.root, env=skeleton.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is wrong" in done.stdout
    assert snapshot(skeleton.root.parent) == before


def snapshot(place: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in place.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--nonsense"], 2), (["--only", "nonsense/*"], 2), (["--help"], 0), (["--only", "files/*"], 0)],
)
def test_usage_has_an_exit_code_of_its_own(arguments: list[str], code: int, skeleton: Skeleton) -> None:
    assert skeleton.run(*arguments).returncode == code


def test_name_that_is_none_is_told_with_those_that_are(skeleton: Skeleton) -> None:
    said = skeleton.run("--only", "docker").stderr

    assert said.startswith(
        "doctor: nothing that is looked at is named 'docker'; there are 'docker/*', 'compose/*',"
    )
    for group in re.findall(r"'(\w+/)\*'", said):
        assert any(
            name.startswith(group) for probe in checkup.probes(skeleton.checkout) for name in probe.names
        )


def test_what_is_wrong_has_exit_code_1_on_the_page_too(skeleton: Skeleton) -> None:
    skeleton.write(".env", "API_PORT='http'\n")

    done = skeleton.run("--only", "ports/API_PORT")

    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "Something is wrong: 1 wrong."


def test_json_is_a_list_of_four_texts_each(skeleton: Skeleton) -> None:
    found = skeleton.ask("[df]*")

    assert found
    for each in found:
        assert list(each) == ["name", "state", "finding", "cure"]
        assert all(isinstance(value, str) for value in each.values())
        assert each["state"] in {"ok", "warning", "wrong", "unknown"}
        assert (each["cure"] != "") or each["state"] in {"ok", "unknown"}


def test_secrets_are_in_no_part_of_it(skeleton: Skeleton) -> None:
    skeleton.write(
        ".env",
        f'POSTGRES_PASSWORD="{SECRET}$X"\nAPI_TOKEN={SECRET}\\\n{SECRET}\nKEY=\'{SECRET}\nAPI_PORT={SECRET}\n'
        f"DATABASE_URL=postgresql://u:{SECRET}@h\n{SECRET}='1'\n",
    )
    skeleton.write(
        "backend/.env", f"DB_PORT='{SECRET}'\nPOSTGRES_PASSWORD='{SECRET}'\nPOSTGRES_DB='{SECRET}\n"
    )
    variables = {
        "POSTGRES_HOST": SECRET,
        "DOCKER_HOST": f"tcp://me:{SECRET}@127.0.0.1:1",
        "API_TOKNE": SECRET,
    }

    for arguments in ([], ["--json"]):
        done = skeleton.run(*arguments, **variables)
        assert done.returncode == 1
        assert "POSTGRES_PASSWORD" in done.stdout
        assert SECRET not in done.stdout + done.stderr


def test_old_python_says_so_in_two_lines(skeleton: Skeleton) -> None:
    """What it has to read is held to its grammar, and the oldest Python on this machine reads it."""
    for name in (DOOR / "__main__.py", DOOR / "too_old.py", DOOR / "__init__.py"):
        ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 6))
    pretend = (
        "import sys, runpy; sys.version_info = (3, 8, 18); sys.argv[1:] = sys.argv[2:];"
        f"runpy.run_path({str(skeleton.root / DOOR)!r}, run_name='__main__')"
    )
    ways = [[sys.executable, "-c", pretend, "--"]]
    ways += [[name, str(skeleton.root / DOOR)] for name in ANY_OLD if runs(name)][:1]
    for way in ways:
        done = subprocess.run(
            way,
            cwd=skeleton.root,
            env=skeleton.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        first, second = done.stdout.splitlines()
        assert re.fullmatch(
            r"This is Python 3\.\d+\.\d+, and the project needs Python 3\.11 to 3\.14\.", first
        )
        assert second.startswith(("Run it by the one that is here: `python3.1", "Install Python 3.11"))
        assert (done.returncode, done.stderr) == (1, "")
        asked = subprocess.run(
            [*way, "--json"],
            cwd=skeleton.root,
            env=skeleton.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        (found,) = json.loads(asked.stdout)
        assert found == {"name": "python/version", "state": "wrong", "finding": first, "cure": second}


def runs(name: str) -> bool:
    """Whether there is such a program: a shim of a version that was not chosen is none."""
    found = shutil.which(name)
    return (
        found is not None
        and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0
    )


def hanging(*names: str) -> tuple[Probe, threading.Event]:
    """Return a question that hangs, and what ends it; left alone, it would find nothing after a while."""
    end = threading.Event()

    def ask() -> list[Finding]:
        end.wait(4)
        return []

    return Probe("what hangs", names, ask, seconds=0.2), end


def test_question_that_is_not_answered_is_unknown_and_holds_nobody_up() -> None:
    slow, never = hanging("docker/engine", "docker/clock")
    quick = Probe("quick", ("files/x",), lambda: [ok("files/x", "Yes.")])

    found = gather([slow, quick])
    never.set()

    assert found == [
        unknown("docker/engine", "No answer within 0.2 s."),
        unknown("docker/clock", "No answer within 0.2 s."),
        ok("files/x", "Yes."),
    ]


def test_environment_that_does_not_answer_in_time_is_not_to_be_made_anew(
    skeleton: Skeleton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkout, "run", lambda *_, **__: Said(None, "", ""))
    environment = Environment(Path("python"), ".venv", has_packages=True)

    found = checkup.asked_inside(skeleton.checkout, lambda: environment, "inside", ["database/server"])

    assert found == [unknown("database/server", "No answer within 30 s.")]


def test_question_that_fails_is_unknown_and_what_it_says_is_not_shown() -> None:
    def fail() -> list[Finding]:
        raise ValueError(SECRET)

    (found,) = gather([Probe("failing", ("files/x",), fail)])

    assert found == unknown("files/x", "Could not be told: ValueError on the way.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_running(
    number: signal.Signals, skeleton: Skeleton, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    written, noted = tmp_path / "written", tmp_path / "pid"
    program.write_text(
        f"#!/bin/sh\necho $$ > '{written}' && mv '{written}' '{noted}'\nsleep 60\n", encoding="utf-8"
    )
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{skeleton.environment['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(skeleton.root / DOOR)],
        cwd=skeleton.root, env=skeleton.environment | {"PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_until(noted.exists, "the docker command being asked")

    process.send_signal(number)

    said, _ = process.communicate(timeout=15)
    assert (process.returncode, said) == (130, b"")
    pid = int(noted.read_text(encoding="utf-8"))
    wait_until(lambda: not is_alive(pid), "the docker command's end")


def test_what_is_slow_is_shown_on_a_terminal_and_wiped_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "QUIET_SECONDS", 0.0)
    slow, never = hanging("docker/engine")
    terminal = io.StringIO()

    gather([slow], terminal)
    never.set()

    assert "0 s: what hangs ..." in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_is_slow_never_fills_a_line_which_would_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "QUIET_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "10")
    slow, never = hanging("docker/engine")
    terminal = io.StringIO()

    gather([slow], terminal)
    never.set()

    assert "\r\x1b[K0 s: what\r" in terminal.getvalue()
