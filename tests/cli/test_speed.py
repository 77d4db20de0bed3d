"""Quick commands: help and the list of presets import no framework and little of maam."""

import os
import subprocess
import sys

import pytest

BASE = "import numpy, pydantic, typer, rich.console, safetensors"
MAIN = "import sys; from maam.cli import main; sys.argv = ['maam', *sys.argv[1:]]; main()"
HEAVY = ("torch", "mindspore", "sklearn", "matplotlib", "onnx", "openvino", "torchvision")
MARGIN_SECONDS = 0.6
"""Twice the aim of 0.3 s, because tests run beside others."""


def run(*arguments):
    """Run Python; return its CPU time in seconds and its standard error."""
    before = os.times()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, done.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "list"])
def test_cpu_time(command):
    base = min(run("-c", BASE)[0] for _ in range(3))
    assert min(run("-c", MAIN, command)[0] for _ in range(3)) <= base + MARGIN_SECONDS


@pytest.mark.parametrize(
    ("command", "most"), [(("--help",), 12), (("--version",), 12), (("list",), 45), (("info", "cnn"), 70)]
)
def test_imported_modules(command, most):
    lines = run("-X", "importtime", "-c", MAIN, *command)[1].splitlines()
    modules = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    assert not {name.partition(".")[0] for name in modules} & set(HEAVY)
    own = [name for name in modules if name.partition(".")[0] == "maam"]
    assert 3 <= len(own) <= most, own
    assert not [name for name in own if name.startswith(("maam.training", "maam.parity", "maam.deploy"))]
