"""Plots of the result tables as SVG; needs matplotlib (in a clone: ``pip install '.[tables]'``)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.comparison import Table
from benchmarks.report import is_drawn, plot_name, score_title

# Told apart with colour-vision deficiencies and in grey.
COLOURS = ("#0b6e99", "#c8641e")
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "svg.hashsalt": "aspert",
    "svg.fonttype": "none",
}


def draw_tables(tables: Iterable[Table], folder: Path) -> list[Path]:
    """A plot a table of the corpus's headline, or of what the table shows of it: a line a model, each run a dot, the mean a
    bar with its standard deviation. Tables of too few runs have none. Equal data give equal files.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise ImportError("plots need matplotlib: run `pip install matplotlib`, or leave them out") from None
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        return [_draw_table(table, folder) for table in tables if is_drawn(table)]


def _draw_table(table: Table, folder: Path) -> Path:
    # no pyplot: no window, no display
    from matplotlib.figure import Figure

    shown = list(dict.fromkeys(row.score for row in table.rows))
    scores = [score for score in table.corpus.headline if score in shown] or shown[-2:]
    labels = list(dict.fromkeys(row.label for row in table.rows))
    size = (1.2 + 3.4 * len(scores), 0.9 + 0.34 * len(labels))
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(1, len(scores), squeeze=False)[0]
    for number, (axis, score, colour) in enumerate(zip(axes, scores, COLOURS)):
        for row in (row for row in table.rows if row.score == score):
            place = labels.index(row.label)
            values = table.values[row.label, score]
            axis.plot(values, [place] * len(values), ".", color=colour, alpha=0.5)
            axis.errorbar(row.mean, place, xerr=row.std or 0.0, fmt="|", color=colour, markersize=14, capsize=3)
        axis.set_yticks(range(len(labels)), labels if number == 0 else [""] * len(labels), parse_math=False)
        axis.set_ylim(len(labels) - 0.5, -0.5)  # as in the table, the first on top
        if table.experiment.swept and number == 0:
            axis.set_ylabel(table.experiment.swept)
        axis.set_title(score_title(score))
    drawn.suptitle(f"{table.corpus.title}, {table.regime['encoder']}", fontsize=9)
    path = folder / plot_name(table)
    drawn.savefig(path, metadata={"Date": None})
    return path
