"""The distributions, built once as for a release, and an environment with the installed wheel."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytest.importorskip("build")
pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
"""The environment variables of a user without this checkout."""


def call(*command, **options):
    options = {"capture_output": True, "text": True, "timeout": 500, "check": False, **options}
    done = subprocess.run([str(part) for part in command], **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def environment(folder, **options):
    """Make a virtual environment, and return its Python."""
    venv.create(folder, symlinks=True, **options)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def installed(distributions, tmp_path_factory):
    """The Python of an environment with the wheel, which uses the dependencies of this environment."""
    python = environment(tmp_path_factory.mktemp("environment"))
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", distributions[1])
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A line with a path only adds the path: a link to this checkout in that folder is not followed.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python
