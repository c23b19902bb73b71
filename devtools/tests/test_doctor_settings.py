"""What the doctor finds in `.env` files: real ones, read by it, by the settings, and (in e2e) by Compose."""

import re
import subprocess
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path

import pytest
from dotenv.parser import parse_stream
from hypothesis import example, given
from hypothesis import strategies as st

from backend.config import Settings
from devtools.doctor import files, settings
from devtools.doctor.checkout import Checkout
from devtools.doctor.env_file import parse

from .doctoring import Skeleton
from .support import ROOT

FRAGMENTS = [
    "A",
    "B_C",
    "=",
    "'",
    '"',
    "\\",
    "\\'",
    "#",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "$",
    "${X}",
    "ä",
    "export ",
    "x",
]


def ask(skeleton: Skeleton, only: str, **variables: str) -> list[dict[str, str]]:
    found = settings.check(Checkout(skeleton.root, skeleton.environment | variables))
    return [each.as_data() for each in found if fnmatchcase(each.name, only)]


def findings(skeleton: Skeleton, only: str, state: str, **variables: str) -> list[str]:
    return [each["finding"] for each in ask(skeleton, only, **variables) if each["state"] == state]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
@example("A='x'\nB_C='y\n")
@example("\ufeffA= # x\nA=#x\nA=x#y #z\n")
@example("'A'='\\\\' # x\n export  A = \"\\n\\q\"")
def test_file_is_read_as_the_settings_read_it(text: str) -> None:
    """Up to the first line that cannot be read, at which the settings stop."""
    theirs = [
        (None, None) if each.error else (each.key, each.value)
        for each in parse_stream(StringIO(text))
        if each.error or each.key is not None
    ]
    ours = [(line.name, line.value) for line in parse(text)]

    assert up_to_an_error(ours) == up_to_an_error(theirs)


def up_to_an_error(lines: list[tuple[str | None, str | None]]) -> list[tuple[str | None, str | None]]:
    return lines[: lines.index((None, None)) + 1] if (None, None) in lines else lines


def test_lines_are_counted_from_one_past_blank_ones_and_values_of_several() -> None:
    text = "\n# comment\nA='1\n2'\r\n\r\nB=3\n'broken\nC=4"

    assert [(line.number, line.name) for line in parse(text)] == [(3, "A"), (6, "B"), (7, None), (8, "C")]


def test_every_setting_is_known() -> None:
    known = settings.known_names(Checkout(ROOT, {}))

    assert {name.upper() for name in Settings.model_fields} < known
    assert {"COMPOSE_PROJECT_NAME", "WORKSPACE_DOCKER_SOCKET"} < known


def test_example_as_it_is_has_nothing_to_find(skeleton: Skeleton) -> None:
    skeleton.write(".env", (ROOT / ".env.example").read_bytes())

    assert {each["state"] for each in ask(skeleton, "settings/[fnv]*")} == {"ok"}


def test_where_settings_come_from_is_told_and_what_wins(skeleton: Skeleton) -> None:
    skeleton.write(".env", "DB_PORT='5'\nAPI_PORT='6'\n")
    skeleton.write("backend/.env", "APP_ENV='test'\n")

    (found,) = findings(skeleton, "settings/files", "ok", API_PORT="7", POSTGRES_DB="x")

    assert found == (
        "Read from .env (2 settings), then backend/.env (1 setting); the environment wins with API_PORT; "
        "POSTGRES_DB from the environment."
    )


@pytest.mark.parametrize(
    ("line", "finding", "cure"),
    [
        ("API_PROT='1'", ".env, line 1: API_PROT is no setting.", "Write API_PORT."),
        ("POSTGRES_PASWORD='1'", ".env, line 1: POSTGRES_PASWORD is no setting.", "Write POSTGRES_PASSWORD."),
        ("postgres_passwd='1'", ".env, line 1: postgres_passwd is no setting.", "Write POSTGRES_PASSWORD."),
        (
            "COMPOSE_PROJECTNAME='1'",
            ".env, line 1: COMPOSE_PROJECTNAME is no setting.",
            "Write COMPOSE_PROJECT_NAME.",
        ),
        (
            "REDIS_URL='1'",
            ".env, line 1: REDIS_URL is no setting.",
            "Remove it; .env.example names every setting.",
        ),
        (
            "hunter2",
            ".env, line 1: what stands there is no setting.",
            "Remove it; .env.example names every setting.",
        ),
        (
            "aGVsbG8=",
            ".env, line 1: what stands there is no setting.",
            "Remove it; .env.example names every setting.",
        ),
        (
            "api_port='1'",
            ".env, line 1: Compose does not read api_port, for it is not in capitals.",
            "Write API_PORT.",
        ),
        (
            "TEST_DATABASE_URL='1'",
            ".env, line 1: TEST_DATABASE_URL is read from the environment alone, so here it says nothing.",
            "Export it in your shell.",
        ),
        (
            "API_PORT='1'\nDB_PORT='2'\nAPI_PORT='3'",
            ".env, line 3: API_PORT stands in line 1 too, which does not count.",
            "Remove one of the two.",
        ),
    ],
)
def test_name_that_nobody_reads_is_found_with_the_near_one(
    line: str, finding: str, cure: str, skeleton: Skeleton
) -> None:
    skeleton.write(".env", f"{line}\n")

    assert ask(skeleton, "settings/names") == [
        {"name": "settings/names", "state": "warning", "finding": finding, "cure": cure}
    ]


