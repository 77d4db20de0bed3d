"""The wheel, installed: the commands, the package without a framework, and in a clean environment."""

import json
import sys
import tarfile

import pytest

LIGHT = """
import json, sys
import maam, maam.spec
from maam.training.recipe_files import list_recipes, read_recipe
recipes = [read_recipe(name).data for name in list_recipes()]
frameworks = [name for name in ("torch", "mindspore", "sklearn", "matplotlib") if name in sys.modules]
print(json.dumps([maam.__file__, len(recipes), frameworks]))
"""
ABSENT = """
import maam
for name in ("torch", "mindspore", "timm", "torchvision", "mindcv"):
    try:
        getattr(maam, name)
    except maam.MissingFrameworkError as error:
        print(error)
"""


@pytest.fixture
def run(installed, call, environment, tmp_path):
    """Run the installed Python, or a program beside it, in a folder of its own."""

    def run_program(program, *arguments):
        return call(installed.with_name(program), *arguments, cwd=tmp_path, env=environment)

    return run_program


def test_the_commands(run):
    assert "Attention modules for image classification" in run("maam", "--help")
    assert "mafc_v2" in run("maam", "list", "mafc_*")
    assert "49,117 parameters, 962,176 MACs" in run("maam", "info", "maam_digits")


def test_as_a_module(run):
    assert run("python", "-m", "maam", "list", "maam_*") == run("maam", "list", "maam_*")
    assert run("python", "-m", "maam", "--help").startswith("Usage: maam ")


def test_the_package_loads_no_framework(run, installed):
    file, recipes, frameworks = json.loads(run("python", "-c", LIGHT))
    assert file.startswith(str(installed.parents[1]))
    assert recipes >= 4
    assert frameworks == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_a_clean_environment(distributions, empty, call, environment, tmp_path):
    """Dependencies from the package index, no framework; then a part of the source distribution's own tests."""
    sdist, wheel = distributions
    python = empty(with_pip=True)
    call(python, "-m", "pip", "install", "--quiet", wheel, "pytest", "pytest-timeout", "hypothesis")
    lines = call(python, "-c", ABSENT, cwd=tmp_path, env=environment).splitlines()
    assert len(lines) == 5
    assert all("is not installed; run: pip install 'maam[" in line for line in lines)
    assert "maam_digits" in call(python.with_name("maam"), "list", cwd=tmp_path, env=environment)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    (folder,) = tmp_path.glob("maam-*")
    (folder / "maam").rename(folder / "moved")  # so that the wheel is tested
    report = call(python, "-m", "pytest", "-q", "tests/spec/test_presets.py", "tests/cli/test_models.py", cwd=folder)
    assert " passed" in report
    assert " failed" not in report
