"""Figures of an evaluation, curves of a log, the report of a run, and the comparison of runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maam import spec
from maam.errors import DataError, DeviceError, TrainingError
from maam.training import default_recipe, evaluate_file, read_recipe, read_runs, train
from maam.training.compare import differences, render_runs, tabulate, varying_fields
from maam.training.evaluate import Evaluation, evaluate
from maam.training.report import read_curves
from maam.training.run_dir import RunFolder
from maam.training.sources import open_source
from maam.weights import read_weights
from tests.errors import error_of
from tests.training.conftest import stop

STEPS = {"kind": "steps", "step": 2, "epoch": 0, "losses": [2.0, 1.0], "accuracies": [0.25, 0.75], "seconds": 4.0}
STEPS |= {"images_per_second": 32.0, "waiting": 0.0}
EPOCH = {"kind": "epoch", "step": 2, "epoch": 0, "test_loss": 1.5, "test_accuracy": 0.5}
DIGITS = read_recipe("digits").replaced({"epochs": 2, "batch_size": 128})
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "runs"


def test_top_counts():
    """Equal logits count in the order of the classes; NaN is never correct."""
    found = Evaluation(np.float32([[3, 1, 2], [1, 3, 2]]), np.int32([2, 0]))
    assert [found.top(count) for count in (1, 2, 3)] == [0, 0.5, 1]
    constant = Evaluation(np.zeros((10, 10), np.float32), np.arange(10, dtype=np.int32))
    assert [constant.top(count) for count in (1, 5, 10)] == [constant.accuracy, 0.5, 1]
    assert constant.accuracy == 0.1
    assert Evaluation(np.full((2, 10), np.nan, np.float32), np.int32([1, 2])).top(5) == 0


def test_mirror_images_are_averaged_beside_the_plain_figures():
    """The left column of pixels has the logits; the mirror image corrects the first of two images."""
    images = np.float32([[[[1, 4], [2, 0]]], [[[3, 0], [1, 0]]]])  # (2, 1, 2, 2)
    plain, both = (evaluate(lambda x: x[:, 0, :, 0], [(images, np.int32([0, 0]))], one) for one in (False, True))
    assert (plain.accuracy, plain.mirrored_accuracy) == (0.5, None)
    assert (both.accuracy, both.mirrored_accuracy, both.loss) == (0.5, 1.0, plain.loss)
    np.testing.assert_array_equal(both.mirrored, [[2.5, 1], [1.5, 0.5]])


def test_more_processes_than_images_to_evaluate_on():
    with pytest.raises(DataError, match=r"^359 images to evaluate on, but 1000 processes; start fewer processes$"):
        open_source(default_recipe("maam_digits"), None, spec.preset("maam_digits"), share=(0, 1000))


def test_reference_runs_on_the_cpu_only(done):
    with pytest.raises(DeviceError, match="device 'cuda': framework 'reference' supports the CPU only"):
        evaluate_file(done.path, "digits", framework="reference", device="cuda")
    assert len(evaluate_file(done.path, "digits", framework="reference", device="cpu", limit=3).labels) == 3


def test_curves_and_lost_epochs():
    found = read_curves([STEPS, EPOCH, {**STEPS, "step": 4, "epoch": 1}], 64)
    assert found.epochs.tolist() == [0]  # the unfinished epoch does not count
    assert (found.means(found.loss), found.means(found.accuracy), found.minutes) == ([1.5], [0.5], [4 / 60])
    earlier = {name: value for name, value in STEPS.items() if name != "seconds"}  # as earlier versions wrote it
    assert read_curves([earlier, EPOCH], 64).minutes.tolist() == [2 * 64 / 32 / 60]
    found = read_curves([{**EPOCH, "epoch": 1}, {**STEPS, "epoch": 3}, {**EPOCH, "epoch": 3}], 64)
    assert found.epochs.tolist() == [3]
    assert "lacks epochs, because lines of it were lost" in error_of(TrainingError, found.check_complete)


def test_broken_records():
    for record, message in [
        *(({**EPOCH, "test_accuracy": wrong}, "an accuracy that is not a number") for wrong in (None, float("nan"))),
        ({**EPOCH, "test_accuracy": "high"}, "a broken record: ValueError"),
        ({"kind": "epoch", "step": 2, "epoch": 0}, "a broken record: KeyError: 'test_loss'"),
        ({**STEPS, "losses": 1.0}, "a broken record: TypeError"),
        ({**STEPS, "losses": [], "accuracies": []}, "a broken record: ZeroDivisionError"),
        ({**STEPS, "losses": [1.0]}, "a broken record: ValueError: expected as many losses as accuracies"),
        ({**STEPS, "seconds": "long"}, "a broken record: ValueError"),
        ({**STEPS, "epoch": None}, "a broken record: TypeError"),
    ]:
        assert message in error_of(TrainingError, read_curves, [STEPS, EPOCH, record], 64)


def test_time_of_an_interrupted_epoch(short, tmp_path):
    out = tmp_path / "run"
    stop(short, out, at=8)
    before = sum(record["seconds"] for record in RunFolder(out).log.records()[1:5])
    records = train("maam_digits", short, out=out, resume=True, log_steps=1).log.records()
    steps = [record["seconds"] for record in records if record["kind"] == "steps"]
    assert len(steps) == 11
    assert sum(steps[:4]) == pytest.approx(before)
    assert records[-1]["seconds"] == pytest.approx(sum(steps), rel=1e-5)
    results = json.loads((out / "results.json").read_text())
    assert results["minutes"] == pytest.approx(sum(steps) / 60)
    assert read_runs(out)[0].minutes == pytest.approx(sum(steps) / 60)


def test_figures_follow_their_definitions(done):
    found = evaluate_file(done.path, "digits", framework="torch")
    counts = np.zeros((10, 10))  # [label, prediction]
    np.add.at(counts, (found.labels, found.predictions), 1)
    right, predicted, present = np.diag(counts), counts.sum(0), counts.sum(1)
    expected = {"precision": right / np.maximum(predicted, 1), "recall": right / present}
    expected |= {"f1": 2 * right / (predicted + present), "accuracy": right.sum() / counts.sum()}
    expected = {name: value.mean() for name, value in expected.items()}
    results = json.loads((done.path / "results.json").read_text())
    assert {name: results[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    report = (done.path / "report.md").read_text()
    assert f"| accuracy, last epoch | {expected['accuracy']:.2%} |" in report
    for name, title in (("f1", "macro F1"), ("precision", "macro precision"), ("recall", "macro recall")):
        assert f"| {title} | {expected[name]:.4f} |" in report


@pytest.mark.slow
def test_report_names_each_session_once(short, done, monkeypatch):
    pytest.importorskip("mindspore")
    for framework in ("torch", "mindspore", "mindspore"):
        monkeypatch.setattr("maam.training.run.command_line", lambda name=framework: f"maam train on {name}")
        train("maam_digits", short, out=done.path, framework=framework, resume=True)
    lines = (done.path / "report.md").read_text().splitlines()
    commands = [line.removeprefix("Command: `maam train on ") for line in lines if line.startswith("Command")]
    assert commands[1:] == ["torch`", "mindspore`"]
    assert [line.split(" on ")[0] for line in lines if " on cpu; " in line] == ["torch", "torch", "mindspore"]


def test_undecodable_bytes_in_names_are_escaped(short, tmp_path, monkeypatch):
    monkeypatch.setattr("maam.training.run.command_line", lambda: "maam train --out \udcff")
    run = train("maam_digits", short, out=tmp_path / "run\udcff")
    assert "--out \\udcff`" in (run.path / "report.md").read_text()
    render_runs(read_runs(run.path), tmp_path / "runs.md")
    assert "run\\udcff" in (tmp_path / "runs.md").read_text()


def test_description_and_report(done):
    (session,) = done.sessions()
    assert session["recipe"]["precision"] == "fp32"
    assert session["environment"]["torch"]
    report = (done.path / "report.md").read_text()
    for part in ("accuracy, last epoch", "macro F1", "waiting for data", "Command: ", "](fusion.png)"):
        assert part in report
    fields = json.loads(report.split("```json\n")[1].split("```")[0])  # only those that acted
    assert fields["schedule"] == {"name": "one_cycle", "warmup": 0.3, "start": 0.04}
    assert fields["optimizer"].keys() >= {"name", "lr", "momentum"}
    assert fields.keys() >= {"augmentation", "ema_decay", "clip_norm"}
    assert not fields.keys() & {"images", "presets", "weights", "overrides"}
    assert not fields["optimizer"].keys() & {"beta1", "beta2", "betas", "eps"}
    node, arrays = read_weights(done.final)
    assert node == read_weights(done.best)[0] == spec.preset("maam_digits")
    ((name, found),) = done.log.records()[-1]["fusion"].items()
    assert done.log.records()[0] == {"kind": "start", "step": 0, "fusion": {name: pytest.approx([1 / 3] * 3)}}
    powers = np.exp(arrays[name].astype(np.float64))
    assert found == pytest.approx(powers / powers.sum(), rel=1e-5)  # of the averaged model


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


class TestComparison:
    def test_table_shows_differences_and_accuracies(self, runs):
        found = read_runs([runs])
        assert [run.name for run in found] == ["high", "low"]  # the most accurate first
        head, rows = tabulate(found)
        results = ["epochs trained", "test accuracy", "best", "training accuracy", "minutes"]
        assert head == ["run", "optimizer.lr", "schedule.name", *results]
        assert [row[:3] for row in rows] == [["high", "0.2", "one_cycle"], ["low", "1e-06", "constant"]]
        accuracy = json.loads((runs / "high" / "results.json").read_text())["accuracy"]
        assert rows[0][-5:-3] == ["2 of 2", f"{accuracy:.2%}"]
        assert found[0].test_accuracy[-1] == pytest.approx(accuracy, abs=1e-6)  # the log has seven digits
        records = [one for one in RunFolder(runs / "high").log.records() if one["kind"] == "steps"]
        steps = [np.concatenate([r["accuracies"] for r in records if r["epoch"] == epoch]) for epoch in (0, 1)]
        assert found[0].training_accuracy == pytest.approx([accuracies.mean() for accuracies in steps])

    def test_run_is_read_up_to_its_last_complete_epoch(self, runs):
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

    def test_folder_arguments(self, runs, tmp_path, monkeypatch):
        assert [run.name for run in read_runs(str(runs))] == ["high", "low"]
        other = shutil.copytree(runs / "high", tmp_path / "other" / "high")
        assert [run.name for run in read_runs([runs / "high", other, runs / "high"])] == [
            str(runs / "high"),
            str(other),
        ]
        monkeypatch.chdir(runs / "low")
        assert [run.name for run in read_runs(".")] == ["low"]
        assert "paths: expected at least one folder, got none; " in error_of(TrainingError, read_runs, [])

    def test_fields_that_differ(self, runs):
        """Presets and automatic precision are no differences; overrides are compared field by field."""
        other = DIGITS.replaced({"presets": ["maam_*"], "precision": "auto", "epochs": 3})
        assert differences(DIGITS.replaced({"precision": "bf16"}), other) == [("epochs", 2, 3)]
        (session,) = RunFolder(runs / "low").sessions()
        session["recipe"]["overrides"] = {"act_layer": "silu"}
        sessions = [session, {**session, "framework": "mindspore"}]
        (runs / "low" / "run.json").write_text(json.dumps({"sessions": sessions}))
        fields = varying_fields(read_runs(runs))
        assert [field for field in fields if field.startswith("overrides")] == ["overrides.act_layer"]
        head, rows = tabulate(read_runs(runs))
        assert [row[head.index("framework")] for row in rows] == ["torch", "torch, mindspore"]
        names = [f"maam_cifar10_2m3-seed0-{framework}" for framework in ("mindspore", "torch")]
        head, rows = tabulate(read_runs([PUBLISHED / name for name in reversed(names)]))
        assert head[:2] == ["run", "framework"]
        assert [cells[:2] for cells in rows] == [[names[0], "mindspore"], [names[1], "torch"]]
