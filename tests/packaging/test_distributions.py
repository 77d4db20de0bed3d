"""The contents of the wheel and the source distribution, and the metadata of the wheel."""

import re
import subprocess
import tarfile
import zipfile
from email import message_from_bytes

import pytest

import maam
from maam.training.recipe_files import list_recipes
from tests.packaging.conftest import ROOT

EXTRAS = {"all", "deploy", "dev", "executorch", "huggingface", "mindcv", "mindspore", "timm", "torch", "train"}
CORE = {"numpy", "safetensors", "ml-dtypes", "pydantic", "typer", "rich", "tomli"}
BUILD_FILES = {"pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "tests/conftest.py"}


@pytest.fixture(scope="module")
def wheel(distributions):
    """The files of the wheel: their contents by name, without the folder of the metadata."""
    with zipfile.ZipFile(distributions[1]) as archive:
        return {re.sub(r"^maam-[^/]*\.dist-info", "info", name): archive.read(name) for name in archive.namelist()}


def tracked(*folders):
    """Return the files of these folders in the repository; without git, as in a source distribution, no file."""
    command = ["git", "-C", ROOT, "ls-files", "--", *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = done.stdout.splitlines() if done.returncode == 0 else []
    return {name for name in found if (ROOT / name).exists()}


def test_files_of_the_wheel(wheel):
    assert {name.partition("/")[0] for name in wheel} == {"maam", "info"}
    recipes = {f"maam/training/recipes/{name}.toml" for name in list_recipes()}
    assert {"maam/py.typed", "info/licenses/LICENSE"} | recipes | tracked("maam") <= wheel.keys()
    assert not [name for name in wheel if "__pycache__" in name]
    assert wheel["info/entry_points.txt"].decode() == "[console_scripts]\nmaam = maam.cli:main\n"


def test_metadata_and_requirements(wheel):
    metadata = message_from_bytes(wheel["info/METADATA"])
    assert (metadata["Name"], metadata["Version"]) == ("maam", maam.__version__)
    assert metadata["Requires-Python"] == ">=3.10"
    assert set(metadata.get_all("Provides-Extra")) >= EXTRAS
    assert "## PyTorch" in metadata.get_payload()
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w-]+", line)[0] for line in needed} == CORE
    assert all(">=" in line for line in needed)


def test_files_of_the_source_distribution(distributions):
    """Everything that a build and the tests need, and no working folder."""
    with tarfile.open(distributions[0]) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    assert BUILD_FILES | tracked("maam", "tests", "docs", "tools", "benchmarks", "weights") <= source
    folders = {name.partition("/")[0] for name in source}
    assert not {"datasets", "runs", "site", ".venv", ".cache", ".mypy_cache", "build", "dist"} & folders
