"""Seeds: what servers grow from, and what happens to one that is not what it should be."""

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from freshpg import Server, cache, start_ephemeral
from freshpg.identity import Identity, possible_identities
from freshpg.keeper import archive
from freshpg.seeds import NoInput, digest_of

from .support import data_directory, environment, finished, python, query

IDENTITIES = [pytest.param(identity, id=identity.name) for identity in possible_identities()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of seeds of a user who has none yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = cache.folder()
    assert found is not None
    return found


def only_seed(folder: Path) -> Path:
    (seed,) = folder.iterdir()
    return seed


def cluster(server: Server) -> object:
    """Return what tells a data directory and its copies from all others."""
    return query(server.url, "select system_identifier from pg_control_system()")[0][0]


@pytest.mark.parametrize("identity", IDENTITIES)
def test_a_second_server_grows_from_what_the_first_had_initialised(folder: Path, identity: Identity) -> None:
    with start_ephemeral(identity=identity) as first:
        query(first.url, "create role left_behind")
        made = cluster(first)
    with start_ephemeral(identity=identity) as second:
        assert cluster(second) == made
        assert query(second.url, "select from pg_roles where rolname = 'left_behind'") == []
        assert query(second.url, "show data_checksums") == [("off",)]
        assert query(second.url, "show track_commit_timestamp") == [("on",)]
        assert query(second.url, "show log_line_prefix") == [("%m [%p] %q[%d] ",)]
        assert second.log == str(data_directory(second.url).with_name("log"))
        query(second.url, "create table written as select 1")


def test_servers_of_one_seed_do_not_know_each_others_passwords(folder: Path) -> None:
    with start_ephemeral() as maker, start_ephemeral() as one, start_ephemeral() as other:
        theirs = psycopg.conninfo.conninfo_to_dict(one.url)["password"]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(psycopg.conninfo.make_conninfo(other.url, password=theirs))
        verifiers = {
            str(query(server.url, "select rolpassword from pg_authid where rolcanlogin")[0][0])
            for server in (maker, one, other)
        }

    assert len(verifiers) == 3
    _, contents = archive.read(str(only_seed(folder)))
    kept = archive.VERIFIER.search(bytes(contents))
    assert kept is not None
    assert not [each for each in verifiers if each.encode() in bytes(contents)]
    assert not opens(kept.group().decode(), str(psycopg.conninfo.conninfo_to_dict(maker.url)["password"]))


def opens(verifier: str, password: str) -> bool:
    """Tell whether a server that has this verifier takes this password (RFC 5803)."""
    _, parameters, keys = verifier.split("$")
    iterations, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return base64.b64encode(stored).decode() == keys.split(":")[0]


def test_the_verifier_of_a_server_is_that_of_its_password(folder: Path) -> None:
    with start_ephemeral() as server:
        verifier = query(server.url, "select rolpassword from pg_authid where rolcanlogin")[0][0]

    assert opens(str(verifier), str(psycopg.conninfo.conninfo_to_dict(server.url)["password"]))
    assert not opens(str(verifier), "another")


def test_a_seed_is_its_owners_alone(folder: Path) -> None:
    start_ephemeral().stop()

    assert only_seed(folder).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def cut(seed: Path) -> None:
    os.truncate(seed, seed.stat().st_size - 1)


def empty(seed: Path) -> None:
    os.truncate(seed, 0)


def flip(seed: Path) -> None:
    with seed.open("r+b") as file:
        file.seek(seed.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def flip_in_the_header(seed: Path) -> None:
    with seed.open("r+b") as file:
        file.seek(60)
        file.write(b"\xff")


def open_to_others(seed: Path) -> None:
    seed.chmod(0o666)


def link(seed: Path) -> None:
    seed.rename(seed.with_name("elsewhere"))
    seed.symlink_to(seed.with_name("elsewhere"))


def give_away(seed: Path) -> None:
    os.chown(seed, 12345, 12345)


def damage_data(seed: Path) -> None:
    """Make it whole and of no use: its checksum holds, and the server refuses its control file."""
    data = seed.with_name("grown")
    data.mkdir(mode=0o700)
    verifier = archive.extract(str(seed), str(data), (os.geteuid(), os.getegid()))
    control = data / "global" / "pg_control"
    control.write_bytes(bytes(control.stat().st_size))
    archive.write(str(data), str(seed), verifier)
    shutil.rmtree(data)


def lose_the_password(seed: Path) -> None:
    data = seed.with_name("grown")
    data.mkdir(mode=0o700)
    archive.extract(str(seed), str(data), (os.geteuid(), os.getegid()))
    archive.write(str(data), str(seed), b"SCRAM-SHA-256$1:none")
    shutil.rmtree(data)


DAMAGES = [
    (cut, "its checksum is another"),
    (empty, "it ends early"),
    (flip, "its checksum is another"),
    (flip_in_the_header, "its checksum is another"),
    (open_to_others, "somebody else can write to it"),
    (link, "Too many levels of symbolic links"),
    (damage_data, "the server does not start from it"),
    (lose_the_password, "the superuser's password is not where it should be"),
]
if os.geteuid() == 0:
    DAMAGES.append((give_away, "somebody else can write to it"))


@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=[each.__name__ for each, _ in DAMAGES])
def test_a_seed_that_is_not_what_was_written_is_told_in_one_line_and_made_anew(
    folder: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], None], reason: str
) -> None:
    with start_ephemeral() as server:
        before = cluster(server)
    seed = only_seed(folder)
    damage(seed)

    with start_ephemeral() as server:
        after = cluster(server)
        assert query(server.url, "select 1") == [(1,)]

    assert capfd.readouterr().err == f"The cached {seed} is of no use and is removed: {reason}.\n"
    assert after != before
    with start_ephemeral() as server:
        assert cluster(server) == after
    assert capfd.readouterr().err == ""


