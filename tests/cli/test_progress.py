"""How far a long loop is: a bar on a terminal, a line a minute elsewhere, and nothing on standard output."""

import itertools
import re

import pytest
from rich.console import Console

from maam.cli import terminal, train


@pytest.mark.parametrize(("tick", "lines"), [(1, []), (30, ["25%", "75%"]), (90, ["0%", "25%", "50%", "75%"])])
def test_lines(tick, lines, monkeypatch, capsys):
    monkeypatch.setattr(terminal.time, "monotonic", itertools.count(0, tick).__next__)
    assert list(terminal.track("abcd", "torch", 4)) == list("abcd")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [f"torch: {line}" for line in lines]


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "Console", lambda **options: Console(**options, force_terminal=True, width=80))
    assert list(terminal.track(iter(range(4)), "torch", 4)) == [0, 1, 2, 3]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "torch" in printed.err
    assert "%" in printed.err


def test_evaluation_and_fusion_show_it(run, digits, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setattr(terminal, "SECONDS", 0.0)
    assert run("evaluate", digits, "--data", "digits").err.startswith("torch: 0%")
    options = ("--data", "digits", "--frameworks", "torch")
    assert run("fuse", digits, tmp_path / "fused.safetensors", *options).err.startswith("torch: 0%")


RECORD = {"kind": "steps", "step": 30, "losses": [2.0, 1.0], "accuracies": [0.25, 0.75], "images_per_second": 123.4}
EPOCH = {"kind": "epoch", "epoch": 0, "test_accuracy": 0.625, "test_loss": 1.25, "seconds": 7.0}


def test_training_on_a_terminal(monkeypatch, capsys):
    """A bar with loss, accuracy, images a second, steps and the time left."""
    monkeypatch.setattr(terminal, "console", lambda: Console(force_terminal=True, width=160))
    with train.Progress() as shown:
        shown.start(10, 50)
        shown.steps(RECORD)
        shown.bar.refresh()
        first = plain(capsys.readouterr().out)
        shown.epoch(EPOCH)
        shown.steps({**RECORD, "step": 40})
        shown.bar.refresh()
    then = plain(capsys.readouterr().out)
    assert re.search(r"loss 1\.5000, accuracy 50\.00%, 123 images/s .*30/50 (\d:\d\d:\d\d|-:--:--)", first), first
    assert "epoch 1: test accuracy 62.50%, test loss 1.2500, 7 s" in then
    assert re.search(r"accuracy 50\.00% \(test 62\.50%\), 123 images/s .*40/50 ", then), then


def test_training_elsewhere(monkeypatch, capsys):
    """Lines, with the time left at the rate so far: 20 steps in 100 seconds, 20 steps to go."""
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


def plain(text):
    """A terminal's output without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
