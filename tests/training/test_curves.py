"""What the log of a run says: odd lines in it, runs of several sessions, averaged weights."""

import json

import numpy as np
import pytest

from maam.errors import TrainingError
from maam.training import read_runs, train
from maam.training.report import read_curves
from maam.training.run_dir import Log, RunFolder
from maam.weights import read_weights

STEPS = {"kind": "steps", "step": 2, "epoch": 0, "losses": [2.0, 1.0], "accuracies": [0.25, 0.75], "seconds": 4.0}
STEPS |= {"images_per_second": 32.0, "waiting": 0.0}
EPOCH = {"kind": "epoch", "step": 2, "epoch": 0, "test_loss": 1.5, "test_accuracy": 0.5}
ODD = [
    "{}",
    '{"note": 1}',
    '{"kind": "steps", "step": null}',
    '{"kind": null, "step": 1}',
    "[1]",
    "null",
    "[" * 200_000,
]


def test_curves():
    found = read_curves([STEPS, EPOCH, {**STEPS, "step": 4, "epoch": 1}], 64)
    assert found.means(found.loss).tolist() == [1.5]  # an epoch that is not over does not count
    assert found.means(found.accuracy).tolist() == [0.5]
    assert found.minutes.tolist() == [4 / 60]
    assert found.epochs.tolist() == [0]


def test_a_log_of_old_has_speeds_alone():
    old = {name: value for name, value in STEPS.items() if name != "seconds"}
    assert read_curves([old, EPOCH], 64).minutes.tolist() == [2 * 64 / 32 / 60]


def test_epochs_that_were_lost():
    later = [{**STEPS, "epoch": 3}, {**EPOCH, "epoch": 3}]
    found = read_curves([{**EPOCH, "epoch": 1}, *later], 64)
    assert found.epochs.tolist() == [3]
    with pytest.raises(TrainingError, match="lacks epochs: lines of it were lost"):
        found.check_whole()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**EPOCH, "test_accuracy": None}, "an accuracy that is no number"),
        ({**EPOCH, "test_accuracy": float("nan")}, "an accuracy that is no number"),
        ({**EPOCH, "test_accuracy": "high"}, "a broken record: ValueError"),
        ({"kind": "epoch", "step": 2, "epoch": 0}, "a broken record: KeyError: 'test_loss'"),
        ({**STEPS, "losses": 1.0}, "a broken record: TypeError"),
        ({**STEPS, "losses": [], "accuracies": []}, "a broken record: ZeroDivisionError"),
        ({**STEPS, "losses": [1.0]}, "a broken record: ValueError: as many losses as accuracies"),
        ({**STEPS, "seconds": "long"}, "a broken record: ValueError"),
        ({**STEPS, "epoch": None}, "a broken record: TypeError"),
    ],
)
def test_broken_records(record, message):
    with pytest.raises(TrainingError, match=message):
        read_curves([STEPS, EPOCH, record], 64)


def test_lines_of_others_in_a_log(recipe, tmp_path, stop):
    """They are left out, and gone when the run goes on."""
    out = tmp_path / "run"
    stop("maam_digits", recipe.replaced({"epochs": 1}), out=out, at=8, log_steps=1, checkpoint_steps=4)
    with (out / "log.jsonl").open("a") as file:
        file.write("\n".join(ODD) + "\n")
    run = train("maam_digits", recipe.replaced({"epochs": 1}), out=out, resume=True)
    assert (out / "results.json").exists()
    assert {type(record["step"]) for record in run.log.records()} == {int}
    Log(out / "odd.jsonl").path.write_text("\n".join(ODD))
    assert Log(out / "odd.jsonl").records() == []


def test_the_time_of_an_interrupted_epoch(recipe, tmp_path, stop):
    recipe, out = recipe.replaced({"epochs": 1}), tmp_path / "run"
    stop("maam_digits", recipe, out=out, at=8, log_steps=1, checkpoint_steps=4)
    before = sum(record["seconds"] for record in RunFolder(out).log.records()[:4])
    run = train("maam_digits", recipe, out=out, resume=True, log_steps=1, checkpoint_steps=4)
    records = run.log.records()
    steps = [record["seconds"] for record in records if record["kind"] == "steps"]
    assert len(steps) == 11
    assert sum(steps[:4]) == pytest.approx(before)
    assert records[-1]["seconds"] == pytest.approx(sum(steps), rel=1e-5)
    results = json.loads((out / "results.json").read_text())
    assert results["minutes"] == pytest.approx(sum(steps) / 60)
    assert read_runs(out)[0].minutes == pytest.approx(sum(steps) / 60)


def test_fusion_weights_are_those_of_the_averaged_model(done):
    _, arrays = read_weights(done.final)
    ((name, found),) = done.log.records()[-1]["fusion"].items()
    powers = np.exp(arrays[name].astype(np.float64))
    assert found == pytest.approx(powers / powers.sum(), rel=1e-5)
