"""What `.env` says, which of it counts, and what of it nobody or not everybody reads."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devtools.doctor.env_file import Line, parse, stray_returns, with_plain_newlines
from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from devtools.doctor.checkout import Checkout

FILES = (".env", "backend/.env")
"""From the one that wins."""
FROM_ENVIRONMENT_ALONE = ("TEST_DATABASE_URL", "POSTGRES_PULL_SECONDS")
_OTHERS_FROM_ENVIRONMENT_ALONE = re.compile(
    "(TESTCONTAINERS_|TC_|RYUK_|NOX_|PYTEST_|DOCKER_|UV_|PG|WATCHFILES_)[A-Z][A-Z_]*"
)
COMPOSES_OWN = frozenset(
    f"COMPOSE_{name}"
    for name in (
        *("ANSI", "BAKE", "CONVERT_WINDOWS_PATHS", "DISABLE_ENV_FILE", "ENV_FILES", "EXPERIMENTAL"),
        *("FILE", "HTTP_TIMEOUT", "IGNORE_ORPHANS", "MENU", "PARALLEL_LIMIT", "PATH_SEPARATOR"),
        *("PROFILES", "PROGRESS", "PROJECT_NAME", "REMOVE_ORPHANS", "STATUS_STDOUT"),
    )
)
# Near enough to be a slip in a file whose every line is meant for us; the environment holds what is others'.
_NEAR, _VERY_NEAR = 0.7, 0.88
NAMES = ("settings/files", "settings/names", "settings/values")


@dataclass(frozen=True)
class EnvFile:
    """A file of settings, as it was read; `lines` is empty where it was not."""

    name: str
    lines: Sequence[Line] = ()
    refusal: str = ""
    """Why it cannot be read."""
    returns: Sequence[int] = ()
    """The lines that end in a carriage return alone."""

    @property
    def values(self) -> dict[str, Line]:
        """The last line of each name, in capitals, as the settings take it."""
        return {line.name.upper(): line for line in self.lines if line.name is not None}


@dataclass(frozen=True)
class Settings:
    """The settings as the environment and the files give them, unchecked."""

    files: Sequence[EnvFile]
    environment: dict[str, str]

    def python(self, name: str) -> str:
        """Return what the commands read; an empty string where it is absent."""
        if name in self.environment:
            return self.environment[name]
        lines = [file.values[name] for file in self.files if name in file.values]
        return (lines[0].value or "") if lines else ""

    def compose(self, name: str) -> str:
        """Return what Compose reads, which is not the second file."""
        if name in self.environment:
            return self.environment[name]
        lines = {line.name: line.value for file in self.files[:1] for line in file.lines}
        return lines.get(name) or ""


def read(checkout: Checkout) -> Settings:
    files = [read_file(checkout.root / name, name) for name in FILES]
    return Settings([file for file in files if file is not None], dict(checkout.environment))


def read_file(path: Path, name: str) -> EnvFile | None:
    try:
        text = path.read_bytes().decode("utf-8")
        return EnvFile(name, tuple(parse(with_plain_newlines(text))), returns=tuple(stray_returns(text)))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return EnvFile(name, refusal="it is not UTF-8")
    except OSError as error:
        return EnvFile(name, refusal=(error.strerror or type(error).__name__).lower())


def known_names(checkout: Checkout) -> frozenset[str]:
    """Return every setting, as `.env.example` names them and Compose's files use them."""
    used = checkout.compose_text + checkout.text(".devcontainer/compose.yaml")
    named = re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", checkout.text(".env.example"), re.MULTILINE)
    return frozenset(named) | frozenset(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", used))


def check(checkout: Checkout) -> list[Finding]:
    settings, known = read(checkout), known_names(checkout)
    if not known:
        cure = "Check them out again: `git checkout -- .env.example compose.yaml`."
        return [unknown(name, ".env.example and compose.yaml are not there.", cure) for name in NAMES]
    found = [*_files(settings, known)]
    for file in settings.files:
        found += _names(file, known)
    found += _environment_names(settings, known)
    found += _readings(settings, known, checkout)
    unread = " and ".join(file.name for file in settings.files if file.refusal)
    well = (
        ok("settings/names", "Every name is one that is read."),
        ok("settings/values", "Compose and Python read them alike."),
    )
    told = {finding.name for finding in found}
    return found + [
        unknown(each.name, f"{unread} cannot be read.") if unread else each
        for each in well
        if each.name not in told
    ]


def _files(settings: Settings, known: frozenset[str]) -> Iterator[Finding]:
    for file in settings.files:
        if file.refusal:
            yield wrong(
                "settings/files",
                f"{file.name} cannot be read: {file.refusal}.",
                f"Make it a file of yours in UTF-8, or begin anew: `mv {file.name} {file.name}.old`, then "
                f"`cp .env.example {file.name}`.",
            )
        for line in file.lines:
            if line.name is None:
                yield wrong(
                    "settings/files",
                    f"{file.name}, line {line.number}, cannot be read, at which every command stops.",
                    "Write NAME='value', and \\' for a single quote.",
                )
    read = [file for file in settings.files if not file.refusal]
    counts = [f"{file.name} ({_count(len(file.values), 'setting')})" for file in read]
    over = sorted(name for name in known if name in settings.environment and _in(name, read))
    wins = f"; the environment wins with {', '.join(over)}" if over else ""
    ours = sorted(name for name in known if settings.environment.get(name) and name not in over)
    also = f"; {', '.join(ours)} from the environment" if ours else ""
    if counts:
        yield ok("settings/files", f"Read from {', then '.join(counts)}{wins}{also}.")
    elif not settings.files:
        yield ok("settings/files", f"No .env, and none is needed: the defaults hold{also}.")


def _in(name: str, files: Iterable[EnvFile]) -> bool:
    return any(name in file.values for file in files)


def _names(file: EnvFile, known: frozenset[str]) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for line in file.lines:
        if line.name is None:
            continue
        name, place = line.name.upper(), f"{file.name}, line {line.number}"
        if name in seen:
            yield warning(
                "settings/names",
                f"{place}: {name} stands in line {seen[name]} too, which does not count.",
                "Remove one of the two.",
            )
        seen[name] = line.number
        yield from _name(line.name, place, known)


def _name(name: str, place: str, known: frozenset[str]) -> Iterator[Finding]:
    if name in FROM_ENVIRONMENT_ALONE or _OTHERS_FROM_ENVIRONMENT_ALONE.fullmatch(name):
        yield warning(
            "settings/names",
            f"{place}: {name} is read from the environment alone, so here it says nothing.",
            "Export it in your shell.",
        )
    elif name in known or name in COMPOSES_OWN:
        return
    elif name.upper() in known:
        yield warning(
            "settings/names",
            f"{place}: Compose does not read {name}, for it is not in capitals.",
            f"Write {name.upper()}.",
        )
    else:
        near = difflib.get_close_matches(name.upper(), known | COMPOSES_OWN, 1, _NEAR)
        # What is no name of a setting's form may be a piece of a value that broke over two lines, and is not shown.
        is_name = bool(near) or re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", name)
        what = f"{name} is no setting" if is_name else "what stands there is no setting"
        cure = f"Write {near[0]}." if near else "Remove it; .env.example names every setting."
        yield warning("settings/names", f"{place}: {what}.", cure)


def _environment_names(settings: Settings, known: frozenset[str]) -> Iterator[Finding]:
    read = known | COMPOSES_OWN | set(FROM_ENVIRONMENT_ALONE)
    for name in settings.environment:
        near = difflib.get_close_matches(name, known, 1, _VERY_NEAR) if name not in read else []
        if near and not _OTHERS_FROM_ENVIRONMENT_ALONE.fullmatch(name):
            yield warning(
                "settings/names",
                f"The environment has {name}, which nothing reads.",
                f"If {near[0]} is meant, write that.",
            )


def _readings(settings: Settings, known: frozenset[str], checkout: Checkout) -> Iterator[Finding]:
    for file in settings.files:
        for line in file.lines:
            # The second file is Python's alone.
            if line.difference and file.name == FILES[0]:
                name = f" of {line.name.upper()}" if line.name and line.name.upper() in known else ""
                yield warning(
                    "settings/values",
                    f"{file.name}, line {line.number}: Compose reads another value{name} than Python, for "
                    f"{line.difference}.",
                    "Write NAME='value' in single quotes, \\' for a single quote, and no other backslash.",
                )
        for number in file.returns:
            yield warning(
                "settings/values",
                f"{file.name}, line {number}: a carriage return alone, which ends the line to Python and "
                "not to Compose.",
                "Have your editor save the file with LF.",
            )
    second = {name for file in settings.files if file.name == FILES[1] for name in file.values}
    hidden = sorted(
        name
        for name, default in checkout.defaults.items()
        if name in second and (settings.python(name) or default) != (settings.compose(name) or default)
    )
    if hidden:
        yield warning(
            "settings/values",
            f"Compose does not read {FILES[1]}, which has {', '.join(hidden)}.",
            f"Move what Compose is to know to {FILES[0]}.",
        )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
