"""`maam train`, its progress bar, `maam runs` and `maam data`."""

import importlib.util
import itertools
import re
import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.console import Console

from maam.cli import terminal, train
from maam.cli.options import changes
from maam.training import default_recipe
from maam.training.run_dir import RunFolder

for package in ("torch", "sklearn", "matplotlib"):
    pytest.importorskip(package)

SHORT = ("--epochs", "1", "-o", "batch_size=128", "-o", "optimizer.lr=0.05")
RUN = RunFolder("run")
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "runs"
RECORD = {"kind": "steps", "step": 30, "losses": [2.0, 1.0], "accuracies": [0.25, 0.75], "images_per_second": 123.4}
EPOCH = {"kind": "epoch", "epoch": 0, "split": "test", "test_accuracy": 0.625, "test_loss": 1.25, "seconds": 7.0}


def test_train_and_resume(fails, succeeds):
    """Resumption and evaluation take what is left out from the run."""
    options = ("--epochs", "1", "--batch-size", "128", "--lr", "0.05")
    result = succeeds("train", "maam_digits", *options, "--out", "run")
    assert result.out.startswith("epoch 1: test accuracy ")
    assert result.out.endswith("run: report.md, final.safetensors, best.safetensors\n")
    (session,) = RUN.sessions()
    assert session["recipe"]["optimizer"]["lr"] == 0.05
    assert session["command"].startswith("maam train maam_digits --epochs 1")
    assert [record["kind"] for record in RUN.log.records()] == ["start", "steps", "epoch"]
    before = RUN.final.read_bytes()
    for given in (("maam_digits", *SHORT), ()):
        succeeds("train", *given, "--out", "run", "--resume")
        assert RUN.final.read_bytes() == before
    result = succeeds("train", "--resume", "--out", "run", "--epochs", 2)
    assert "epochs: 1 before, 2 now; the schedule (one_cycle) now spans all 2 epochs, so the learning" in result.out
    assert [record["epoch"] for record in RUN.log.records() if record["kind"] == "epoch"] == [0, 1]
    assert RUN.final.read_bytes() != before
    assert "| epochs | 2 (1 at first) |" in Path("run/report.md").read_text()
    message = fails("train", "--resume", "--out", "run", "--epochs", 1)
    assert "epochs: this run was started with 2, not 1; resume it with more epochs or the same number" in message
    assert succeeds("evaluate", "run").rows == succeeds("evaluate", "run", "--data", "digits").rows


def test_limits_and_estimate(succeeds, monkeypatch):
    monkeypatch.setattr(terminal, "SECONDS", 0.0)
    options = ("--limit", "300", "--max-steps", "6", "--batch-size", "128", "--out", "run")
    result = succeeds("train", "maam_digits", *options)
    assert re.search(r"about 0:00:\d\d for 6 steps, including the evaluation after each epoch\n", result.out)
    (session,) = RUN.sessions()
    assert (session["recipe"]["limit"], session["recipe"]["max_steps"]) == (300, 6)
    assert [r["epoch"] for r in RUN.log.records() if r["kind"] == "epoch"] == [0, 1, 2]


def test_validation_images(succeeds):
    options = ("--batch-size", 300, "--epochs", 1, "-o", "validation=200")
    out = succeeds("train", "maam_digits", *options, "--out", "run").out
    assert re.search(r"epoch 1: validation accuracy [\d.]+%, validation loss", out)
    (session,) = RUN.sessions()
    assert [session["data"][split]["images"] for split in ("train", "test")] == [1238, 200]
    assert RUN.log.records()[-1]["step"] == 1238 // 300
    assert "| validation images | 200 |" in Path("run/report.md").read_text()
    assert "validation accuracy" in succeeds("runs", "run").out


def test_curves_for_tensorboard(succeeds, fails, monkeypatch, tmp_path):
    """A recorder in place of the package: each step has its loss, each epoch its test accuracy."""
    options = ("train", "maam_digits", *SHORT, "--out", "run", "--tensorboard")
    if importlib.util.find_spec("tensorboard") is None:
        assert fails(*options) == "tensorboard is not installed; run: pip install 'maam[tensorboard]'"
        assert not (tmp_path / "run").exists()
    writer, written = Mock(), {}
    writer.add_scalar = lambda name, value, step: written.setdefault(name, {}).update({step: value})
    opened = Mock(return_value=writer)
    monkeypatch.setattr("maam.training.tensorboard.require", lambda *_: None)
    monkeypatch.setitem(sys.modules, "tensorboard", Mock())
    monkeypatch.setitem(sys.modules, "tensorboard.summary", Mock(Writer=opened))
    assert "epoch 1: test accuracy" in succeeds(*options).out
    opened.assert_called_once_with("run/tensorboard")
    _, steps, epoch = RUN.log.records()
    assert list(written["train/loss"]) == list(written["train/accuracy"]) == list(range(1, 12))
    assert list(written["train/loss"].values()) == pytest.approx(steps["losses"], rel=1e-6)
    assert written["test/accuracy"] == {11: pytest.approx(epoch["test_accuracy"], rel=1e-6)}
    assert [name for name in written if name.startswith("fusion")] == [f"fusion/agents.alpha/{i}" for i in range(3)]
    writer.flush.assert_called()


