"""How far a long loop is: a bar on a terminal, a line a minute elsewhere, and nothing on standard output."""

import itertools

import pytest
from rich.console import Console

from maam.cli import consoles


@pytest.mark.parametrize(("tick", "lines"), [(1, []), (30, ["25%", "75%"]), (90, ["0%", "25%", "50%", "75%"])])
def test_lines(tick, lines, monkeypatch, capsys):
    monkeypatch.setattr(consoles.time, "monotonic", itertools.count(0, tick).__next__)
    assert list(consoles.track("abcd", "torch", 4)) == list("abcd")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [f"torch: {line}" for line in lines]


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(consoles, "Console", lambda **options: Console(**options, force_terminal=True, width=80))
    assert list(consoles.track(iter(range(4)), "torch", 4)) == [0, 1, 2, 3]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "torch" in printed.err
    assert "%" in printed.err


def test_evaluation_and_fusion_show_it(run, digits, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setattr(consoles, "SECONDS", 0.0)
    assert run("evaluate", digits, "--data", "digits").err.startswith("torch: 0%")
    options = ("--data", "digits", "--frameworks", "torch")
    assert run("fuse", digits, tmp_path / "fused.safetensors", *options).err.startswith("torch: 0%")
