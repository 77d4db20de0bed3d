"""The distributions, built once as for a release: their contents, the installed wheel, and a clean environment."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import maam
from maam.training.recipe_files import list_recipes

pytest.importorskip("build")
pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
"""The environment variables of a user without this checkout."""
EXTRAS = {"all", "deploy", "dev", "executorch", "huggingface", "mindcv", "mindspore", "timm", "torch", "train"}
CORE = {"numpy", "safetensors", "ml-dtypes", "pydantic", "typer", "rich", "tomli"}
BUILD_FILES = {"pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "tests/conftest.py"}
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


def call(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder, **options):
    """Make a virtual environment, and return its Python."""
    venv.create(folder, symlinks=True, **options)
    return folder / "bin" / "python"


def tracked(*folders):
    """Return the files of these folders in the repository; without git, as in a source distribution, no file."""
    command = ["git", "-C", ROOT, "ls-files", "--", *folders]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return {name for name in found if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def test_files_metadata_and_requirements_of_the_wheel(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        wheel = {re.sub(r"^maam-[^/]*\.dist-info", "info", name): archive.read(name) for name in archive.namelist()}
    assert {name.partition("/")[0] for name in wheel} == {"maam", "info"}
    recipes = {f"maam/training/recipes/{name}.toml" for name in list_recipes()}
    assert {"maam/py.typed", "info/licenses/LICENSE"} | recipes | tracked("maam") <= wheel.keys()
    assert not [name for name in wheel if "__pycache__" in name]
    assert wheel["info/entry_points.txt"].decode() == "[console_scripts]\nmaam = maam.cli:main\n"
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


def test_commands_and_imports_of_the_installed_wheel(distributions, tmp_path):
    """The environment has the wheel, and uses the dependencies of this environment."""
    python = environment(tmp_path / "environment")
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", distributions[1])
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A line with a path only adds the path: a link to this checkout in that folder is not followed.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    def run(program, *arguments):
        return call(python.with_name(program), *arguments, cwd=tmp_path, env=ENVIRONMENT)

    assert "Attention modules for image classification" in run("maam", "--help")
    assert "mafc_v2" in run("maam", "list", "mafc_*")
    assert "49,117 parameters, 962,176 MACs" in run("maam", "info", "maam_digits")
    assert run("python", "-m", "maam", "list", "maam_*") == run("maam", "list", "maam_*")
    assert run("python", "-m", "maam", "--help").startswith("Usage: maam ")
    file, recipes, frameworks = json.loads(run("python", "-c", LIGHT))
    assert file.startswith(str(python.parents[1]))
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
