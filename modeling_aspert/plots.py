"""Training curves and scores per type as PNG files; needs matplotlib (``pip install aspert[plots]``)."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .files import atomic_path
from .scoring import VIEWS

logger = logging.getLogger(__name__)

# Told apart with colour-vision deficiencies, and at least 3:1 against white; series also differ in line and marker.
_COLOURS = ("#009aaa", "#cc761c", "#6961d8", "#d8087a", "#0a4d40", "#817840", "#442277", "#513501")
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


def training_entries(log_history: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries of ``trainer.state.log_history`` from within the training. An evaluation after its end counts for the
    last epoch there, whichever epoch's model it is of."""
    within = itertools.takewhile(lambda entry: "train_runtime" not in entry, log_history)
    return [entry for entry in within if "epoch" in entry]


def epoch_of(log_history: Iterable[Mapping[str, Any]], step: int | None) -> float | None:
    """The epoch, in two decimals, at a step of the training; None where the log has no entry of it."""
    epochs = (entry["epoch"] for entry in training_entries(log_history) if entry.get("step", -1) == step)
    return next((round(epoch, 2) for epoch in epochs), None)


def plot_training_curves(
    log_history: Sequence[Mapping[str, Any]], path: str | os.PathLike, best_step: int | None = None
) -> Path:
    """Draws the training loss and the development scores of a run over its epochs.

    Args:
        log_history: ``trainer.state.log_history``; entries with ``loss`` give the loss curve, other entries whose keys
            end in ``loss`` a curve each, and ``eval_{view}_{micro,macro}_f1`` the scores, in percent.
        path: the PNG to write; folders above it are made.
        best_step: the step whose model was kept, for a line at its epoch.

    Raises:
        ImportError: where matplotlib is missing.
        ValueError: where the history holds neither a loss nor a score.
    """
    entries = training_entries(log_history)
    best_epoch = epoch_of(log_history, best_step)
    losses = {key for entry in entries for key in entry if key.endswith("loss") and key != "train_loss"}
    losses = {key: key.replace("_", " ") for key in sorted(losses, key=lambda key: (key != "loss", key))}
    averages = [(view, average) for view in VIEWS for average in ("micro", "macro")]
    scores = {f"eval_{view}_{average}_f1": f"{VIEWS[view]} {average}" for view, average in averages}
    scores = {key: name for key, name in scores.items() if any(key in entry for entry in entries)}
    panels = [("Loss", losses), ("F1 on the development data (%)", scores)]
    panels = [(title, series) for title, series in panels if series]
    if not panels:
        raise ValueError("The log history has no entry with an epoch and a loss or an eval F1; train first.")
    with _drawing(path, len(panels), 3.4) as (_, axes):
        for axis, (title, series) in zip(axes, panels):
            for number, (key, name) in enumerate(series.items()):
                points = [(entry["epoch"], entry[key]) for entry in entries if key in entry]
                colour, dashed = (number, False) if title == "Loss" else divmod(number, 2)
                axis.plot(
                    *zip(*points),
                    label=name,
                    color=_COLOURS[colour % len(_COLOURS)],
                    linestyle="--" if dashed else "-",
                    marker="o" if len(points) <= 40 else None,
                    markersize=3.5,
                    linewidth=1.6,
                )
            if best_epoch is not None:
                label = f"epoch {best_epoch:g}, the model's"
                axis.axvline(best_epoch, label=label, color="#59616c", linestyle=":", linewidth=1.2)
            axis.set_title(title)
            axis.set_xlabel("epoch")
            axis.set_xlim(left=0)
            axis.set_ylim(bottom=0)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(fontsize=9)
    return Path(path)


def plot_per_type(scores: Mapping[str, Any], path: str | os.PathLike) -> Path:
    """Draws precision, recall and F1 of every type as bars, from the result of ``compute_scores``; a panel a view.

    Raises:
        ImportError: where matplotlib is missing.
        ValueError: where there is no type at all.
    """
    views = {view: rows for view, rows in scores["per_type"].items() if rows}
    if not views:
        raise ValueError("The scores hold no type; give entity_types or a split that is not empty.")
    longest = max(len(rows) for rows in views.values())
    longest_name = max(len(name) for rows in views.values() for name in rows)
    width = 5.2 + 0.085 * max(0, longest_name - 18)
    with _drawing(path, len(views), 1.5 + 0.52 * longest, width) as (figure, axes):
        for axis, (view, rows) in zip(axes, views.items()):
            for number, key in enumerate(("precision", "recall", "f1")):
                places = [place + (number - 1) * 0.26 for place in range(len(rows))]
                values = [row[key] for row in rows.values()]
                label = "F1" if key == "f1" else key
                axis.barh(places, values, height=0.24, color=_COLOURS[number], label=label)
                for place, value in zip(places, values):
                    axis.text(value + 1, place, f"{value:.1f}", va="center", fontsize=7.5, color="#59616c")
            names = [f"{name} ({row['support']})" for name, row in rows.items()]
            axis.set_yticks(range(len(rows)), names, parse_math=False)
            axis.set_ylim(longest - 0.45, -0.55)  # the first type on top; bars equally thick in all panels
            axis.set_xlim(0, 112)
            axis.set_xticks(range(0, 101, 20))
            axis.grid(axis="y", visible=False)
            axis.set_title(VIEWS[view])
            axis.set_xlabel("percent (number of gold items in brackets)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=9)
    return Path(path)


def drawn(plot: Callable[[Any, Path], Any], source: Any, path: Path) -> bool:
    """Whether ``plot(source, path)`` made its picture: not without matplotlib, which a warning says, nor where there is
    nothing to show."""
    try:
        plot(source, path)
    except ImportError as error:
        logger.warning("%s is left out: %s", path.name, error)
        return False
    except ValueError:
        return False
    return True


@contextmanager
def _drawing(
    path: str | os.PathLike, panels: int, height: float, width: float = 5.2
) -> Iterator[tuple[Any, list[Any]]]:
    """A figure (Agg: no window, unknown to pyplot) with panels side by side, saved on leaving, whole or not at all."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib; install it with `pip install aspert[plots]`.") from error
    with rc_context(_STYLE):
        figure = Figure(figsize=(width * panels, height), layout="constrained")
        yield figure, list(figure.subplots(1, panels, squeeze=False)[0])
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=200)