def no_folder(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("in its place", encoding="utf-8")


def no_home(folder: Path) -> None:
    folder.parent.write_text("in its place", encoding="utf-8")


def open_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def linked_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(parents=True, mode=0o700)
    folder.symlink_to("elsewhere")


def foreign_home(folder: Path) -> None:
    folder.parent.mkdir()
    os.chown(folder.parent, 12345, 12345)


OBSTACLES = [no_folder, no_home, open_folder, linked_folder, *([foreign_home] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_without_a_folder_of_the_users_own_servers_start_and_nothing_is_kept(
    folder: Path, capfd: pytest.CaptureFixture[str], obstacle: Callable[[Path], None]
) -> None:
    obstacle(folder)

    with start_ephemeral() as one, start_ephemeral() as other:
        assert cluster(one) != cluster(other)

    assert capfd.readouterr().err == ""
    assert not list(folder.parent.rglob("*.seed")) if folder.parent.is_dir() else True


def test_a_folder_that_takes_no_file_is_no_hindrance(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As on a full disk: a directory where the seed is to go lets it be written, and not be there."""
    start_ephemeral().stop()
    seed = only_seed(folder)
    seed.unlink()
    (seed / "in its place").mkdir(parents=True)

    with start_ephemeral() as one, start_ephemeral() as other:
        assert cluster(one) != cluster(other)

    assert list(folder.iterdir()) == [seed]


def test_servers_that_start_at_the_same_moment_make_one_seed(folder: Path) -> None:
    script = "from freshpg import start_ephemeral as start\nwith start(): pass\n"
    variables = environment(HOME=str(folder.parent.parent), XDG_CACHE_HOME=str(folder.parent))
    started = [subprocess.Popen(python("-c", script), env=variables) for _ in range(3)]

    assert [each.wait(60) for each in started] == [0, 0, 0]
    archive.read(str(only_seed(folder)))


def test_what_nobody_uses_is_removed(folder: Path) -> None:
    folder.mkdir(parents=True)
    now = time.time()

    def touch(name: str, *, days: float) -> str:
        (folder / name).touch()
        os.utime(folder / name, (now - days * 86400,) * 2)
        return name

    kept = [touch(f"bare-{number}.seed", days=number) for number in range(cache.KEPT_OF_A_KIND)]
    touch("bare-one_too_many.seed", days=cache.KEPT_OF_A_KIND)
    kept.append(touch("template-of_another_kind.seed", days=13.9))
    touch("template-long_unused.seed", days=14.1)
    touch("bare-x.seed.12345678.making", days=1)
    kept.append(touch("bare-y.seed.12345678.making", days=0))
    kept.append(touch("something else", days=100))

    cache.prune()

    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


def test_a_seed_that_is_used_counts_as_used(folder: Path) -> None:
    start_ephemeral().stop()
    os.utime(only_seed(folder), (0, 0))

    start_ephemeral().stop()

    assert time.time() - only_seed(folder).stat().st_mtime < 60


def test_the_command_shows_the_cache_and_clears_it(folder: Path) -> None:
    start_ephemeral().stop()
    seed = only_seed(folder)
    home, caches = str(folder.parent.parent), str(folder.parent)
    command = python("-m", "freshpg", "cache")

    shown = finished(command, HOME=home, XDG_CACHE_HOME=caches)
    assert shown.returncode == 0, shown.stderr
    assert f"{folder}: 1 data directories\n  {seed.name}  " in shown.stdout
    assert "No images: Docker does not answer at" in shown.stdout
    assert seed.exists()

    cleared = finished([*command, "--clear"], HOME=home, XDG_CACHE_HOME=caches)
    assert cleared.returncode == 0, cleared.stderr
    assert list(folder.iterdir()) == []


def test_a_digest_follows_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "models" / "__pycache__").mkdir(parents=True)
    (tmp_path / "models" / "one.py").write_text("1", encoding="utf-8")
    (tmp_path / "schema.sql").write_text("create", encoding="utf-8")
    patterns = ["models", "*.sql"]
    first = digest_of(tmp_path, patterns)

    (tmp_path / "models" / "__pycache__" / "one.pyc").write_text("x", encoding="utf-8")
    (tmp_path / "unrelated").write_text("x", encoding="utf-8")
    os.utime(tmp_path / "schema.sql", (0, 0))
    assert digest_of(tmp_path, patterns) == first
    assert digest_of(tmp_path, reversed(patterns)) == first

    (tmp_path / "models" / "one.py").rename(tmp_path / "models" / "two.py")
    renamed = digest_of(tmp_path, patterns)
    (tmp_path / "schema.sql").write_text("drop", encoding="utf-8")
    changed = digest_of(tmp_path, patterns)
    assert len({first, renamed, changed}) == 3
    assert digest_of(tmp_path, []) is None
    with pytest.raises(NoInput, match=r"^modles names no file below "):
        digest_of(tmp_path, [*patterns, "modles"])


def test_a_server_lies_in_a_directory_that_its_account_cannot_change() -> None:
    """Another process of the account could put a link in the place of the log, or of the password's file."""
    for identity in possible_identities():
        with start_ephemeral(identity=identity) as server:
            directory = data_directory(server.url).parent
            assert directory.stat().st_uid == os.geteuid()
            assert directory.stat().st_mode & 0o022 == 0
            assert (directory / "log").stat().st_uid == os.geteuid()
