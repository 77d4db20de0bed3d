"""The tables of the MAAM paper: training, collection of runs, pages and the command."""

import csv
import json
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks import paper
from benchmarks.paper import EXPERIMENTS, Experiment, Row
from benchmarks.paper.experiments import Scores, name_recipe
from benchmarks.paper.results import describe_origin
from maam import plots
from maam.errors import TrainingError
from maam.spec import list_presets
from maam.training import evaluate_file, read_recipe
from maam.training.run_dir import RunFolder
from maam.weights.pretrained import read_card

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

TRAINED = Row("Ours", "maam_digits", Scores(0.9, 0.8, 0.7, 0.6))
MISSING = Row("Other", "cnn", None)
ONE_ROW = Experiment("One row", (TRAINED,))
SEEDS = (0, 1)
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "runs"
MAAM = EXPERIMENTS["table1"].rows[0]
RECIPE = read_recipe("digits").replaced({"epochs": 1, "batch_size": 128})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    paper.run(ONE_ROW, RECIPE, out, root=out, seeds=SEEDS)
    return out


def edited(runs, folder, seed, change):
    """Copy the runs to a folder, and edit the description of one of them there."""
    path = shutil.copytree(runs, folder / "copy") / f"maam_digits-seed{seed}-torch" / "run.json"
    document = json.loads(path.read_text())
    change(document["sessions"])
    path.write_text(json.dumps(document))
    return folder / "copy"


def state_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def read_rows(path, column, expected):
    """Read a CSV file of three seeds; TRAINED has two runs, which have the expected value, and MISSING none."""
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["model"], row["seed"]) for row in rows] == list(product(("Ours", "Other"), "012"))
    assert [row[column] for row in rows] == [expected, expected, *4 * ["not run"]]
    return rows


def test_rows_of_the_paper_and_names_of_recipes():
    assert {row.preset for e in EXPERIMENTS.values() for row in e.rows} <= set(list_presets())
    assert [row.paper.accuracy for row in EXPERIMENTS["table1"].rows] == [0.870, 0.583, 0.496, 0.319]
    assert [row.paper and row.paper.recall for row in EXPERIMENTS["table2"].rows] == [0.871, 0.313, 0.312, None, 0.254]

    assert name_recipe(read_recipe("cifar10").replaced({"epochs": 3, "seed": 5, "model": "cnn"})) == "cifar10"
    assert name_recipe(read_recipe("paper").replaced({"optimizer.lr": 0.05})) == "paper, optimizer.lr 0.05"
    overrides = {"overrides": {"act_layer": "silu"}}
    assert name_recipe(read_recipe("digits").replaced(overrides)).endswith("overrides.act_layer silu")


class TestRuns:
    def test_finished_runs_are_not_trained_again_and_other_recipes_are_refused(self, runs):
        before = state_of(runs)
        paper.run(ONE_ROW, RECIPE, runs, root=runs, seeds=SEEDS)
        both = Experiment("Two rows", (MISSING, TRAINED))
        for message, changes in {
            "epochs 1, not 2": {"optimizer.lr": 0.01, "epochs": 2},
            "augmentation.cutout 0, not 3": {"augmentation.cutout": 3},
            "precision fp32, not bf16": {"precision": "bf16"},
        }.items():
            with pytest.raises(TrainingError, match=f"digits-seed0-torch: this run was made with {message}; request"):
                paper.run(both, RECIPE.replaced(changes), runs, root=runs, seeds=SEEDS)
        assert state_of(runs) == before
        for precision in ("auto", "fp32"):  # "auto" is the precision of the run
            paper.check_recipe(ONE_ROW, RECIPE.replaced({"precision": precision}), runs, SEEDS)

    def test_runs_with_different_recipes_make_no_table(self, runs, tmp_path):
        copy = edited(runs, tmp_path, 0, lambda sessions: sessions[-1]["recipe"].update(batch_size=256))
        with pytest.raises(TrainingError, match=r"differ: maam_digits-seed0-torch, .* \(batch_size 256, 128\)"):
            paper.collect(ONE_ROW, copy, SEEDS)

    def test_missing_and_broken_results(self, tmp_path):
        with pytest.raises(TrainingError, match="no finished run of these rows in torch with seeds 0, 1; train them"):
            paper.collect(ONE_ROW, tmp_path, SEEDS)
        folder = tmp_path / "maam_digits-seed0-torch"
        folder.mkdir()
        for content in ("{}", "[", "null"):
            (folder / "results.json").write_text(content)
            with pytest.raises(TrainingError, match=r"maam_digits-seed0-torch: the files of this run are broken: "):
                paper.collect(ONE_ROW, tmp_path, SEEDS)

    def test_origin_names_each_session_that_differs(self, runs, tmp_path):
        copy = edited(runs, tmp_path, 1, lambda sessions: sessions.append({**sessions[0], "framework": "mindspore"}))
        assert "; then mindspore fp32, cpu: " in describe_origin(RunFolder(copy / "maam_digits-seed1-torch"))

    def test_published_runs_make_the_same_table(self, run, runs, tmp_path):
        published = tmp_path / "published"
        run("publish-runs", runs, published)
        assert not list(published.rglob("*.safetensors"))
        tables = []
        for folder in (runs, published):
            results = paper.collect(ONE_ROW, folder, SEEDS)
            tables.append(paper.render("table9", ONE_ROW, results, tmp_path))
            assert [len(result.runs[1].training_loss) for result in results] == [1]
        assert tables[0] == tables[1]
        (published / "maam_digits-seed1-torch" / "log.jsonl.gz").write_bytes(b"\x1f\x8bbroken")
        with pytest.raises(TrainingError, match="maam_digits-seed1-torch: the files of this run are broken: "):
            paper.collect(ONE_ROW, published, SEEDS)

    def test_weights_of_a_run_become_pretrained_weights(self, run, runs, tmp_path):
        folder = runs / "maam_digits-seed1-torch"
        run("publish-weights", folder, "--out", tmp_path)
        path = tmp_path / "maam_digits.safetensors"
        card = read_card(path)
        assert card.accuracy == pytest.approx(evaluate_file(path, "digits").accuracy, abs=1e-4)
        assert card.class_names == tuple("0123456789")
        assert card.preprocessing == "the central square, resized to 8x8, pixels scaled to [0, 1]"
        assert card.command.startswith("maam train maam_digits -o ")
        assert {"epochs=1", "batch_size=128", "seed=1", "precision=fp32"} < set(card.command.split())
        assert all(array.dtype == np.float16 for array in load_file(path).values())


