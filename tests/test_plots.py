"""Figures: confusion matrices, runs, titles and names."""

import numpy as np
import pytest

from maam import plots
from maam._io import PICTURES
from maam.errors import MaamError
from maam.parity import Report
from maam.parity.report import draw_depth

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
ODD = "a$b_$^ x"  # an invalid formula


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, from then on."""
    figures, save = [], plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def test_only_small_confusion_matrices_have_counts(tmp_path, drawn):
    for count, name in ((30, ODD), (31, ODD), (101, ODD), (2, "caf\udce9")):
        labels, names = np.arange(count).repeat(2), [f"{name} {index}" for index in range(count)]
        plots.draw_confusion_matrix(labels, labels[::-1], names, tmp_path / "matrix.png", ODD)
        assert (tmp_path / "matrix.png").stat().st_size > 1000
    assert [len(figure.axes[0].texts) for figure in drawn] == [900, 0, 0, 4]
    assert [len(figure.axes[0].get_xticks()) for figure in drawn] == [30, 31, 0, 2]


def test_many_runs_and_long_names(tmp_path, drawn):
    for names in ([f"run {index}" for index in range(20)], ["a" * 300, "b" * 300], ["caf\udce9 $x"]):
        curves = {name: np.linspace(0, 1, 3) for name in names}
        plots.draw_runs(curves, curves, tmp_path / "runs.png", "")
        lines = drawn[-1].axes[0].lines
        assert len({str(line.get_color()) for line in lines}) == len(names) == len(lines) / 2
    assert (tmp_path / "runs.png").stat().st_size > 1000


def test_pictures_of_one_epoch_have_whole_ticks_and_markers(tmp_path, drawn):
    steps, epoch = np.linspace(2, 1, 5), np.array([1.5])
    plots.draw_training({"loss": steps, "accuracy": steps}, {"loss": epoch, "accuracy": epoch}, tmp_path / "a.png", "")
    plots.draw_fusion([{"alpha": [0.5, 0.5]}], tmp_path / "b.png", "")
    plots.draw_runs({"a": epoch}, {"a": epoch}, tmp_path / "c.png", "")
    plots.draw_losses({"a": epoch[None]}, {"a": epoch[None]}, tmp_path / "d.png", "")
    plots.draw_fusion([{"alpha": [0.5, 0.5]}, {"alpha": [0.4, 0.6]}], tmp_path / "e.png", "", first=0)
    for axis in (axis for figure in drawn for axis in figure.axes):
        low, high = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(float(tick).is_integer() for tick in ticks)
        assert -0.5 < low < high < 1.5
        assert all(line.get_marker() not in ("", "None") for line in axis.lines if len(line.get_xdata()) == 1)
    assert list(drawn[-1].axes[0].lines[0].get_xdata()) == [0, 1]


EPOCHS, CURVE = {"loss": np.ones(2), "accuracy": np.ones(2)}, np.ones((1, 2))
DRAWN = {
    "training": lambda path, name: plots.draw_training(EPOCHS, EPOCHS, path, name),
    "fusion": lambda path, name: plots.draw_fusion([{name: [0.5, 0.5]}], path, name),
    "losses": lambda path, name: plots.draw_losses({name: CURVE}, {name: CURVE}, path, name),
    "step losses": lambda path, name: plots.draw_step_losses({name: np.ones(3), "b": np.ones(3)}, path, name),
    "accuracies": lambda path, name: plots.draw_accuracies({name: [0.5]}, {}, path, name),
    "runs": lambda path, name: plots.draw_runs({name: np.ones(2)}, {name: np.ones(2)}, path, name),
    "matrix": lambda path, name: plots.draw_confusion_matrix(np.arange(2), np.arange(2), [name, "b"], path, name),
    "attention": lambda path, name: plots.draw_attention([(np.zeros((8, 8, 3)), {name: np.eye(4)})], path, name),
    "depth": lambda path, name: draw_depth(Report(name, []), path),
}
"""A picture of each kind, with a title and a label of the same name."""


@pytest.mark.parametrize("kind", DRAWN)
def test_suffixes_choose_the_format_and_titles_and_labels_are_not_formulas(kind, tmp_path):
    for path in (tmp_path / "a.xyz", str(tmp_path / "a")):
        with pytest.raises(MaamError, match=r"expected a file name that ends in \.png, \.svg, "):
            DRAWN[kind](path, "a")
    assert not list(tmp_path.iterdir())
    for suffix in (*PICTURES, ".PNG") if kind == "attention" else [".png"]:
        DRAWN[kind](tmp_path / f"a{suffix}", ODD)
        assert (tmp_path / f"a{suffix}").stat().st_size > 1000
