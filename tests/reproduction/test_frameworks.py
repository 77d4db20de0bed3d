"""One run in both frameworks, side by side."""

import re
import sys

import numpy as np
import pytest

from benchmarks import paper
from benchmarks.paper import EXPERIMENTS, Experiment, Row
from maam import plots
from maam.cli import main
from maam.errors import TrainingError
from maam.training import read_recipe

pytest.importorskip("torch")
pytest.importorskip("mindspore")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
ROW = Row("Ours", "maam_digits", None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One epoch in each framework."""
    out = tmp_path_factory.mktemp("runs")
    recipe = read_recipe("digits").replaced({"epochs": 1, "batch_size": 128})
    for framework in ("torch", "mindspore"):
        paper.run(Experiment("One row", (ROW,)), recipe, out, root=out, seeds=(0,), framework=framework)
    return out


def test_the_same_run(runs, tmp_path):
    sides = paper.read_sides(ROW, runs, 0)
    assert [len(side.losses) for side in sides.values()] == [11, 11]
    assert all(side.speed > 0 for side in sides.values())
    text = paper.render_frameworks(ROW, sides, tmp_path)
    assert (tmp_path / "frameworks.md").read_text() == text
    assert (tmp_path / "frameworks.png").read_bytes().startswith(b"\x89PNG")
    first = float(re.search(r"\| 1 to 1 \| (\S+) \|", text).group(1))
    assert first < 1e-5  # the same weights and the same batch
    assert "| 11 to 11 |" in text
    assert text.count("Run by ") == 2


def test_training_time_beside_the_papers(runs, tmp_path):
    sides = paper.read_sides(ROW, runs, 0)
    assert all(side.minutes > 0 for side in sides.values())
    sides = {name: side._replace(minutes=minutes) for (name, side), minutes in zip(sides.items(), (2, 3), strict=True)}
    text = paper.render_frameworks(ROW, sides, tmp_path)
    assert "| torch | 11 | 2.00 |" in text
    assert "takes 1.50 times as long in MindSpore as in PyTorch here" in text
    assert '"improving training efficiency by 30%"' in text


def test_a_run_that_goes_on(runs, tmp_path):
    """As many steps are compared as both have made."""
    sides = paper.read_sides(ROW, runs, 0)
    half = sides["mindspore"]._replace(losses=sides["mindspore"].losses[:5])
    text = paper.render_frameworks(ROW, sides | {"mindspore": half}, tmp_path)
    assert "| mindspore | 5 |" in text
    assert "| 2 to 5 |" in text


def test_no_run(tmp_path):
    with pytest.raises(TrainingError, match=r"maam_digits-seed0-torch: no epoch of this run was made; run: maam"):
        paper.read_sides(ROW, tmp_path, 0)


def test_averages():
    np.testing.assert_array_equal(plots._averages(np.arange(7.0), 3), [1, 4])


def test_the_command(monkeypatch, capsys, runs):
    monkeypatch.setitem(EXPERIMENTS, "table1", Experiment("One row", (ROW,)))
    monkeypatch.setattr(sys, "argv", ["maam", "reproduce", "frameworks", "--collect", "--runs", str(runs)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert "| torch | 11 |" in capsys.readouterr().out
    assert (runs / "frameworks.png").exists()
