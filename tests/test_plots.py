"""Pictures of what has unusual names or sizes."""

import numpy as np
import pytest

from maam import plots

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
ODD = "a$b_$^ x"  # a formula that cannot be read


@pytest.mark.parametrize("count", [3, 40, 120])
def test_confusion_matrices(count, tmp_path):
    names = [f"{ODD} {index}" for index in range(count)]
    labels = np.arange(count).repeat(2)
    plots.draw_confusion_matrix(labels, labels[::-1], names, tmp_path / "matrix.png", ODD)
    assert (tmp_path / "matrix.png").stat().st_size > 1000


def test_counts_stand_in_small_matrices_alone(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure.axes[0]))
    for count in (30, 31, 101):
        labels = np.arange(count)
        plots.draw_confusion_matrix(labels, labels, [str(label) for label in labels], tmp_path / "m.png", "")
    assert [len(axis.texts) for axis in drawn] == [900, 0, 0]
    assert [len(axis.get_xticks()) for axis in drawn] == [30, 31, 0]


def test_titles_and_legends_are_no_formulas(tmp_path):
    values = {"loss": np.ones(4), "accuracy": np.ones(4)}
    plots.draw_training(values, {name: one[:2] for name, one in values.items()}, tmp_path / "a.png", ODD)
    plots.draw_fusion([{ODD: [0.5, 0.5]}], tmp_path / "b.png", ODD)
    plots.draw_losses({ODD: np.ones((1, 2))}, {ODD: np.ones((1, 2))}, tmp_path / "c.png", ODD)
    plots.draw_step_losses({ODD: np.ones(3), "b": np.ones(3)}, tmp_path / "d.png", ODD)
    plots.draw_accuracies({ODD: [0.5]}, {}, tmp_path / "e.png", ODD)
    assert len(list(tmp_path.iterdir())) == 5
