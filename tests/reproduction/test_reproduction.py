"""Tables made again: what is trained, what is read, and what a row without runs says."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import paper
from benchmarks.paper import EXPERIMENTS, Experiment, Row
from benchmarks.paper.experiments import Figures, name_recipe
from maam.cli import main
from maam.errors import TrainingError
from maam.spec import list_presets
from maam.training import read_recipe

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

TRAINED = Row("Ours", "maam_digits", Figures(0.9, 0.8, 0.7, 0.6))
MISSING = Row("Other", "cnn", None)
SEEDS = (0, 1)
RECIPE = read_recipe("digits").replaced({"epochs": 1, "batch_size": 128})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one epoch."""
    out = tmp_path_factory.mktemp("runs")
    paper.run(Experiment("One row", (TRAINED,)), RECIPE, out, root=out, seeds=SEEDS)
    return out


def test_the_papers_rows():
    assert {row.preset for e in EXPERIMENTS.values() for row in e.rows} <= set(list_presets())
    assert [row.paper.accuracy for row in EXPERIMENTS["table1"].rows] == [0.870, 0.583, 0.496, 0.319]
    assert [row.paper and row.paper.recall for row in EXPERIMENTS["table2"].rows] == [0.871, 0.313, 0.312, None, 0.254]


def test_finished_runs_are_not_made_again(runs):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    paper.run(Experiment("One row", (TRAINED,)), RECIPE, runs, root=runs, seeds=SEEDS)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2}, "epochs 1, not 2"),
        ({"optimizer.lr": 0.01, "epochs": 2}, "epochs 1, not 2"),
        ({"augmentation.cutout": 3}, "augmentation.cutout 0, not 3"),
        ({"precision": "bf16"}, "precision fp32, not bf16"),
    ],
)
def test_runs_of_another_recipe_are_not_those_asked_for(runs, changes, message):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    experiment = Experiment("Two rows", (MISSING, TRAINED))  # nothing is trained before all runs were looked at
    with pytest.raises(TrainingError, match=f"maam_digits-seed0-torch: this run was made with {message}; ask for"):
        paper.run(experiment, RECIPE.replaced(changes), runs, root=runs, seeds=SEEDS)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_the_precision_that_auto_chose_may_be_named(runs):
    experiment = Experiment("One row", (TRAINED,))
    for precision in ("auto", "fp32"):
        paper.check_recipe(experiment, RECIPE.replaced({"precision": precision}), runs, SEEDS)


def test_the_name_of_a_recipe():
    assert name_recipe(read_recipe("cifar10").replaced({"epochs": 3, "seed": 5, "model": "cnn"})) == "cifar10"
    assert name_recipe(read_recipe("paper").replaced({"optimizer.lr": 0.05})) == "paper, optimizer.lr 0.05"


