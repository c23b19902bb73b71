"""Draw the figures: `plot.py FILE`, with the benchmark's JSON on standard input, in the environment with matplotlib.

One panel for isolation, on a logarithmic scale, for between the least and the most lie three powers of ten; one for
boots, on a linear one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]  # only where the benchmark runs it

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator  # type: ignore[import-not-found]

OURS, PEER, INK, PALE = "#0f766e", "#b6bcc6", "#1f2937", "#6b7280"
LEAST_MS = 0.01
"""Where the logarithmic scale begins; what is less, or cannot be told from nothing, is drawn as this."""
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#d1d5db",
    "axes.labelcolor": PALE,
    "xtick.color": PALE,
    "ytick.color": INK,
    "svg.hashsalt": "isolation",  # the same figures are the same file
    "svg.fonttype": "path",
}
_BAR = 0.62

Bar = tuple[str, float, bool]
"""A name, a value, and whether it is ours."""


def main(path: Path, written: dict[str, Any]) -> None:
    """Draw what was written, in the format that the file's name says."""
    suites = [suite for suite in written["suites"] if suite["isolation_mean"] is not None]
    kinds = (("embedded PostgreSQL", False), ("PostgreSQL in Docker", True))
    groups = [
        (
            kind,
            [
                (suite["name"], suite["isolation_mean"], suite["ours"])
                for suite in suites
                if suite["docker"] is docker
            ],
        )
        for kind, docker in kinds
    ]
    boots = [(boot["name"], boot["median"], boot["name"].startswith("ours")) for boot in written["boots"]]
    rows = sum(len(bars) + 1 for _, bars in groups if bars)
    with plt.rc_context(_STYLE):
        height = 2.3 + 0.31 * (rows + len(boots))
        figure, (upper, lower) = plt.subplots(
            2,
            1,
            figsize=(9.2, height),
            gridspec_kw={"height_ratios": [rows + 0.5, len(boots) + 1], "hspace": 0.5},
        )
        panel(upper, groups, _milliseconds, logarithmic=True)
        heading(
            upper,
            "What keeping tests apart adds to a test",
            f"mean milliseconds over the same test without isolation; {written['tests']} tests, a row in each of six "
            "tables and a commit; logarithmic",
        )
        panel(lower, [("", boots)], _seconds, logarithmic=False)
        heading(lower, "From nothing to the answer to a first query", "seconds; caches warm, imports apart")
        figure.text(0.012, 0.012, footer(written), fontsize=7.2, color=PALE, linespacing=1.5)
        figure.subplots_adjust(left=0.285, right=0.945, top=1 - 0.68 / height, bottom=0.78 / height)
        figure.savefig(
            path, dpi=160, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None
        )


def footer(written: dict[str, Any]) -> str:
    versions = written["versions"]
    peers = ", ".join(f"{name} {versions[name]}" for name in versions if name not in ("psycopg", "pytest"))
    runs = "1 run" if written["runs"] == 1 else f"medians of {written['runs']} runs in turns"
    return (
        f"PostgreSQL {written['postgres']}, durability off; {runs}. {written['machine']}.\n"
        f"Python {written['python']}, {peers}. nox -s bench -- isolation"
    )


def panel(axes: Any, groups: list[tuple[str, list[Bar]]], label: Any, *, logarithmic: bool) -> None:  # noqa: ANN401  matplotlib's
    """Draw groups of bars that grow from the left, the least of each on top, each with its value at its end."""
    least = LEAST_MS if logarithmic else 0.0
    place = 0
    places: list[int] = []
    drawn: list[Bar] = []
    for name, bars in groups:
        if name and bars:
            _group_name(axes, name, place)
            place += 1
        for bar in sorted(bars, key=lambda each: each[1]):
            _bar(axes, bar, place, least, label)
            places.append(place)
            drawn.append(bar)
            place += 1
    axes.set_yticks(places, [name for name, _, _ in drawn])
    for tick, (_, _, ours) in zip(axes.get_yticklabels(), drawn, strict=True):
        tick.set_fontweight("bold" if ours else "normal")
        tick.set_color(OURS if ours else INK)
    axes.set_ylim(place - 0.4, -0.6)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(least, max((value for _, value, _ in drawn), default=1) * (2.6 if logarithmic else 1.12))
    axes.grid(axis="x", color="#eceff3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _bar(axes: Any, bar: Bar, place: int, least: float, label: Any) -> None:  # noqa: ANN401  matplotlib's
    _, value, ours = bar
    end = max(value, least * 1.15)
    axes.barh(place, end - least, left=least, height=_BAR, color=OURS if ours else PEER, linewidth=0)
    axes.annotate(
        label(value),
        (end, place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        fontweight="bold" if ours else "normal",
    )


def _group_name(axes: Any, name: str, place: int) -> None:  # noqa: ANN401  matplotlib's
    axes.annotate(
        name,
        (0, place),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=8.2,
        fontstyle="italic",
        color=PALE,
    )


def heading(axes: Any, title: str, what: str) -> None:  # noqa: ANN401  matplotlib's
    """Put a title and, below it, the unit at the figure's left edge."""
    for text, above, size, weight, colour in ((title, 21, 12, "bold", INK), (what, 8, 8.2, "normal", PALE)):
        axes.annotate(
            text,
            (0, 1),
            xycoords=("figure fraction", "axes fraction"),
            xytext=(9, above),
            textcoords="offset points",
            fontsize=size,
            fontweight=weight,
            color=colour,
        )


def _milliseconds(value: float) -> str:
    if value < LEAST_MS:
        return f"< {LEAST_MS:g} ms"
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"  # noqa: PLR2004 (three digits say enough)


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
