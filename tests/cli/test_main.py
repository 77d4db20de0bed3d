"""The contract of all commands: help, one line for an error, exit status and no traceback; and real processes."""

import subprocess
import sys
from unittest.mock import Mock

import pytest

import maam
from maam.cli import models
from maam.cli.app import COMMANDS
from maam.errors import MissingFrameworkError


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in COMMANDS)], ids=" ".join)
def test_help(run, arguments):
    result = run(*arguments)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("Usage: maam ")
    assert not [line for line in result.out.splitlines()[1:] if line.endswith("...")]  # no text is cut short


def test_help_lists_every_command_with_its_summary(run):
    lines = run("--help").out.splitlines()
    assert [line.split()[0] for line in lines[-len(COMMANDS) :]] == list(COMMANDS)
    for name, entry in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, entry.summary] for line in lines)


def test_summaries_are_whole_on_narrow_terminals(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    words = " ".join(run("--help").out.split())
    assert all(entry.summary in words for entry in COMMANDS.values())


def test_version_and_unknown_command(run):
    assert run("--version") == (0, f"maam {maam.__version__}\n", "")
    assert "No such command 'trai'. Did you mean 'train'?" in run("trai").err


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "info",
        "info maam_digits --nonsense",
        "info maam_digits --size 0",
        "info maam_digits --size big",
        "info maam_digits --depth -1",
        "parity maam_digits --batch-size 1",
        "parity maam_digits --batch-size 1000000000",
        "parity maam_digits --steps 1",
        "parity maam_digits --seed -1",
        "convert a.safetensors",
        "data cifar10",
        "demo --epochs 0",
    ],
)
def test_wrong_usage_ends_with_status_2(run, line):
    result = run(*line.split())
    assert (result.status, result.out) == (2, "")
    assert "Error: " in result.err
    assert "Traceback" not in result.err


FULL = "CPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MissingFrameworkError("x is not installed; run: pip install 'maam[x]'"), None),
        (OSError(28, "No space left on device", "a file"), "a file: No space left on device"),
        (PermissionError(13, "Permission denied", "a file"), "a file: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("without a number"), "without a number"),
        (MemoryError("Unable to allocate 1 PiB"), "not enough memory: Unable to allocate 1 PiB"),
        (RuntimeError(f"Default{FULL}"), f"not enough memory; try a smaller batch_size: Default{FULL}"),
    ],
    ids=repr,
)
def test_errors_are_one_line(fails, monkeypatch, error, message):
    monkeypatch.setattr(models, "list_presets", Mock(side_effect=error))
    assert fails("list") == (message or str(error))


def test_interrupt_ends_with_status_130_and_no_traceback(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(models, "list_presets", Mock(side_effect=KeyboardInterrupt))
        result = run("list")
    assert result.status == 130
    assert "Traceback" not in result.err

    class Interrupting:
        def find_spec(self, name, path=None, target=None):
            if name == "maam.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "maam.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert run("list") == (130, "", "")


def test_unexpected_error_keeps_its_traceback(run, monkeypatch):
    monkeypatch.setattr(models, "list_presets", lambda pattern: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("list")


def process(*arguments):
    command = [sys.executable, "-m", "maam", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def test_process():
    status, out, error = process("list", "maam_*")
    assert (status, error) == (0, "")
    assert "maam_digits" in out
    status, out, error = process("info", "maam_digit")
    assert (status, out, error.count("\n")) == (1, "", 1)
    assert error.startswith("maam: no preset 'maam_digit'; did you mean 'maam_digits' ")


def test_closed_pipe():
    command = [sys.executable, "-m", "maam", "info", "maam_digits", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.close()
        error = running.stderr.read()
    assert "Traceback" not in error
