"""The doctor's page: how it looks at a terminal, elsewhere, and where it cannot be written."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from devtools.doctor.finding import State, ok, unknown, warning, wrong
from devtools.doctor.report import Page

from .doctoring import BARE_PYTHON, DOOR, Skeleton

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def on_a_terminal(skeleton: Skeleton, columns: int, **variables: str) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = skeleton.environment | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | variables
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(skeleton.root / DOOR), "--only", "[dps]*"],
        cwd=skeleton.root, env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # Linux's way to say that nobody writes any more
        pass
    os.close(ours)
    assert process.wait(30) == 0
    return said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [50, 90])
def test_page_is_as_wide_as_the_terminal_and_in_colours(columns: int, skeleton: Skeleton) -> None:
    said = on_a_terminal(skeleton, columns, API_PORT="1", DB_PORT="2")

    lines = ESCAPES.sub("", said).splitlines()
    assert columns - 20 < max(len(line) for line in lines if "`" not in line) <= columns
    assert "\x1b[1mDocker\x1b[0m" in said
    assert "\x1b[32m✓\x1b[0m" in said


def test_page_has_no_colours_where_none_are_wanted_or_nobody_looks(skeleton: Skeleton) -> None:
    assert "\x1b" not in on_a_terminal(skeleton, 80, NO_COLOR="1", API_PORT="1", DB_PORT="2")
    assert "\x1b" not in skeleton.run("--only", "files/*").stdout


def test_page_is_plain_where_the_terminal_has_no_signs(skeleton: Skeleton) -> None:
    environment = skeleton.environment | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-S", "-B", str(skeleton.root / DOOR), "--only", "files/*"],
        cwd=skeleton.root, env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines()[:2] == [
        "Files",
        "  + line endings  Every script and .env ends its lines by LF.",
    ]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_reader_who_goes_away_is_no_mistake(arguments: list[str], skeleton: Skeleton) -> None:
    ours, theirs = os.pipe()
    os.close(ours)

    done = by_the_door(skeleton, theirs, "--only", "files/*", *arguments)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_closed_output_leaves_the_exit_code(closed: str, skeleton: Skeleton) -> None:
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    done = subprocess.run(
        [*shell, BARE_PYTHON, "-B", str(skeleton.root / DOOR), "--only", "files/*"],
        cwd=skeleton.root, env=skeleton.environment, stderr=subprocess.PIPE, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device is Linux's")
def test_page_that_cannot_be_written_is_told_in_a_line(skeleton: Skeleton) -> None:
    done = by_the_door(skeleton, os.open("/dev/full", os.O_WRONLY), "--only", "files/*")

    assert (done.returncode, done.stderr) == (
        2,
        "doctor: what was found cannot be written: no space left on device\n",
    )


def by_the_door(skeleton: Skeleton, output: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with this output, which is closed here."""
    try:
        return subprocess.run(
            [BARE_PYTHON, "-B", str(skeleton.root / DOOR), *arguments],
            cwd=skeleton.root, env=skeleton.environment, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    finally:
        os.close(output)


def test_letters_that_the_output_has_not_are_written_all_the_same(tmp_path: Path) -> None:
    place = tmp_path / "Straße"
    place.mkdir()
    environment = Skeleton(place).environment | {"PYTHONIOENCODING": "ascii"}

    done = subprocess.run(
        [BARE_PYTHON, "-B", str(place / DOOR), "--only", "disk/checkout"],
        cwd=place, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stderr == ""
    assert r"Stra\xdfe." in done.stdout


def test_page_says_once_what_is_unknown_for_one_reason_and_what_would_let_it_be_known() -> None:
    page = Page(io.StringIO(), {})
    found = [
        ok("docker/command", "Docker 28."),
        unknown("docker/engine", "No."),
        unknown("docker/clock", "No."),
        warning("settings/names", "A.", "Cure it."),
        wrong("settings/files", "B.", "Cure that."),
        unknown("disk/docker", "C.", "Cure that."),
    ]

    lines = list(page.lines(found))

    assert lines == [
        "Docker",
        f"  {page.signs[State.OK]} command  Docker 28.",
        f"  {page.signs[State.UNKNOWN]} engine, clock",
        "             No.",
        "",
        "Settings",
        f"  {page.signs[State.WARNING]} names    A.",
        f"             {page.arrow} Cure it.",
        f"  {page.signs[State.WRONG]} files    B.",
        f"             {page.arrow} Cure that.",
        "",
        "Room",
        f"  {page.signs[State.UNKNOWN]} docker   C.",
        "",
        "Something is wrong: 1 well, 1 warning, 1 wrong, 3 unknown.",
    ]
