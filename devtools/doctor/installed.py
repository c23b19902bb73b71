"""Run by an environment's own Python, by path: print as JSON what it lacks of a lock, and has in another version."""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:[ \t]*;[ \t]*([^\\\n]+))?", re.MULTILINE)


def main(lock: str) -> None:
    locked = [
        (name, wanted) for name, wanted, marker in _LOCKED.findall(Path(lock).read_text(encoding="utf-8"))
        if is_for_here(marker.strip())
    ]  # fmt: skip
    found = [(name, installed(name), wanted) for name, wanted in locked]
    print(
        json.dumps(
            {
                "count": len(locked),
                "missing": [name for name, have, _ in found if have is None],
                "other": [each for each in found if each[1] is not None and each[1] != each[2]],
            }
        )
    )


def is_for_here(marker: str) -> bool:
    if not marker:
        return True
    try:
        from packaging.markers import Marker  # noqa: PLC0415  the lock has it, and this environment may not
    except ImportError:
        # What is for some machines only is not missed.
        return False
    return Marker(marker).evaluate()


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(sys.argv[1])
