"""Tables made again: what is trained, what is read, and what a row without runs says."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maam import reproduction
from maam.cli import main
from maam.errors import TrainingError
from maam.reproduction import EXPERIMENTS, Experiment, Row
from maam.reproduction.experiments import Figures
from maam.spec import list_presets
from maam.training import read_recipe

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

TRAINED = Row("Ours", "maam_digits", Figures(0.9, 0.8, 0.7, 0.6))
MISSING = Row("Other", "cnn", None)
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one epoch."""
    out = tmp_path_factory.mktemp("runs")
    recipe = read_recipe("digits").replaced({"epochs": 1, "batch_size": 128})
    reproduction.run(Experiment("One row", (TRAINED,)), recipe, out, root=out, seeds=SEEDS)
    return out


def test_the_papers_rows():
    assert {row.preset for e in EXPERIMENTS.values() for row in e.rows} <= set(list_presets())
    assert [row.paper.accuracy for row in EXPERIMENTS["table1"].rows] == [0.870, 0.583, 0.496, 0.319]
    assert [row.paper and row.paper.recall for row in EXPERIMENTS["table2"].rows] == [0.871, 0.313, 0.312, None, 0.254]


def test_finished_runs_are_not_made_again(runs):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    recipe = read_recipe("digits").replaced({"epochs": 1, "batch_size": 128})
    reproduction.run(Experiment("One row", (TRAINED,)), recipe, runs, root=runs, seeds=SEEDS)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


@pytest.mark.parametrize("name", ["table9", "figure9"])
def test_a_table_with_a_row_that_was_not_run(runs, tmp_path, name):
    experiment = Experiment("A title", (TRAINED, MISSING))
    results = reproduction.collect(experiment, runs, (*SEEDS, 2))
    text = reproduction.render(name, experiment, results, tmp_path)
    assert (tmp_path / f"{name}.md").read_text() == text
    trained, missing = [line for line in text.splitlines() if line.startswith(("| Ours", "| Other"))]
    assert "| 2 | 0." in trained  # two seeds, not silently three
    assert "±" in trained
    assert "| 0.900 |" in trained
    assert missing.count("not run") == 6
    rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0", "1", "not run"]
    found = json.loads((runs / "maam_digits-seed1-torch" / "results.json").read_text())
    assert float(rows[1]["accuracy"]) == found["accuracy"]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_different_recipes_make_no_table(runs, tmp_path):
    experiment = Experiment("One row", (TRAINED,))
    other = read_recipe("digits").replaced({"epochs": 1, "batch_size": 256})
    reproduction.run(experiment, other, tmp_path, root=tmp_path, seeds=(0,))
    (tmp_path / "maam_digits-seed1-torch").symlink_to(runs / "maam_digits-seed1-torch")
    with pytest.raises(TrainingError, match="these runs were made by different recipes: maam_digits-seed0-torch, "):
        reproduction.collect(experiment, tmp_path, SEEDS)


def test_what_the_runs_were_made_on(runs, tmp_path):
    experiment = Experiment("One row", (TRAINED,))
    text = reproduction.render("table9", experiment, reproduction.collect(experiment, runs, SEEDS), tmp_path)
    assert text.count("Run by torch fp32, cpu: ") == 1
    for run in runs.iterdir():
        shutil.copytree(run, tmp_path / "runs" / run.name)
    described = tmp_path / "runs" / "maam_digits-seed1-torch" / "run.json"
    sessions = json.loads(described.read_text())
    sessions["sessions"][-1]["recipe"]["precision"] = "bf16"  # what trains fastest differs between machines
    described.write_text(json.dumps(sessions))
    text = reproduction.render(
        "table9", experiment, reproduction.collect(experiment, tmp_path / "runs", SEEDS), tmp_path
    )
    assert re.search("Run by torch fp32, .*: maam_digits seed 0\n", text)
    assert re.search("Run by torch bf16, .*: maam_digits seed 1\n", text)


def test_published_runs_give_the_same_table(runs, tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "publish_runs.py"
    subprocess.run([sys.executable, str(tool), str(runs), str(tmp_path / "published")], check=True)
    assert not list((tmp_path / "published").rglob("*.safetensors"))
    experiment = Experiment("One row", (TRAINED,))
    tables = []
    for folder in (runs, tmp_path / "published"):
        results = reproduction.collect(experiment, folder, SEEDS)
        tables.append(reproduction.render("table9", experiment, results, tmp_path))
        assert [len(result.losses[1]) for result in results] == [1]
    assert tables[0] == tables[1]
    (tmp_path / "published" / "maam_digits-seed1-torch" / "log.jsonl.gz").write_bytes(b"\x1f\x8bbroken")
    with pytest.raises(TrainingError, match="maam_digits-seed1-torch: the run's files are broken: "):
        reproduction.collect(experiment, tmp_path / "published", SEEDS)


def test_a_broken_run(runs, tmp_path):
    folder = tmp_path / "maam_digits-seed0-torch"
    folder.mkdir()
    for content in ("{}", "[", "null"):
        (folder / "results.json").write_text(content)
        with pytest.raises(TrainingError, match=r"maam_digits-seed0-torch: the run's files are broken: "):
            reproduction.collect(Experiment("One row", (TRAINED,)), tmp_path, SEEDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table3",), "expected one of table1, table2, figure2, frameworks, got 'table3'"),
        (("table1",), "--root DIR is missing"),
        (("table1", "--seeds", "a"), "--seeds: expected comma-separated integers such as 0,1,2, got 'a'"),
        (("table1", "--recipe", "none"), "no recipe 'none'"),
        (
            ("table1", "--root", ".", "--only", "mlp,x"),
            "--only: expected some of maam_cifar10_2m3, cnn, mlp, rnn, got 'x'",
        ),
    ],
)
def test_the_command_refuses(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["maam", "reproduce", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith(f"maam: {message}")


def test_the_command_collects(monkeypatch, capsys, runs, tmp_path):
    monkeypatch.setitem(EXPERIMENTS, "table1", Experiment("One row", (TRAINED,)))
    arguments = ["reproduce", "table1", "--collect", "--runs", str(runs), "--seeds", "0,1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["maam", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert "| Ours | `maam_digits` |" in capsys.readouterr().out
    assert (tmp_path / "table1.csv").exists()
