"""Runs of pytest inside a test: a project of a few lines, and what its run says."""

import re
import subprocess
import textwrap
from pathlib import Path

from .support import finished, python

CONFTEST = """
import time
import pytest, psycopg
from freshpg.ledger import Use, ledger_of

def connect(url, **options):
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, **options)

def run(url, *statements):
    with connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

def until(condition):
    while not condition():
        # What is waited for needs the processor too.
        time.sleep(0.01)

def until_lost(connection):
    with pytest.raises(psycopg.OperationalError):
        until(lambda: connection.execute("select 1") is None)

@pytest.fixture(scope="session")
def postgres_prepare():
    return lambda url: run(url, "create table things (id int generated always as identity)")

@pytest.fixture
def use(request):
    '''Return the ledger's entry of this test.'''
    return ledger_of(request.config).of(request.node.nodeid)[-1]

@pytest.fixture
def light(request, postgres_server):
    '''Use the server as the tests of the cheapest tier do, which are too many to be looked at one by one.'''
    ledger_of(request.config).uses.append(Use(request.node.nodeid, "session", "postgres", ""))
    return postgres_server.url
"""
IMPORTS = """
import os, pathlib, signal, threading, time
import psycopg, pytest
from conftest import connect, run, until, until_lost
"""

WORKERS = ("-p", "xdist", "-n", "2")
ALONE_OR_NOT = [(), WORKERS]


def make_project(place: Path, suite: str) -> Path:
    (place / "pytest.ini").write_text(
        "[pytest]\naddopts = -p freshpg.plugin -p no:cacheprovider\nfilterwarnings = error\n",
        encoding="utf-8",
    )
    (place / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (place / "test_it.py").write_text(IMPORTS + textwrap.dedent(suite), encoding="utf-8")
    return place


def run_inside(
    place: Path, suite: str, *arguments: str, postgres: str = "embedded", prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run pytest on a suite that may use the imports above: `connect(url)`, `run(url, *statements)`."""
    make_project(place, suite)
    command = [*prefix, *python("-m", "pytest", "--postgres", postgres, *arguments)]
    # Other plugins double the time that an inner run takes.
    return finished(command, cwd=place, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


def section_of(output: str, test: str) -> str:
    """Return what a failed test's report says of its database."""
    report = re.search(
        rf"^_+ (?:ERROR at \w+ of )?{re.escape(test)} _+$(.*?)(?=^[=_]{{3,}} |\Z)",
        output,
        re.MULTILINE | re.DOTALL,
    )
    assert report is not None, output
    _, found, section = report[1].partition(" PostgreSQL ---")
    assert found, report[1]
    return section.partition("\n")[2]
