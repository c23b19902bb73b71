"""Measure speed: `nox -s bench -- NAME`. Machines differ, so compare only the ratios within one run."""

import argparse
from importlib import import_module

from devtools.command_line import enter

BENCHMARKS = {
    "isolation": "what it costs to keep tests apart, compared with other libraries (best with Docker)",
    "utc": "what UTC timestamps cost compared with plain ones: reads, writes, checkouts and JSON",
    "api": "requests per second at 16, 100 and 500 clients, and compared with ten lines of FastAPI",
}


def main() -> None:
    listing = "\n".join(f"  {name:14}{meaning}" for name, meaning in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="nox -s bench --",
        description=f"{__doc__}\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="which one; all of them by default")
    options = parser.parse_args()
    for name in [options.name] if options.name else BENCHMARKS:
        import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    enter(main)
