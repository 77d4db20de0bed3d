"""Text from files cannot control the terminal; closed streams and long messages."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from rich.table import Table

from maam import spec
from maam._messages import printable
from maam.cli.terminal import console
from maam.reference import build, save_weights

ESCAPES = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202eleft"
SAFE = r"\x1b[2J\x1b]0;title\x07\r\x9b31m\u202eleft"
UNSAFE = ("\x1b", "\x07", "\r", "\x9b", "\u202e")


def check(result):
    assert not [char for char in UNSAFE if char in result.out + result.err]
    return result


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


@pytest.fixture
def named(tmp_path):
    """A weights file of a network whose name controls a terminal."""
    node = spec.preset("maam_digits", channels=4, hidden_channels=2, hidden_features=8).replace(name=f"net{ESCAPES}")
    save_weights(build(node, seed=0), tmp_path / "named.safetensors")
    return tmp_path / "named.safetensors"


@pytest.mark.parametrize(
    "command", ["info {}", "parity {} --stages lattice --frameworks torch", "prune {} p.safetensors --channels 0.5"]
)
def test_names_of_models(run, named, command):
    pytest.importorskip("torch")
    found = check(run(*command.format(named).split()))
    assert r"net\x1b[2J\x1b]0;title\x07" in found.out or command != "info {}"


def test_names_of_files(run, tmp_path):
    path = tmp_path / f"w{ESCAPES}.safetensors"
    for command in ("info", "evaluate", "export"):
        result = check(run(command, path, *(["--data", "digits"] if command == "evaluate" else [])))
        assert result.status != 0
    assert SAFE.partition("\\r")[0] in check(run("info", path)).err  # white space of messages is one blank
    result = check(run("list", ESCAPES))
    assert result.err.startswith("maam: no preset matches")


def test_descriptions_of_runs(run, finished, tmp_path):
    """A line of rubbish in the log of one run does not stop the others."""
    for name in ("good", "bad"):
        shutil.copytree(finished, tmp_path / "runs" / name)
    folder = tmp_path / "runs" / "bad"
    document = json.loads((folder / "run.json").read_text())
    document["sessions"][-1]["framework"] = f"torch{ESCAPES}"
    document["sessions"][-1]["recipe"]["overrides"] = {"act_layer": ESCAPES}
    (folder / "run.json").write_text(json.dumps(document))
    result = check(run("runs", tmp_path / "runs"))
    assert result.status == 0
    assert "good" in result.out
    epochs = [line for line in (folder / "log.jsonl").read_text().splitlines() if '"kind": "epoch"' in line]
    for rubbish in ('{"kind": "epoch", "step": 1}', '{"kind": "steps", "step": 1, "losses": 3}', "\0" * 50):
        (folder / "log.jsonl").write_text("\n".join([rubbish, *epochs]))
        result = check(run("runs", tmp_path / "runs"))
        assert (result.status, "good" in result.out) == (0, True), rubbish


def test_long_messages_are_cut(run, tmp_path):
    result = run("info", "x" * 4000 + ".json")
    assert result.status == 1
    assert len(result.err) < 2000


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(closed, tmp_path):
    command = f"{sys.executable} -m maam list maam_digits {closed}"
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