def test_interrupt_shows_how_to_resume(run, succeeds, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train.Progress, "epoch", Mock(side_effect=KeyboardInterrupt))
        result = run("train", "maam_digits", *SHORT, "--out", "run")
    assert result.status == 130
    assert result.err == "maam: interrupted; run the same command with --resume to continue from the last checkpoint\n"
    succeeds("train", "maam_digits", *SHORT, "--out", "run", "--resume")


def test_option_and_override_of_a_table_are_merged():
    changed = changes({"optimizer.lr": 0.5, "epochs": 1}, ["optimizer={name='adamw'}", "epochs=1"])
    recipe = default_recipe("maam_digits").replaced(changed)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.epochs) == ("adamw", 0.5, 1)
    assert changes({"optimizer.lr": 1.0}, ["optimizer.lr=1"]) == {"optimizer.lr": 1.0}


def test_train_with_a_recipe_file(succeeds):
    Path("mine.toml").write_text('model = "maam_digits"\ndata = "digits"\nepochs = 1\nbatch_size = 256\n')
    succeeds("train", "--recipe", "mine.toml")
    assert Path("runs/maam_digits/report.md").exists()


def test_train_from_weights(succeeds, finished):
    succeeds("train", "maam_digits", *SHORT, "--weights", finished, "--out", "on")
    (session,) = RunFolder("on").sessions()
    assert session["recipe"]["weights"] == str(finished)
    losses = [RunFolder(folder).log.records()[1]["losses"][0] for folder in (finished, "on")]
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize(("tick", "lines"), [(1, []), (30, ["25%", "75%"]), (90, ["0%", "25%", "50%", "75%"])])
def test_progress_lines(tick, lines, monkeypatch, capsys):
    monkeypatch.setattr(terminal.time, "monotonic", itertools.count(0, tick).__next__)
    assert list(terminal.track("abcd", "torch", 4)) == list("abcd")
    assert capsys.readouterr() == ("", "".join(f"torch: {line}\n" for line in lines))


def test_progress_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(
        terminal, "SafeConsole", lambda **options: Console(**{**options, "width": 80}, force_terminal=True)
    )
    assert list(terminal.track(iter(range(4)), "torch", 4)) == [0, 1, 2, 3]
    out, error = capsys.readouterr()
    assert (out, "torch" in error, "%" in error) == ("", True, True)


def test_training_on_a_terminal(monkeypatch, capsys):
    def printed():
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)

    monkeypatch.setattr(terminal, "console", lambda: Console(force_terminal=True, width=160))
    with train.Progress() as shown:
        shown.start(10, 50)
        shown.steps(RECORD)
        shown.bar.refresh()
        first = printed()
        shown.epoch(EPOCH)
        shown.steps({**RECORD, "step": 40})
        shown.bar.refresh()
    then = printed()
    assert re.search(r"loss 1\.5000, accuracy 50\.00%, 123 images/s .*30/50 (\d:\d\d:\d\d|-:--:--)", first), first
    assert "epoch 1: test accuracy 62.50%, test loss 1.2500, 7 s" in then
    assert re.search(r"accuracy 50\.00% \(test 62\.50%\), 123 images/s .*40/50 ", then), then


def test_training_without_a_terminal(monkeypatch, capsys):
    """The time left follows from the speed so far: 20 steps in 100 seconds, and 20 steps are left."""
    clock = iter([0.0] * 2 + [100.0] * 3)
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock, 100.0))
    monkeypatch.setattr(terminal, "SECONDS", 5.0)
    shown = train.Progress()
    shown.start(10, 50)
    shown.steps(RECORD)
    shown.epoch(EPOCH)
    assert capsys.readouterr().out.splitlines() == [
        "step 30: loss 1.5000, accuracy 50.00%, 123 images/s, 0:01:40 left",
        "epoch 1: test accuracy 62.50%, test loss 1.2500, 7 s",
    ]


@pytest.fixture
def runs(tmp_path):
    for name in ("mlp-seed0-torch", "cnn-seed0-torch"):
        shutil.copytree(PUBLISHED / name, tmp_path / "runs" / name)
    return Path("runs")


def test_runs_writes_table_and_picture(succeeds, runs):
    result = succeeds("runs", runs, "--out", "search.md")
    text = Path("search.md").read_text()
    for words in ("model", "cnn", "mlp", "30 of 30", "80.38%", "45.71%"):
        assert words in result.out
        assert words in text
    assert text.index("cnn-seed0") < text.index("mlp-seed0")
    assert "![accuracy by epoch](search.png)" in text
    succeeds("runs", runs, "--out", "my search.md")
    assert "![accuracy by epoch](my%20search.png)" in Path("my search.md").read_text()
    assert Path("search.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_different_models_fit_120_columns(succeeds, runs, monkeypatch):
    fields = [f"optimizer.field_with_a_long_name_{index}" for index in range(6)]
    monkeypatch.setattr("maam.training.compare.varying_fields", lambda found: ["model", "optimizer.lr", *fields])
    monkeypatch.setattr(terminal, "_WIDTH_OF_FILES", 120)
    result = succeeds("runs")  # those in the folder runs
    assert max(map(len, result.out.splitlines())) <= 120
    assert "model cnn" in result.out
    assert "80.38%" in result.out


def test_data(succeeds, monkeypatch):
    """tests/data/test_archives.py tests downloads, and test_refusals.py the errors."""
    monkeypatch.setattr(train, "download", lambda name, root: root / f"{name} of the authors")
    assert succeeds("data", "cifar10", "sets") == (0, "sets/cifar10 of the authors: ready\n", "")
