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
OLD_TIMM = """
import importlib.machinery, sys, types
sys.modules["timm"] = old = types.ModuleType("timm")
old.__version__, old.__spec__ = "1.0.3", importlib.machinery.ModuleSpec("timm", None)
"""
OTHER_MODEL = """
import timm

@timm.models.register_model
def mafc_v2(pretrained=False, **options):
    return None
"""
LOADED = "import sys; print([name for name in ('{}', 'typer', 'sklearn') if name in sys.modules])"


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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
    found = run(f"import sys; sys.modules[{package!r}] = None\n{IMPORT.format(module)}")
    assert re.fullmatch(f"MissingFrameworkError {package} is not installed; run: pip install .*\\[{extra}]'", found)


def test_outdated_timm():
    timm = pytest.importorskip("maam.timm", exc_type=ImportError)
    expected = "MissingFrameworkError timm 1.0.3 is installed, maam needs 1.0.9 or later; run: pip install --upgrade"
    assert run(OLD_TIMM + IMPORT.format("timm")) == f"{expected} 'maam[timm]'"
    assert any(line.startswith(f"timm>={timm.MINIMUM};") for line in importlib.metadata.requires("maam"))


def test_a_conflicting_name_in_timm_and_the_loaded_packages():
    pytest.importorskip("timm")
    expected = "PresetError timm already has a model 'mafc_v2' from __main__; register the preset under another name"
    found = run(f"{OTHER_MODEL}\n{IMPORT.format('timm')}\n{LOADED.format('mindspore')}")
    assert found == f"{expected} with maam.register_preset(factory, name)\n[]"


def test_the_packages_that_mindcv_loads():
    pytest.importorskip("mindcv")
    assert run(f"import maam; maam.mindcv; {LOADED.format('torch')}") == "[]"
