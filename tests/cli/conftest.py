"""Commands that run in this process or in another one, with their exit status and output."""

import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from maam import spec
from maam.cli import main
from maam.reference import build, save_weights
from tests.frameworks import working_folder  # noqa: F401


class Result(NamedTuple):
    """Exit status, standard output and standard error of a command."""

    status: int
    out: str
    err: str

    @property
    def rows(self):
        """The cells of the rows of all tables."""
        lines = [line for line in self.out.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def process(*command, **variables):
    """Run a program with these environment variables."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **variables})
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run(monkeypatch, capsys):

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["maam", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return Result(caught.value.code or 0, *capsys.readouterr())

    return run_command


@pytest.fixture
def succeeds(run):
    """Run a command that ends with status 0; return its result."""

    def run_succeeding(*arguments):
        result = run(*arguments)
        assert result.status == 0, result.err
        return result

    return run_succeeding


@pytest.fixture
def fails(run):
    """Run a command that fails with status 1 and one line on standard error; return the message."""

    def run_failing(*arguments):
        result = run(*arguments)
        assert (result.status, result.out) == (1, "")
        found = re.fullmatch(r"maam: (.*)\n", result.err)
        assert found, result.err
        return found[1]

    return run_failing


@pytest.fixture
def digits(tmp_path):
    save_weights(build("maam_digits", seed=0), tmp_path / "digits.safetensors")
    return tmp_path / "digits.safetensors"


@pytest.fixture
def layer(tmp_path):
    """A weights file of a single MAAM layer with three channels."""
    save_weights(build(spec.maam(3), seed=0), tmp_path / "layer.safetensors")
    return tmp_path / "layer.safetensors"


@pytest.fixture
def document(tmp_path):

    def write(node, name="spec.json"):
        (tmp_path / name).write_text(node if isinstance(node, str) else node.to_json())
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    for package in ("torch", "sklearn", "matplotlib"):
        pytest.importorskip(package)
    from maam.training import default_recipe, train

    recipe = default_recipe("maam_digits").replaced({"epochs": 1, "batch_size": 128})
    return train("maam_digits", recipe, out=tmp_path_factory.mktemp("runs") / "run").path