class TestPages:
    def test_table_with_a_row_that_was_not_run(self, runs, tmp_path):
        experiment = Experiment("A title", (TRAINED, MISSING))
        text = paper.render("table9", experiment, paper.collect(experiment, runs, (*SEEDS, 2)), tmp_path)
        trained, missing = [line for line in text.splitlines() if line.startswith(("| Ours", "| Other"))]
        assert "| 2 of 3 | `digits, batch_size 128` | 1 | 0." in trained
        assert "±" in trained
        assert "| 0.900 |" in trained
        assert missing.count("not run") == 6
        rows = read_rows(tmp_path / "table9.csv", "recipe", expected="digits, batch_size 128")
        assert [row["epochs"] for row in rows] == ["1", "1", *4 * [""]]
        assert all(row["accuracy"] == "" for row in rows[2:])
        found = json.loads((runs / "maam_digits-seed1-torch" / "results.json").read_text())
        assert float(rows[1]["accuracy"]) == found["accuracy"]

    def test_figure_shows_losses(self, runs, tmp_path):
        experiment = Experiment("A title", (TRAINED, MISSING), "It falls.")
        text = paper.render("figure9", experiment, paper.collect(experiment, runs, (*SEEDS, 2)), tmp_path)
        assert "| epoch | training, seed 0 | training, seed 1 | test, seed 0 | test, seed 1 | training, all |" in text
        assert "Seeds: 2 of 3. Recipe: `digits, batch_size 128`. Epochs: 1." in text
        assert "## Other: `cnn`\n\nNot run.\n" in text
        assert "\nThe figure in the paper has no numbers. The text says: It falls.\n" in text
        rows = read_rows(tmp_path / "figure9.csv", "epoch", expected="1")
        log = (runs / "maam_digits-seed1-torch" / "log.jsonl").read_text()
        records = [json.loads(line) for line in log.splitlines()]
        losses = [loss for record in records if record["kind"] == "steps" for loss in record["losses"]]
        assert float(rows[1]["training_loss"]) == pytest.approx(sum(losses) / len(losses), abs=1e-6)
        assert float(rows[1]["test_loss"]) == pytest.approx(records[-1]["test_loss"], abs=1e-6)

    def test_machines_are_named_once_or_for_each_run(self, runs, tmp_path):
        text = paper.render("table9", ONE_ROW, paper.collect(ONE_ROW, runs, SEEDS), tmp_path)
        assert text.count("Trained with torch fp32, cpu: ") == 1
        copy = edited(runs, tmp_path, 1, lambda sessions: sessions[-1]["recipe"].update(precision="bf16"))
        text = paper.render("table9", ONE_ROW, paper.collect(ONE_ROW, copy, SEEDS), tmp_path)
        assert re.search("Trained with torch fp32, .*: maam_digits seed 0\n", text)
        assert re.search("Trained with torch bf16, .*: maam_digits seed 1\n", text)


