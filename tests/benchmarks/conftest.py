"""Fixtures that run `python -m benchmarks` in this process."""

import sys

import pytest

from benchmarks.__main__ import main
from tests.frameworks import working_folder  # noqa: F401


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command; returns its status, standard output and standard error."""

    def call_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["/anywhere/benchmarks/__main__.py", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return call_command


@pytest.fixture
def run(call):

    def run_command(*arguments):
        status, out, error = call(*arguments)
        assert status == 0, error
        return out

    return run_command


@pytest.fixture
def fails(call):
    """Run a command that fails with one line on standard error; returns the message."""

    def run_command(*arguments):
        status, out, error = call(*arguments)
        assert (status, out, error.count("\n")) == (1, "", 1)
        assert error.startswith("benchmarks: ")
        return error.removeprefix("benchmarks: ").rstrip()

    return run_command
