"""`maam demo` as a command; what it does is tested in tests/test_demonstration.py."""

from pathlib import Path

import pytest

from maam.cli import demo


@pytest.fixture
def calls(monkeypatch):
    """The calls of the demonstration, which runs nothing and agrees."""
    found = []
    monkeypatch.setattr(demo, "run", lambda out, **options: found.append((out, options)) or True)
    return found


def test_defaults(run, calls):
    assert run("demo").status == 0
    assert calls == [(Path("runs/demo"), {"epochs": 30, "seed": 0})]


def test_options(run, calls):
    assert run("demo", "--out", "there", "--epochs", 2, "--seed", 7).status == 0
    assert calls == [(Path("there"), {"epochs": 2, "seed": 7})]


def test_disagreement_is_status_1(run, monkeypatch):
    monkeypatch.setattr(demo, "run", lambda out, **options: False)
    assert run("demo").status == 1


def test_a_file_in_the_way(fails, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "file").touch()
    assert fails("demo", "--out", "file") == "file: File exists"


@pytest.mark.parametrize(("package", "extra"), [("torch", "torch"), ("sklearn", "train"), ("matplotlib", "train")])
def test_what_is_missing_is_said_at_once(fails, monkeypatch, tmp_path, package, extra):
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: None if name == package else name)
    assert fails("demo", "--out", "there") == f"{package} is not installed; run: pip install 'maam[{extra}]'"
    assert not (tmp_path / "there").exists()
