"""What is said where timm is missing, too old, or has a preset's name. Each in its own process."""

import importlib.metadata
import subprocess
import sys

import pytest

IMPORT = """
import maam
from maam.errors import MaamError
try:
    maam.timm
except MaamError as error:
    print(type(error).__name__, error)
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", ["timm", "torch"])
def test_a_missing_package(package):
    block = f"import sys; sys.modules[{package!r}] = None"
    expected = f"MissingFrameworkError {package} is not installed; run: pip install 'maam[{package}]'"
    assert run(f"{block}\n{IMPORT}") == expected


def test_a_version_that_is_too_old():
    pytest.importorskip("timm")
    old = "import sys, types; sys.modules['timm'] = types.ModuleType('timm'); sys.modules['timm'].__version__ = '1.0.3'"
    spec = "sys.modules['timm'].__spec__ = __import__('importlib.machinery').machinery.ModuleSpec('timm', None)"
    expected = (
        "MissingFrameworkError timm 1.0.3 is installed, maam needs 1.0.9 or later; run: pip install --upgrade "
        "'maam[timm]'"
    )
    assert run(f"{old}\n{spec}\n{IMPORT}") == expected


def test_the_oldest_version_is_that_of_the_package():
    pytest.importorskip("timm")
    from maam.timm import MINIMUM

    assert any(line.startswith(f"timm>={MINIMUM};") for line in importlib.metadata.requires("maam"))


def test_a_name_that_is_taken_and_what_is_loaded_by_then():
    pytest.importorskip("timm")
    other = """
import timm

@timm.models.register_model
def mafc_v2(pretrained=False, **options):
    return None
"""
    strangers = "import sys; print([n for n in ('mindspore', 'typer', 'sklearn') if n in sys.modules])"
    expected = (
        "PresetError timm has a model 'mafc_v2' of __main__ already; give one of the two another name, the preset by "
        "maam.register_preset(factory, name)\n[]"
    )
    assert run(f"{other}\n{IMPORT}\n{strangers}") == expected
