"""What is said where torchvision is missing. In a process of its own."""

import subprocess
import sys

import pytest

IMPORT = """
import maam
from maam.errors import MissingFrameworkError
try:
    maam.torchvision
except MissingFrameworkError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["torchvision", "torch"])
def test_a_missing_package(package):
    code = f"import sys; sys.modules[{package!r}] = None\n{IMPORT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{package} is not installed; run: pip install 'maam[torch]'"
