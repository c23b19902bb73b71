"""Commands that are stopped, by SIGKILL or as by Ctrl-C, at a certain point."""

import signal
import sys
from pathlib import Path

_STOPPED = """
import importlib, os, sys
from pathlib import Path
from devtools.backup import archive
from devtools.backup.talk import enter
directory, module, where, when, number, *arguments = sys.argv[1:]
archive.DIRECTORY = Path(directory)
path, name = where.rsplit(".", 1)
place, _, kind = path.partition(":")
place = importlib.import_module("devtools.backup." + place)
place = getattr(place, kind) if kind else place
function, calls = getattr(place, name), []
def stop(*arguments, **options):
    calls.append(arguments)
    if when == str(len(calls)):
        os.kill(os.getpid(), int(number))
    result = function(*arguments, **options)
    if when == "after":
        os.kill(os.getpid(), int(number))
    return result
setattr(place, name, stop)
enter(lambda: importlib.import_module("devtools.backup." + module).main(arguments))
"""


def stopped(directory: Path, module: str, where: str, when: str, number: signal.Signals) -> list[str]:
    """Return a command that runs a module of `backup` and stops itself: at the nth call of a function, or after it.

    Its backups lie in that directory.
    """
    return [sys.executable, "-c", _STOPPED, str(directory), module, where, when, str(int(number))]
