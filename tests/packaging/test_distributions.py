"""What the wheel and the source distribution hold, and what the wheel says of itself."""

import re
import subprocess
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import maam
from maam.training.recipe_files import list_recipes

ROOT = Path(__file__).parents[2]
EXTRAS = {"all", "deploy", "dev", "executorch", "huggingface", "mindcv", "mindspore", "timm", "torch", "train"}
CORE = {"numpy", "safetensors", "ml-dtypes", "pydantic", "typer", "rich", "tomli"}


@pytest.fixture(scope="module")
def wheel(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


@pytest.fixture(scope="module")
def source(distributions):
    with tarfile.open(distributions[0]) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def tracked(*folders):
    """The files that the repository holds in these folders; without git, as in a source distribution, those there."""
    command = ["git", "-C", ROOT, "ls-files", "--", *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = done.stdout.splitlines() if done.returncode == 0 else []
    return [name for name in found if (ROOT / name).exists()]


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = wheel.namelist()
    assert {re.sub(r"-[^/]*", "", name.partition("/")[0]) for name in names} == {"maam"}
    assert set(tracked("maam")) <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_holds_data_files(wheel):
    recipes = {f"maam/training/recipes/{name}.toml" for name in list_recipes()}
    assert {"maam/py.typed", "maam/torch/layers.pyi", "maam/mindspore/layers.pyi", *recipes} <= set(wheel.namelist())
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_what_the_wheel_says_of_itself(metadata):
    assert (metadata["Name"], metadata["Version"]) == ("maam", maam.__version__)
    assert metadata["Requires-Python"] == ">=3.10"
    assert set(metadata.get_all("Provides-Extra")) >= EXTRAS
    assert "## Use it in PyTorch" in metadata.get_payload()


def test_what_the_wheel_needs(metadata):
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w-]+", line)[0] for line in needed} == CORE
    assert all(">=" in line for line in needed)


def test_the_command(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(name).decode() == "[console_scripts]\nmaam = maam.cli:main\n"


def test_the_source_distribution_builds_and_tests(source):
    needed = {"pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "tests/conftest.py"}
    assert needed | set(tracked("maam", "tests", "docs", "tools", "benchmarks", "weights")) <= source


def test_the_source_distribution_holds_nothing_of_the_workplace(source):
    folders = {name.partition("/")[0] for name in source}
    assert not {"datasets", "runs", "site", ".venv", ".cache", ".mypy_cache", "build", "dist"} & folders
