"""Measure what is promised: `nox -s bench -- NAME`. Machines differ, so what counts is a ratio within one run."""

import argparse
from importlib import import_module

BENCHMARKS = {
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
    options = parser.parse_args()
    for name in [options.name] if options.name else BENCHMARKS:
        import_module(f"backend.benchmarks.{name}").main(options.runs)


if __name__ == "__main__":
    main()
