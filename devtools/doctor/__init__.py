"""What is well here and what is not, each with its cure: `nox -s doctor`, or `python3 devtools/doctor`.

It works where everything else is broken: the standard library is all that it needs, and no environment. What takes the
project's packages (the database, and how the tests reach their containers) is asked of an environment that has them, in
a process of its own. Whatever is asked has a time limit, and what cannot be told is said to be unknown.

It changes nothing: no file is written (but for bytecode of this package, by a Python that was not told `-B`) and no
server is left running. No value that could be secret is shown, or passed where a list of processes would show it.

    finding.py       what was found: a name, a state, a sentence, a cure
    command.py       other programs, within a time limit
    probes.py        all questions at once, each within its time
    checkout.py      the checkout and the environment variables that are looked at
    env_file.py      `.env` as Python reads it, and where Compose reads another thing
    settings.py      the findings on that
    engine.py        Docker: its command, its engine, Compose, its clock
    project.py       what Compose has of this checkout: services, the volume, the password that it knows
    ports.py         who holds a port
    files.py         line endings; room on disks
    data.py          the data directories of embedded servers
    clock.py         another clock beside this machine's
    python.py        this Python, and the project's environment beside the lock
    installed.py     run by an environment's own Python: what it has of the lock
    inside.py        run in that environment: the settings, the database
    containers.py    run in that environment: the tests' way to containers, and their reaper
    report.py        the page
    checkup.py       the whole of it, and the command
    too_old.py       what is said by a Python that cannot read the rest
"""
