"""The contract of all commands: help, one line for an error, exit status, no traceback, harmless text; processes."""

import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.table import Table

import maam
from maam import spec
from maam._messages import printable
from maam.cli import models
from maam.cli.app import COMMANDS
from maam.cli.terminal import console
from maam.errors import MissingFrameworkError
from maam.reference import build, save_weights
from tests.cli.conftest import process

FULL = "CPUAllocator: can't allocate memory"
USAGES = ["nonsense", "info", "info maam_digits --nonsense", "convert a.safetensors", "data cifar10"]
INVALID = [f"info maam_digits {option}" for option in ("--size 0", "--size big", "--depth -1")]
INVALID += [f"parity maam_digits --{o}" for o in ("batch-size 1", "batch-size 1000000000", "steps 1", "seed -1")]
INVALID += ["demo --epochs 0", "quantize a.safetensors b.onnx --data digits --images 63"]
"""Command lines whose last option has an invalid value."""
ESCAPES = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202eleft"
SAFE = r"\x1b[2J\x1b]0;title\x07\r\x9b31m\u202eleft"
UNSAFE = ("\x1b", "\x07", "\r", "\x9b", "\u202e")
RUBBISH = ('{"kind": "epoch", "step": 1}', '{"kind": "steps", "step": 1, "losses": 3}', "\0" * 50)


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in COMMANDS)], ids=" ".join)
def test_help(run, arguments):
    result = run(*arguments)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("Usage: maam ")
    assert not [line for line in result.out.splitlines()[1:] if line.endswith("...")]  # no text is cut short


def test_help_lists_every_command_with_its_whole_summary(run, monkeypatch):
    lines = [line.split(maxsplit=1) for line in run("--help").out.splitlines()]
    assert lines[-len(COMMANDS) :] == [[name, entry.summary] for name, entry in COMMANDS.items()]
    monkeypatch.setenv("COLUMNS", "50")
    words = " ".join(run("--help").out.split())
    assert all(entry.summary in words for entry in COMMANDS.values())


def test_version_and_unknown_command(run):
    assert run("--version") == (0, f"maam {maam.__version__}\n", "")
    message = run("trai").err
    assert "No such command 'trai'." in message
    assert "Did you mean 'train'?" in message or version("typer").startswith("0.15.")  # which has no suggestions


@pytest.mark.parametrize("line", [*USAGES, *INVALID])
def test_wrong_usage_ends_with_status_2(run, line):
    result = run(*line.split())
    assert (result.status, result.out) == (2, "")
    assert ("Error: " if line in USAGES else f"Error: Invalid value for '{line.split()[-2]}'") in result.err
    assert "Traceback" not in result.err


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

    def interrupt(name, path=None, target=None):
        if name == "maam.cli.app":
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "maam.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Mock(find_spec=interrupt), *sys.meta_path])
    assert run("list") == (130, "", "")


def test_unexpected_error_keeps_its_traceback(run, monkeypatch):
    monkeypatch.setattr(models, "list_presets", lambda pattern: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("list")


def test_process():
    status, out, error = process(sys.executable, "-m", "maam", "list", "maam_*")
    assert (status, error) == (0, "")
    assert "maam_digits" in out
    status, out, error = process(sys.executable, "-m", "maam", "info", "maam_digit")
    assert (status, out, error.count("\n")) == (1, "", 1)
    assert error.startswith("maam: no preset 'maam_digit'; did you mean 'maam_digits' ")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("line", ["list cnn >&-", "list cnn 2>&-", "list cnn >&- 2>&- <&-", "info cnn --json | :"])
def test_closed_streams_and_pipes(line):
    status, _, error = process("sh", "-c", f"{sys.executable} -m maam {line}")
    assert (status, error) == (0, "")


def test_printable():
    assert printable(ESCAPES) == SAFE
    assert printable("two\n\tlines \u00e4\u732b \udcff") == "two\n\tlines \u00e4\u732b \\udcff"
    assert printable(SAFE) == SAFE


def test_texts_have_no_markup(capsys):
    table = Table("[/x]")
    table.add_row("[red]a[/] :cat:")
    console().print("[/y] [red]b[/]", table)
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[/x]", "[red]a[/] :cat:", "[/y] [red]b[/]"))


def check(result):
    assert not [char for char in UNSAFE if char in result.out + result.err]
    return result


@pytest.mark.parametrize(
    "command", ["info {}", "parity {} --stages lattice --frameworks torch", "prune {} p.safetensors --channels 0.5"]
)
def test_names_of_models(run, command):
    """The name of a network controls a terminal."""
    pytest.importorskip("torch")
    node = spec.preset("maam_digits", channels=4, hidden_channels=2, hidden_features=8).replace(name=f"net{ESCAPES}")
    save_weights(build(node, seed=0), "named.safetensors")
    found = check(run(*command.format("named.safetensors").split()))
    assert r"net\x1b[2J\x1b]0;title\x07" in found.out or command != "info {}"


def test_names_of_files(run):
    path = f"w{ESCAPES}.safetensors"
    for command in (("info", path), ("evaluate", path, "--data", "digits"), ("export", path)):
        assert check(run(*command)).status != 0
    assert SAFE.partition("\\r")[0] in check(run("info", path)).err  # white space of messages is one blank
    assert check(run("list", ESCAPES)).err.startswith("maam: no preset matches")


def test_descriptions_of_runs(run, finished):
    """A line of rubbish in the log of one run does not stop the others."""
    for name in ("good", "bad"):
        shutil.copytree(finished, Path("runs", name))
    description, log = Path("runs/bad/run.json"), Path("runs/bad/log.jsonl")
    document = json.loads(description.read_text())
    document["sessions"][-1]["framework"] = f"torch{ESCAPES}"
    document["sessions"][-1]["recipe"]["overrides"] = {"act_layer": ESCAPES}
    description.write_text(json.dumps(document))
    whole = log.read_text()
    epochs = [line for line in whole.splitlines() if '"kind": "epoch"' in line]
    for content in (whole, *("\n".join([line, *epochs]) for line in RUBBISH)):
        log.write_text(content)
        result = check(run("runs", "runs"))
        assert (result.status, "good" in result.out) == (0, True), content


def test_long_messages_are_cut(run):
    result = run("info", "x" * 4000 + ".json")
    assert result.status == 1
    assert len(result.err) < 2000
