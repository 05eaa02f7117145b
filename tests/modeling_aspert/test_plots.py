from __future__ import annotations

import struct
import sys

import pytest

from modeling_aspert.plots import drawn, plot_per_type, plot_training_curves
from modeling_aspert.scoring import compute_scores

HISTORY = [
    {"loss": 2.0, "epoch": 0.5, "step": 1, "learning_rate": 1e-5},
    {"loss": 1.0, "span_loss": 0.7, "epoch": 1.0, "step": 2},
    {"eval_ner_micro_f1": 40.0, "eval_re_strict_macro_f1": 10.0, "eval_runtime": 1.0, "epoch": 1.0, "step": 2},
    {"train_loss": 1.5, "train_runtime": 3.0, "epoch": 1.0, "step": 2},
]
GOLD = {"entities": [{"type": "$a_b$", "start": 0, "end": 1}], "relations": [{"type": "R", "head": 0, "tail": 0}]}


def png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return struct.unpack(">II", content[16:24])


@pytest.fixture(autouse=True)
def _matplotlib(request):
    if "missing" not in request.node.name:
        pytest.importorskip("matplotlib")


def test_training_curves(tmp_path):
    path = plot_training_curves(HISTORY, tmp_path / "new" / "curves.png")
    assert png_size(path) == (2080, 680)  # two panels
    assert png_size(plot_training_curves(HISTORY[:2], tmp_path / "loss.png")) == (1040, 680)
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_what_follows_the_training_is_not_drawn(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure").Figure
    saved = []
    monkeypatch.setattr(figure, "savefig", lambda self, path, **_: (saved.append(self), path.write_bytes(b"")))
    # epoch 1 was the best, whose model is evaluated once more at the end
    scores = [
        {"eval_ner_micro_f1": value, "epoch": epoch, "step": 2 * epoch} for value, epoch in ((40.0, 1), (30.0, 2))
    ]
    loss = {"loss": 1.0, "epoch": 1.0, "step": 2}
    history = [loss, *scores, {**HISTORY[-1], "epoch": 2}, {**scores[0], "epoch": 2, "step": 4}]
    plot_training_curves(history, tmp_path / "a.png", best_step=2)
    for axis, points in zip(saved[0].axes, ([(1.0, 1.0)], [(1, 40.0), (2, 30.0)])):
        curve, best = axis.get_lines()
        assert [tuple(point) for point in curve.get_xydata()] == points
        assert list(best.get_xdata()) == [1.0, 1.0] and best.get_label() == "epoch 1, the model's"
    plot_training_curves(history, tmp_path / "a.png")
    assert [len(axis.get_lines()) for axis in saved[1].axes] == [1, 1]


def test_per_type(tmp_path):
    width, height = png_size(plot_per_type(compute_scores([GOLD], [GOLD]), tmp_path / "types.png"))
    assert (width, height) == (3120, 404)  # three panels of one type
    named = {**GOLD, "entities": [{"type": "x" * 58, "start": 0, "end": 1}]}
    longer, _ = png_size(plot_per_type(compute_scores([named], [named]), tmp_path / "types.png"))
    assert longer == 3120 + 3 * 40 * 17  # for the name, not at the bars' cost


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no entry with an epoch"):
        plot_training_curves([{"train_loss": 1.0, "epoch": 1.0}], tmp_path / "a.png")
    with pytest.raises(ValueError, match="hold no type"):
        plot_per_type(compute_scores([], []), tmp_path / "a.png")


def test_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"aspert\[plots\]"):
        plot_training_curves(HISTORY, tmp_path / "a.png")


def test_drawn_tells_whether_there_is_a_picture(tmp_path, monkeypatch, caplog):
    path = tmp_path / "curves.png"
    assert drawn(plot_training_curves, HISTORY, path) and path.is_file()
    assert not drawn(plot_training_curves, [], tmp_path / "nothing.png") and not caplog.records
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not drawn(plot_training_curves, HISTORY, tmp_path / "missing.png")
    [record] = caplog.records
    assert record.getMessage().startswith("missing.png is left out: Plots need matplotlib; install it with")
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_leaves_pyplot_alone(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    plot_training_curves(HISTORY, tmp_path / "a.png")
    assert not pyplot.get_fignums()
