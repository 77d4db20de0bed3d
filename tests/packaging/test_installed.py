"""The installed wheel: the commands, the package without a framework, and a clean environment."""

import json
import sys
import tarfile

import pytest

from tests.packaging.conftest import ENVIRONMENT, call, environment

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


def test_commands_and_imports(installed, tmp_path):
    def run(program, *arguments):
        return call(installed.with_name(program), *arguments, cwd=tmp_path, env=ENVIRONMENT)

    assert "Attention modules for image classification" in run("maam", "--help")
    assert "mafc_v2" in run("maam", "list", "mafc_*")
    assert "49,117 parameters, 962,176 MACs" in run("maam", "info", "maam_digits")
    assert run("python", "-m", "maam", "list", "maam_*") == run("maam", "list", "maam_*")
    assert run("python", "-m", "maam", "--help").startswith("Usage: maam ")
    file, recipes, frameworks = json.loads(run("python", "-c", LIGHT))
    assert file.startswith(str(installed.parents[1]))
    assert recipes >= 4
    assert frameworks == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_clean_environment(distributions, tmp_path):
    """Dependencies come from the package index, without a framework; then some tests of the source distribution run."""
    sdist, wheel = distributions
    python = environment(tmp_path / "environment", with_pip=True)
    call(python, "-m", "pip", "install", "--quiet", wheel, "pytest", "pytest-timeout", "hypothesis")
    lines = call(python, "-c", ABSENT, cwd=tmp_path, env=ENVIRONMENT).splitlines()
    assert len(lines) == 5
    assert all("is not installed; run: pip install 'maam[" in line for line in lines)
    assert "maam_digits" in call(python.with_name("maam"), "list", cwd=tmp_path, env=ENVIRONMENT)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    (folder,) = tmp_path.glob("maam-*")
    (folder / "maam").rename(folder / "moved")  # so that the wheel is tested
    report = call(python, "-m", "pytest", "-q", "tests/spec/test_presets.py", "tests/cli/test_models.py", cwd=folder)
    assert " passed" in report
    assert " failed" not in report
