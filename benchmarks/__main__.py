"""Measure what is promised: `nox -s bench -- NAME`. Machines differ, so what counts is a ratio within one run."""

import argparse
from importlib import import_module
from inspect import signature
from pathlib import Path

BENCHMARKS = {
    "isolation": "what keeping tests apart costs beside its peers, and how soon a server answers (best with Docker)",
    "utc": "what instants cost beside plain timestamps: reads, writes, checkouts and JSON",
    "environment": "Compose, a saved file, a second start without Docker, the dev container (needs Docker, npm)",
}


def main() -> None:
    listing = "\n".join(f"  {name:14}{meaning}" for name, meaning in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="nox -s bench --",
        description=f"{__doc__}\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="which one; all of them by default")
    parser.add_argument("--runs", type=int, default=5, help="how often each is done (%(default)s)")
    alone = parser.add_argument_group("of isolation alone")
    alone.add_argument("--tests", type=int, default=200, help="so many tests a suite (%(default)s)")
    alone.add_argument("--json", type=Path, dest="json_file", metavar="FILE", help="write the figures there")
    alone.add_argument("--plot", type=Path, metavar="FILE", help="draw them, as .svg or .png")
    options = parser.parse_args()
    for name in [options.name] if options.name else BENCHMARKS:
        benchmark = import_module(f"benchmarks.{name}").main
        wanted = signature(benchmark).parameters
        benchmark(**{option: value for option, value in vars(options).items() if option in wanted})


if __name__ == "__main__":
    main()