def test_a_table_with_a_row_that_was_not_run(runs, tmp_path):
    name, experiment = "table9", Experiment("A title", (TRAINED, MISSING))
    results = paper.collect(experiment, runs, (*SEEDS, 2))
    text = paper.render(name, experiment, results, tmp_path)
    assert (tmp_path / f"{name}.md").read_text() == text
    trained, missing = [line for line in text.splitlines() if line.startswith(("| Ours", "| Other"))]
    assert "| 2 of 3 | `digits, batch_size 128` | 1 | 0." in trained
    assert "±" in trained
    assert "| 0.900 |" in trained
    assert missing.count("not run") == 6
    rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
    assert [(row["model"], row["seed"], row["recipe"], row["epochs"]) for row in rows] == [
        ("Ours", "0", "digits, batch_size 128", "1"),
        ("Ours", "1", "digits, batch_size 128", "1"),
        ("Ours", "2", "not run", ""),
        *(("Other", seed, "not run", "") for seed in "012"),
    ]
    assert all(row["accuracy"] == "" for row in rows[2:])
    found = json.loads((runs / "maam_digits-seed1-torch" / "results.json").read_text())
    assert float(rows[1]["accuracy"]) == found["accuracy"]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_holds_losses(runs, tmp_path):
    experiment = Experiment("A title", (TRAINED, MISSING), "It falls.")
    results = paper.collect(experiment, runs, (*SEEDS, 2))
    text = paper.render("figure9", experiment, results, tmp_path)
    assert (tmp_path / "figure9.md").read_text() == text
    assert "| epoch | training, seed 0 | training, seed 1 | test, seed 0 | test, seed 1 | training, all |" in text
    assert "Seeds: 2 of 3. Recipe: `digits, batch_size 128`, 1 epochs." in text
    assert "## Other: `cnn`\n\nNot run.\n" in text
    assert "\nThe paper's figure has no numbers. Its text says: It falls.\n" in text
    rows = list(csv.DictReader((tmp_path / "figure9.csv").read_text().splitlines()))
    assert [(row["model"], row["seed"], row["epoch"]) for row in rows] == [
        ("Ours", "0", "1"),
        ("Ours", "1", "1"),
        ("Ours", "2", "not run"),
        *(("Other", seed, "not run") for seed in "012"),
    ]
    records = [json.loads(line) for line in (runs / "maam_digits-seed1-torch" / "log.jsonl").read_text().splitlines()]
    losses = [loss for record in records if record["kind"] == "steps" for loss in record["losses"]]
    assert float(rows[1]["training_loss"]) == pytest.approx(sum(losses) / len(losses), abs=1e-6)
    assert float(rows[1]["test_loss"]) == pytest.approx(records[-1]["test_loss"], abs=1e-6)
    assert (tmp_path / "figure9.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_of_no_run(tmp_path):
    with pytest.raises(TrainingError, match="no finished run of these rows in torch with seeds 0, 1; train them"):
        paper.collect(Experiment("One row", (TRAINED,)), tmp_path, SEEDS)


def test_runs_of_different_recipes_make_no_table(runs, tmp_path):
    experiment = Experiment("One row", (TRAINED,))
    other = read_recipe("digits").replaced({"epochs": 1, "batch_size": 256})
    paper.run(experiment, other, tmp_path, root=tmp_path, seeds=(0,))
    (tmp_path / "maam_digits-seed1-torch").symlink_to(runs / "maam_digits-seed1-torch")
    with pytest.raises(TrainingError, match=r"different recipes: maam_digits-seed0-torch, .* \(batch_size 256, 128\)"):
        paper.collect(experiment, tmp_path, SEEDS)


def test_what_the_runs_were_made_on(runs, tmp_path):
    experiment = Experiment("One row", (TRAINED,))
    text = paper.render("table9", experiment, paper.collect(experiment, runs, SEEDS), tmp_path)
    assert text.count("Run by torch fp32, cpu: ") == 1
    for run in runs.iterdir():
        shutil.copytree(run, tmp_path / "runs" / run.name)
    described = tmp_path / "runs" / "maam_digits-seed1-torch" / "run.json"
    sessions = json.loads(described.read_text())
    sessions["sessions"][-1]["recipe"]["precision"] = "bf16"  # what trains fastest differs between machines
    described.write_text(json.dumps(sessions))
    text = paper.render("table9", experiment, paper.collect(experiment, tmp_path / "runs", SEEDS), tmp_path)
    assert re.search("Run by torch fp32, .*: maam_digits seed 0\n", text)
    assert re.search("Run by torch bf16, .*: maam_digits seed 1\n", text)


def test_published_runs_give_the_same_table(runs, tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "publish_runs.py"
    subprocess.run([sys.executable, str(tool), str(runs), str(tmp_path / "published")], check=True)
    assert not list((tmp_path / "published").rglob("*.safetensors"))
    experiment = Experiment("One row", (TRAINED,))
    tables = []
    for folder in (runs, tmp_path / "published"):
        results = paper.collect(experiment, folder, SEEDS)
        tables.append(paper.render("table9", experiment, results, tmp_path))
        assert [len(result.runs[1].training_loss) for result in results] == [1]
    assert tables[0] == tables[1]
    (tmp_path / "published" / "maam_digits-seed1-torch" / "log.jsonl.gz").write_bytes(b"\x1f\x8bbroken")
    with pytest.raises(TrainingError, match="maam_digits-seed1-torch: the run's files are broken: "):
        paper.collect(experiment, tmp_path / "published", SEEDS)


def test_a_broken_run(runs, tmp_path):
    folder = tmp_path / "maam_digits-seed0-torch"
    folder.mkdir()
    for content in ("{}", "[", "null"):
        (folder / "results.json").write_text(content)
        with pytest.raises(TrainingError, match=r"maam_digits-seed0-torch: the run's files are broken: "):
            paper.collect(Experiment("One row", (TRAINED,)), tmp_path, SEEDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table3",), "expected one of table1, table2, figure2, frameworks, got 'table3'"),
        (("table1",), "--root DIR is missing"),
        (("table1", "--collect", "--framework", "jax"), "framework: expected one of torch, mindspore, got 'jax'"),
        (("table1", "--collect", "--runs", "none"), "--runs none: there is no such folder"),
        (("table1", "--collect", "--runs", "."), ".: no finished run of these rows in torch with seeds 0, 1, 2"),
        (("table1", "-o", "seed=3"), "-o seed=3: see --seeds"),
        (("table1", "--epochs", "0"), "recipe: epochs: input should be greater than or equal to 1, got 0"),
        (("table1", "--seeds", "a"), "--seeds: expected comma-separated integers such as 0,1,2, got 'a'"),
        (("table1", "--seeds", "0,-3"), "--seeds: expected comma-separated integers such as 0,1,2, got '0,-3'"),
        (("frameworks", "--framework", "torch"), "--framework: frameworks are both; leave it out"),
        (("table1", "--collect", "--only", "rnn"), "--only: --collect trains nothing; leave it out"),
        (("table1", "--recipe", "none"), "no recipe 'none'"),
        (
            ("table1", "--root", ".", "--only", "mlp, x"),
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
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_a_file_for_a_folder(monkeypatch, capsys, tmp_path):
    (tmp_path / "table.md").write_text("")
    arguments = ["table1", "--root", str(tmp_path), "--out", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["maam", "reproduce", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"maam: --out {tmp_path / 'table.md'}: expected a folder, this is a file\n"


def test_the_command_collects(monkeypatch, capsys, runs, tmp_path):
    monkeypatch.setitem(EXPERIMENTS, "table1", Experiment("One row", (TRAINED,)))
    arguments = ["reproduce", "table1", "--collect", "--runs", str(runs), "--seeds", "0,1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["maam", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert "| Ours | `maam_digits` |" in capsys.readouterr().out
    assert (tmp_path / "table1.csv").exists()


@pytest.mark.parametrize("collect", [("--collect",), ("--root", ".")])
def test_the_command_holds_runs_to_the_recipe(monkeypatch, capsys, runs, tmp_path, collect):
    monkeypatch.setitem(EXPERIMENTS, "table1", Experiment("One row", (TRAINED,)))
    base = ["maam", "reproduce", "table1", *collect, "--runs", str(runs), "--seeds", "0,1", "--out", str(tmp_path)]
    same = ["--recipe", "digits", "-o", "batch_size=128", "--epochs", "1", "--precision", "fp32"]
    for given, status in ((same, 0), ([*same, "-o", "optimizer.lr=0.3"], 1), (["--recipe", "paper"], 1)):
        monkeypatch.setattr(sys, "argv", [*base, *given])
        with pytest.raises(SystemExit) as caught:
            main()
        assert (caught.value.code or 0) == status
    assert "maam_digits-seed0-torch: this run was made with data digits, not cifar10" in capsys.readouterr().err
