"""Errors of missing, outdated and conflicting libraries, and the packages that an import loads, in new processes."""

import importlib.metadata
import re
import subprocess
import sys

import pytest

IMPORT = """
import maam
from maam.errors import MaamError
try:
    maam.{}
except MaamError as error:
    print(type(error).__name__, error)
"""
OTHER_MODEL = """
import timm

@timm.models.register_model
def mafc_v2(pretrained=False, **options):
    return None
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded(*names):
    """Return code that prints which of these packages are loaded."""
    return f"import sys; print([name for name in {names} if name in sys.modules])"


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("timm", "timm", "timm"),
        ("timm", "torch", "torch"),
        ("torchvision", "torchvision", "torch"),
        ("torchvision", "torch", "torch"),
        ("mindcv", "mindcv", "mindcv"),
        ("mindcv", "mindspore", "mindcv"),
    ],
)
def test_missing_package(module, package, extra):
    code = f"import sys; sys.modules[{package!r}] = None\n{IMPORT.format(module)}"
    message = f"MissingFrameworkError {package} is not installed; run: pip install .*\\[{extra}]'"
    assert re.fullmatch(message, run(code))


def test_outdated_timm():
    pytest.importorskip("timm")
    old = "import sys, types; sys.modules['timm'] = types.ModuleType('timm'); sys.modules['timm'].__version__ = '1.0.3'"
    spec = "sys.modules['timm'].__spec__ = __import__('importlib.machinery').machinery.ModuleSpec('timm', None)"
    found = run(f"{old}\n{spec}\n{IMPORT.format('timm')}")
    expected = "MissingFrameworkError timm 1.0.3 is installed, maam needs 1.0.9 or later; run: pip install --upgrade"
    assert found == f"{expected} 'maam[timm]'"
    from maam.timm import MINIMUM

    assert any(line.startswith(f"timm>={MINIMUM};") for line in importlib.metadata.requires("maam"))


def test_a_conflicting_name_in_timm_and_the_loaded_packages():
    pytest.importorskip("timm")
    found = run(f"{OTHER_MODEL}\n{IMPORT.format('timm')}\n{loaded('mindspore', 'typer', 'sklearn')}")
    expected = "PresetError timm already has a model 'mafc_v2' from __main__; register the preset under another name"
    assert found == f"{expected} with maam.register_preset(factory, name)\n[]"


def test_the_packages_that_mindcv_loads():
    pytest.importorskip("mindcv")
    assert run(f"import maam; maam.mindcv; {loaded('torch', 'typer', 'sklearn')}") == "[]"
