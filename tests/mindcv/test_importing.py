"""What is said where MindCV or MindSpore is missing; what importing `maam.mindcv` loads. Each in its own process."""

import subprocess
import sys

import pytest

IMPORT = """
import maam
from maam.errors import MissingFrameworkError
try:
    maam.mindcv
except MissingFrameworkError as error:
    print(error)
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", ["mindcv", "mindspore"])
def test_a_missing_package(package):
    block = f"import sys; sys.modules[{package!r}] = None"
    assert run(f"{block}\n{IMPORT}") == f"{package} is not installed; run: pip install 'maam[mindcv]'"


def test_loads_no_stranger():
    program = "import sys, maam; maam.mindcv; print([n for n in ('torch', 'typer', 'sklearn') if n in sys.modules])"
    assert run(program) == "[]"