class TestFrameworks:
    def test_other_times_and_a_run_that_was_stopped(self, tmp_path):
        sides = paper.read_sides(MAAM, PUBLISHED, 0)
        found = {name: side._replace(minutes=time) for (name, side), time in zip(sides.items(), (2, 3), strict=True)}
        text = paper.render_frameworks(MAAM, found, tmp_path)
        assert "| torch | 23,430 | 2.00 |" in text
        assert "took 1.50 times as long in MindSpore as in PyTorch" in text
        assert '"improving training efficiency by 30%"' in text
        short = sides["mindspore"]._replace(losses=sides["mindspore"].losses[:5])
        text = paper.render_frameworks(MAAM, sides | {"mindspore": short}, tmp_path)
        assert "| mindspore | 5 |" in text
        assert "| 2 to 5 |" in text

    def test_averages_of_the_picture_and_a_missing_run(self, tmp_path):
        np.testing.assert_array_equal(plots._averages(np.arange(7.0), 3), [1, 4])
        message = r"maam_digits-seed0-torch: this run has no finished epoch; train it with: python -m benchmarks paper"
        with pytest.raises(TrainingError, match=message):
            paper.read_sides(TRAINED, tmp_path, 0)

    def test_both_frameworks_are_trained(self, run, monkeypatch, tmp_path):
        trained = []
        monkeypatch.setattr("benchmarks.paper.results.run", lambda *given, framework, **rest: trained.append(framework))
        monkeypatch.setattr("benchmarks.paper.command.read_sides", lambda row, runs, seed: seed)
        monkeypatch.setattr("benchmarks.paper.command.render_frameworks", lambda row, seed, out: f"seed {seed}")
        assert run("paper", "frameworks", "--root", tmp_path, "--seeds", "3,4") == "seed 3\n"
        assert trained == ["torch", "mindspore"]


class TestCommand:
    def test_refusals(self, fails, tmp_path):
        for arguments, message in {
            "table3": "expected one of table1, table2, figure2, frameworks, got 'table3'",
            "table1": "--root: expected the folder that `maam data cifar10 DIR` wrote",
            "table1 --collect --framework jax": "--framework: expected one of torch, mindspore, got 'jax'",
            "table1 --collect --runs none": "--runs none: no such folder",
            "table1 --collect --runs .": ".: no finished run of these rows in torch with seeds 0, 1, 2",
            "table1 -o seed=3": "-o seed=3: use --seeds",
            "table1 -o model=cnn": "-o model=cnn: the rows define the models; use --only",
            "table1 --epochs 0": "recipe: epochs: input should be greater than or equal to 1, got 0",
            "table1 --seeds a": "--seeds: expected comma-separated integers such as 0,1,2, got 'a'",
            "table1 --seeds 0,-3": "--seeds: expected comma-separated integers such as 0,1,2, got '0,-3'",
            "frameworks --framework torch": "--framework: frameworks trains in both; remove this option",
            "table1 --collect --only rnn": "--only: --collect does not train; remove this option",
            "table1 --recipe none": "no recipe 'none'",
            "table1 --root . --only mlp,x": "--only: expected some of maam_cifar10_2m3, cnn, mlp, rnn, ",
        }.items():
            assert fails("paper", *arguments.split()).startswith(message), arguments
            assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", [*EXPERIMENTS, "frameworks"])
    def test_published_pages(self, run, tmp_path, name):
        """The pages of the documentation are the output of the command, except for the folder in it."""
        out = run("paper", name, "--collect", "--runs", PUBLISHED, "--out", tmp_path)
        made = (tmp_path / f"{name}.md").read_text()
        assert out == f"{made}\n"
        made = made.replace(str(PUBLISHED), "docs/results/runs").replace(str(tmp_path), "docs/results")
        assert made == (PUBLISHED.parent / f"{name}.md").read_text()
        for path in tmp_path.glob("*.csv"):
            assert path.read_text() == (PUBLISHED.parent / path.name).read_text()
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("collect", [("--collect",), ("--root", ".")])
    def test_recipe_must_be_that_of_the_runs(self, run, fails, monkeypatch, runs, tmp_path, collect):
        monkeypatch.setitem(EXPERIMENTS, "table1", ONE_ROW)
        base = ["paper", "table1", *collect, "--runs", runs, "--seeds", "0,1", "--out", tmp_path]
        same = ["--recipe", "digits", "-o", "batch_size=128", "--epochs", "1", "--precision", "fp32"]
        out, page = run(*base, *same), tmp_path / "table1.md"
        assert "| Ours | `maam_digits` |" in out
        assert page.with_suffix(".csv").exists()
        assert "made with optimizer.lr" in fails(*base, *same, "-o", "optimizer.lr=0.3")
        message = "maam_digits-seed0-torch: this run was made with data digits, not cifar10"
        assert message in fails(*base, "--recipe", "paper")
        message = fails("paper", "table1", "--root", tmp_path, "--out", page)
        assert message == f"--out {page}: expected a folder, this is a file"
        if "--collect" in collect:
            assert "Command: `python -m benchmarks paper table1 --collect --runs " in run(*base)
