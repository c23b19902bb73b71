"""The door, which an old Python can read too: `python3 -m devtools.doctor`, or by its path."""

import os
import sys

# By os.path throughout: pathlib would be imported before `sys.path` is mended, and by an old Python too.
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  pathlib would come too early

# Nothing is written, bytecode included.
sys.dont_write_bytecode = True
if not __package__:  # run by its path, in which modules lie that others are named like
    sys.path[:] = [place for place in sys.path if os.path.abspath(place or ".") != HERE]  # noqa: PTH100  pathlib would come too early
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(HERE))))  # noqa: PTH120  pathlib would come too early

if __name__ == "__main__":
    try:
        if sys.version_info < (3, 11):  # noqa: UP036  an old one runs this line, and is told
            from devtools.doctor.too_old import main
        else:
            from devtools.doctor.checkup import main
        code = main()
    except KeyboardInterrupt:  # while it begins, or prints
        code = 130
    for output in (sys.stdout, sys.stderr):
        if output is not None:
            output.flush()
    # At once: a thread that still asks would meet an interpreter half gone, and may crash it.
    os._exit(code)