@pytest.mark.parametrize(
    "name", ["COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "WORKSPACE_DOCKER_SOCKET", "API_TOKEN"]
)
def test_name_that_somebody_reads_is_not_found(name: str, skeleton: Skeleton) -> None:
    skeleton.write(".env", f"{name}='x'\n")

    assert findings(skeleton, "settings/names", "warning") == []


def test_misspelt_name_in_the_environment_is_found_and_others_names_are_not(skeleton: Skeleton) -> None:
    found = findings(
        skeleton,
        "settings/names",
        "warning",
        DATABSE_URL="x",
        PGPASSWORD="x",
        DB_HOST="x",
        POSTGRES_INITDB_ARGS="x",
    )

    assert found == ["The environment has DATABSE_URL, which nothing reads."]


@pytest.mark.parametrize(
    ("value", "for_what"),
    [
        ("a$b", "`$`"),
        ('"a$b"', "`$`"),
        ("${X}", "`${...}`"),
        ('"${X}"', "`${...}`"),
        (r'"a\$1"', "a backslash"),
        ("a$$", "`$`"),
        (r'"a\0b"', "a backslash"),
        (r"'a\\b'", "two backslashes"),
        ("a\t#b", "`#`"),
        (" #b", "`#`"),
    ],
)
def test_value_that_compose_reads_otherwise_is_found(value: str, for_what: str, skeleton: Skeleton) -> None:
    skeleton.write(".env", f"POSTGRES_PASSWORD={value}\n")

    assert findings(skeleton, "settings/values", "warning") == [
        f".env, line 1: Compose reads another value of POSTGRES_PASSWORD than Python, for {for_what}."
    ]


@pytest.mark.parametrize(
    "value", ["'a$b#c${X}\"d'", r"'it\'s'", "a b", "a#b", "a # b", '"a#b"', "'a' # b", "", '"it\'s"']
)
def test_value_that_both_read_alike_is_not_found(value: str, skeleton: Skeleton) -> None:
    skeleton.write(".env", f"POSTGRES_PASSWORD={value}\n")

    assert findings(skeleton, "settings/values", "warning") == []


def test_carriage_return_alone_is_found(skeleton: Skeleton) -> None:
    skeleton.write(".env", b"API_PORT='1'\r\nPOSTGRES_PASSWORD='a\rb'\r\n")

    assert findings(skeleton, "settings/values", "warning") == [
        ".env, line 2: a carriage return alone, which ends the line to Python and not to Compose."
    ]


def test_name_in_quotes_is_found_for_compose_stops_at_it(skeleton: Skeleton) -> None:
    skeleton.write(".env", "'API_PORT'='8000'\n")

    assert findings(skeleton, "settings/values", "warning") == [
        ".env, line 1: Compose reads another value of API_PORT than Python, for the quotes around the name."
    ]


def test_what_only_python_reads_is_told_where_it_makes_a_difference(skeleton: Skeleton) -> None:
    skeleton.write(
        "backend/.env",
        "DB_PORT='5'\nPOSTGRES_USER='postgres'\nPOSTGRES_DB='mine'\nDATABASE_WAIT_SECONDS='1'\n",
    )
    skeleton.write(".env", "POSTGRES_DB='mine'\n")

    assert findings(skeleton, "settings/values", "warning") == [
        "Compose does not read backend/.env, which has DATABASE_WAIT_SECONDS, DB_PORT."
    ]


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"POSTGRES_PASSWORD='\xe4'\n", ".env cannot be read: it is not UTF-8."),
        (b"A='1'x\n", ".env, line 1, cannot be read, at which every command stops."),
        (b"API_PORT: 8000\n", ".env, line 1, cannot be read, at which every command stops."),
    ],
)
def test_file_that_cannot_be_read_is_wrong(content: bytes, finding: str, skeleton: Skeleton) -> None:
    skeleton.write(".env", content)

    assert findings(skeleton, "settings/files", "wrong") == [finding]


def test_folder_in_the_place_of_the_file_is_wrong(skeleton: Skeleton) -> None:
    """Docker makes one where it is told to mount a file that is not there."""
    (skeleton.root / ".env").mkdir()

    (found,) = [each for each in ask(skeleton, "settings/files") if each["state"] == "wrong"]
    assert found["finding"] == ".env cannot be read: is a directory."
    assert findings(skeleton, "settings/[nv]*", "unknown") == [".env cannot be read."] * 2
    first, second = re.findall("`([^`]+)`", found["cure"])
    subprocess.run(["sh", "-c", f"{first} && {second}"], cwd=skeleton.root, check=True)
    assert findings(skeleton, "settings/files", "wrong") == []


def test_byte_order_mark_and_windows_line_endings_change_no_name(skeleton: Skeleton) -> None:
    skeleton.write(".env", b"\xef\xbb\xbfAPI_PORT='1'\r\nDB_PORT='2'\r\n")

    assert {each["state"] for each in ask(skeleton, "settings/[nv]*")} == {"ok"}
    assert [each.finding for each in files.check_line_endings(skeleton.checkout)] == [
        ".env ends its lines by CRLF: to Compose and Python that is nothing, to a shell it is part of each value."
    ]


def test_without_the_example_names_are_unknown(skeleton: Skeleton, tmp_path: Path) -> None:
    for name in (".env.example", "compose.yaml", ".devcontainer/compose.yaml"):
        (skeleton.root / name).unlink()

    assert {each["state"] for each in ask(skeleton, "settings/[fnv]*")} == {"unknown"}
