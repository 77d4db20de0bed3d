"""Comparison of runs: the table, unfinished and published runs, and runs that cannot be compared."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maam.errors import TrainingError
from maam.training import read_recipe, read_runs, train
from maam.training.compare import differences, tabulate, varying_fields
from maam.training.run_dir import RunFolder
from tests.errors import error_of

DIGITS = read_recipe("digits").replaced({"epochs": 2, "batch_size": 128})
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "runs"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs that differ in the learning rate and the schedule."""
    out = tmp_path_factory.mktemp("search")
    train("maam_digits", DIGITS.replaced({"optimizer.lr": 0.2}), out=out / "high")
    train("maam_digits", DIGITS.replaced({"optimizer.lr": 1e-6, "schedule.name": "constant"}), out=out / "low")
    return out


@pytest.fixture
def runs(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "search"))


def test_table_shows_differences_and_accuracies(runs):
    found = read_runs([runs])
    assert [run.name for run in found] == ["high", "low"]  # the most accurate first
    head, rows = tabulate(found)
    results = ["epochs trained", "test accuracy", "best", "training accuracy", "minutes"]
    assert head == ["run", "optimizer.lr", "schedule.name", *results]
    assert [row[:3] for row in rows] == [["high", "0.2", "one_cycle"], ["low", "1e-06", "constant"]]
    accuracy = json.loads((runs / "high" / "results.json").read_text())["accuracy"]
    assert rows[0][-5:-3] == ["2 of 2", f"{accuracy:.2%}"]
    assert found[0].test_accuracy[-1] == pytest.approx(accuracy, abs=1e-6)  # the log has seven digits


def test_training_accuracy_is_the_mean_over_the_steps_of_an_epoch(runs):
    (run,) = read_runs([runs / "high"])
    records = [record for record in RunFolder(runs / "high").log.records() if record["kind"] == "steps"]
    steps = [np.concatenate([r["accuracies"] for r in records if r["epoch"] == epoch]) for epoch in (0, 1)]
    assert run.training_accuracy == pytest.approx([accuracies.mean() for accuracies in steps])


def test_run_is_read_up_to_its_last_complete_epoch(runs):
    log = runs / "high" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    first = next(index for index, line in enumerate(lines) if '"kind": "epoch"' in line)
    log.write_text("".join(lines[: first + 2]))  # and some steps of the second epoch
    head, rows = tabulate(read_runs([runs / "high"]))
    assert rows[0][head.index("epochs trained")] == "1 of 2"
    log.write_text(lines[0])
    assert [run.name for run in read_runs([runs])] == ["low"]
    assert "high: this run cannot be read: " in error_of(TrainingError, read_runs, [runs / "high"])
    log.write_text("".join(line for line in lines if '"epoch": 0' not in line))
    message = "high: this run cannot be read: the log of the run lacks epochs"
    assert message in error_of(TrainingError, read_runs, runs)


def test_compressed_log_of_a_published_run(runs):
    log = runs / "low" / "log.jsonl"
    log.with_name("log.jsonl.gz").write_bytes(gzip.compress(log.read_bytes()))
    expected = read_runs([runs / "low"])[0].test_accuracy
    log.unlink()
    assert np.array_equal(read_runs([runs / "low"])[0].test_accuracy, expected)


def test_folder_arguments(runs, tmp_path, monkeypatch):
    assert [run.name for run in read_runs(str(runs))] == ["high", "low"]
    shutil.copytree(runs / "high", tmp_path / "other" / "high")
    found = read_runs([runs / "high", tmp_path / "other" / "high", runs / "high"])
    assert [run.name for run in found] == [str(runs / "high"), str(tmp_path / "other" / "high")]
    monkeypatch.chdir(runs / "low")
    assert [run.name for run in read_runs(".")] == ["low"]
    assert "paths: expected at least one folder, got none; " in error_of(TrainingError, read_runs, [])


def test_presets_and_automatic_precision_are_no_differences():
    other = DIGITS.replaced({"presets": ["maam_*"], "precision": "auto", "epochs": 3})
    assert differences(DIGITS.replaced({"precision": "bf16"}), other) == [("epochs", 2, 3)]


def test_overrides_are_compared_field_by_field_and_both_frameworks_named(runs):
    (session,) = RunFolder(runs / "low").sessions()
    session["recipe"]["overrides"] = {"act_layer": "silu"}
    sessions = [session, {**session, "framework": "mindspore"}]
    (runs / "low" / "run.json").write_text(json.dumps({"sessions": sessions}))
    fields = varying_fields(read_runs(runs))
    assert [field for field in fields if field.startswith("overrides")] == ["overrides.act_layer"]
    head, rows = tabulate(read_runs(runs))
    assert [row[head.index("framework")] for row in rows] == ["torch", "torch, mindspore"]


def test_framework_is_a_column_if_runs_differ_in_it():
    name = "maam_cifar10_2m3-seed0-"
    head, rows = tabulate(read_runs([PUBLISHED / f"{name}torch", PUBLISHED / f"{name}mindspore"]))
    assert head[:2] == ["run", "framework"]
    assert [cells[:2] for cells in rows] == [[f"{name}mindspore", "mindspore"], [f"{name}torch", "torch"]]
