"""Plots of the result tables as SVG; needs matplotlib (``pip install aspert[plots]``)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.comparison import Table
from benchmarks.report import plot_name, score_title

# Told apart with colour-vision deficiencies and in grey.
COLOURS = ("#0b6e99", "#c8641e", "#5b4fb5", "#3d7a3a")
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    # equal data give an equal file
    "svg.hashsalt": "aspert",
    "svg.fonttype": "none",
}


def figure(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    """A matplotlib figure of one row in the house style, and its axes.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        raise ImportError("plots need matplotlib: run `pip install matplotlib`, or leave them out") from None
    matplotlib.rcParams.update(_STYLE)
    from matplotlib.figure import Figure

    # no pyplot: nothing global, no display
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, list(drawn.subplots(1, columns, squeeze=False)[0])


def save(drawn: Any, path: Path) -> None:
    """Write a figure without the date, so that equal data give an equal file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_tables(tables: Iterable[Table], folder: Path) -> list[Path]:
    """A plot a table of the corpus's headline, or of what the table shows of it: each run a dot, the mean a bar with its
    standard deviation; the paper's figure a cross."""
    paths = []
    for table in tables:
        shown = list(dict.fromkeys(row.score for row in table.rows))
        scores = [score for score in table.corpus.headline if score in shown] or shown[-2:]
        drawn, axes = figure(1.2 + 3.4 * len(scores), 2.9, len(scores))
        for axis, score, colour in zip(axes, scores, COLOURS):
            rows = [row for row in table.rows if row.score == score]
            for position, row in enumerate(rows):
                values = table.values[row.label, score]
                axis.plot([position] * len(values), values, ".", color=colour, alpha=0.5)
                axis.errorbar(position, row.mean, row.std or 0.0, fmt="_", color=colour, markersize=18, capsize=3)
                if row.paper is not None:
                    axis.plot(position, row.paper, "x", color="#555555")
            axis.set_xticks(range(len(rows)), [row.label for row in rows], rotation=20 if len(rows) > 3 else 0)
            if table.experiment.swept:
                axis.set_xlabel(table.experiment.swept)
            axis.set_title(score_title(score))
        drawn.suptitle(f"{table.corpus.title}, {table.regime['encoder']}", fontsize=9)
        path = folder / plot_name(table)
        save(drawn, path)
        paths.append(path)
    return paths
