"""Completion in the shell, and the speed of quick commands, which import no framework and little of maam."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from maam.data.archives import ARCHIVES
from maam.deploy import FORMATS
from maam.parity import STAGES
from maam.spec import list_presets
from maam.training.recipe_files import list_recipes
from tests.cli.conftest import process

FRAMEWORKS = ["torch", "mindspore"]
BASE = "import numpy, pydantic, typer, rich.console, safetensors"
MAIN = "import sys; from maam.cli import main; sys.argv = ['maam', *sys.argv[1:]]; main()"
HEAVY = {*FRAMEWORKS, "sklearn", "matplotlib", "onnx", "openvino", "torchvision"}
LARGEST_RATIO = 4
"""The CPU time of a short command, relative to importing the libraries that it needs; 3 for `maam list`."""
OFFERED = {
    "par": ["parity"],
    "optimi": ["optimize"],
    "info ": list_presets(),
    "info maam_d": ["maam_digits"],
    "info nothing": [],
    "list maf": list_presets("maf*"),
    "train mafc_v3": list_presets("mafc_v3*"),
    "train maam_digits --recipe ": list_recipes(),
    "train --framework ": FRAMEWORKS,
    "train --device c": ["cpu", "cuda"],
    "train --precision f": ["fp32", "fp16"],
    "train --data ": ["cifar10", "cifar100", "digits", "imagefolder"],
    "evaluate w.safetensors --framework ": [*FRAMEWORKS, "reference"],
    "evaluate w.safetensors --framework torch,": ["torch,mindspore", "torch,reference"],
    "evaluate w.safetensors --recipe ": list_recipes(),
    "parity ": list_presets(),
    "parity --frameworks torch,mi": ["torch,mindspore"],
    "parity --stages ": [name for name in STAGES if " " not in name],
    "parity --data ": ["digits", "cifar10", "cifar100"],
    "convert a.pth b.ckpt --spec cn": ["cnn"],
    "fuse a b --data d": ["digits"],
    "export w.safetensors --format ": list(FORMATS),
    "maf --arch mafc_v1": ["mafc_v1"],
    "optimize w.safetensors --precision fp32,": ["fp32,auto", "fp32,bf16", "fp32,fp16"],
    "data ": list(ARCHIVES),
}


def environment(line, shell="bash"):
    words = f"maam {line}"
    variables = {"_MAAM_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "_TYPER_COMPLETE_ARGS": words}
    return {**variables, "COMP_CWORD": str(len(words.split(" ")) - 1)}


@pytest.mark.parametrize(("line", "shell"), [*((line, "bash") for line in OFFERED), ("info maam_d", "zsh")])
def test_offered(succeeds, monkeypatch, line, shell):
    for name, value in environment(line, shell).items():
        monkeypatch.setenv(name, value)
    result = succeeds()
    assert result.err == ""
    assert result.out.split() == OFFERED[line] if shell == "bash" else OFFERED[line][0] in result.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_shown_and_installed(succeeds, monkeypatch, tmp_path, shell):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    for name in [name for name in sys.modules if name.startswith("maam.cli.app")]:
        monkeypatch.delitem(sys.modules, name)  # Typer reads the variable when the application is made
    assert "_MAAM_COMPLETE" in succeeds("--show-completion", shell).out
    succeeds("--install-completion", shell)
    assert any("_MAAM_COMPLETE" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_in_a_real_shell():
    """Bash reads the script that `--show-completion` prints, and fills its reply."""
    bash, program = shutil.which("bash"), Path(sys.executable).with_name("maam")
    if bash is None or not program.exists():
        pytest.skip("no bash, or maam is not installed as a program")
    script = """
eval "$(_MAAM_COMPLETE=source_bash maam)"
COMP_WORDS=(maam info maam_d) COMP_CWORD=2
_maam_completion maam
echo "${COMPREPLY[@]}"
"""
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    assert process(bash, "--norc", "-c", script, PATH=path)[:2] == (0, "maam_digits\n")


def imports(*command, **variables):
    """Return the output of a Python process and the modules that it imports, after a check that none is heavy."""
    status, out, error = process(sys.executable, "-X", "importtime", *command, **variables)
    modules = [line.rpartition("|")[2].strip() for line in error.splitlines()]
    assert not {name.partition(".")[0] for name in modules} & HEAVY
    assert status == 0, error
    return out, [name for name in modules if name.partition(".")[0] == "maam"]


def test_completion_imports_no_framework():
    out, modules = imports("-m", "maam", **environment("export a --format "))
    assert out.split() == list(FORMATS)
    assert "maam" in modules


@pytest.mark.parametrize(("line", "most"), [("--help", 12), ("--version", 12), ("list", 45), ("info cnn", 70)])
def test_imported_modules(line, most):
    _, own = imports("-c", MAIN, *line.split())
    assert 3 <= len(own) <= most, own
    assert not [name for name in own if name.startswith(("maam.training", "maam.parity", "maam.deploy"))]


def cpu_seconds(*arguments):
    before = os.times()
    assert process(sys.executable, "-c", *arguments).status == 0
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize("command", ["--help", "--version", "list"])
def test_cpu_time(command):
    base = min(cpu_seconds(BASE) for _ in range(3))
    assert min(cpu_seconds(MAIN, command) for _ in range(3)) <= LARGEST_RATIO * base
